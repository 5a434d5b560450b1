"""Score fits to shares of the training trials and channels: `snakemake learning_curves`.

Requires: session and split.
Makes: `{results}/{session}/learning_curve/{model}.csv` and its figure `.png`; no other rule needs them.
"""


rule learning_curve:
    input:
        session=rules.ingest.output.session,
        split=rules.split.output.split,
        made_with=settings_of_model("learning_curve"),
    output:
        table=place("learning_curve", "table"),
    log:
        place("learning_curve", "log"),
    conda:
        "../../envs/colatent.yaml"
    threads: 1
    resources:
        gpu=needs_gpu,
        mem_mb=lambda wildcards, attempt: attempt
        * fit_and_score_mb(size_of(wildcards), model_of(wildcards)),
        runtime=lambda wildcards, attempt: attempt
        * n_points_of_curve()
        * fit_minutes(size_of(wildcards), model_of(wildcards)),
    script:
        "../scripts/learning_curve.py"


rule learning_curve_figure:
    input:
        table=rules.learning_curve.output.table,
        made_with=MADE_WITH["learning_curve_figure"],
    output:
        figure=report(
            place("learning_curve_figure", "page"),
            category="Learning curves",
            caption="../report/learning_curve.rst",
        ),
    log:
        place("learning_curve_figure", "log"),
    conda:
        "../../envs/colatent.yaml"
    resources:
        mem_mb=growing(2000),
        runtime=growing(10),
    script:
        "../scripts/learning_curve_figure.py"


rule learning_curves:
    input:
        expand(
            rules.learning_curve_figure.output.figure,
            session=SESSIONS,
            model=CONFIG.models,
        ),
