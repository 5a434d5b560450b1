"""Score fits of shares of the training trials and of the channels: `snakemake learning_curves`.

Requires: session and split.
Makes: `{results}/{session}/learning_curve/{model}.csv`, and `.png` drawn from it; no other rule needs them.
"""


rule learning_curve:
    input:
        session=rules.ingest.output.session,
        split=rules.split.output.split,
    output:
        table=f"{RESULTS}/{{session}}/learning_curve/{{model}}.csv",
    log:
        f"{RESULTS}/logs/{{session}}/learning_curve/{{model}}.log",
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
    params:
        model=lambda wildcards: settings("models")["models"][wildcards.model],
        curve=settings("learning_curve")["learning_curve"]
        | {"channels": shares_of_channels()},
        folds=CONFIG.heldout.folds,
        stratify=CONFIG.heldout.stratify is not None,
        seed=SEEDS[0],
        device=CONFIG.device,
        clip=clip_percentiles(CONFIG),
        future=CONFIG.heldout.time,
        code=[code_fingerprint("fit"), code_fingerprint("score")],
    script:
        "../scripts/learning_curve.py"


rule learning_curve_figure:
    input:
        table=rules.learning_curve.output.table,
    output:
        figure=report(
            f"{RESULTS}/{{session}}/learning_curve/{{model}}.png",
            category="Learning curves",
            caption="../report/learning_curve.rst",
        ),
    log:
        f"{RESULTS}/logs/{{session}}/learning_curve_figure/{{model}}.log",
    conda:
        "../../envs/colatent.yaml"
    resources:
        mem_mb=growing(2000),
        runtime=growing(10),
    params:
        code=code_fingerprint("report"),
    script:
        "../scripts/learning_curve_figure.py"


rule learning_curves:
    input:
        expand(
            rules.learning_curve_figure.output.figure,
            session=SESSIONS,
            model=CONFIG.models,
        ),
