"""Compare numbers of latents, on training trials only: `snakemake choose_latents`.

Requires: session and split.
Makes: `{results}/{session}/latent_choice/{model}.csv` and its figure `.png`; no other rule needs them.
"""


rule latent_choice:
    input:
        session=rules.ingest.output.session,
        split=rules.split.output.split,
        made_with=settings_of_model("latent_choice"),
    output:
        table=place("latent_choice", "table"),
    log:
        place("latent_choice", "log"),
    conda:
        "../../envs/colatent.yaml"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: attempt
        * fit_and_score_mb(size_of(wildcards), model_of(wildcards)),
        runtime=growing(240),
    script:
        "../scripts/latent_choice.py"


rule latent_choice_figure:
    input:
        table=rules.latent_choice.output.table,
        made_with=MADE_WITH["latent_choice_figure"],
    output:
        figure=report(
            place("latent_choice_figure", "page"),
            category="Number of latents",
            caption="../report/latent_choice.rst",
        ),
    log:
        place("latent_choice_figure", "log"),
    conda:
        "../../envs/colatent.yaml"
    resources:
        mem_mb=growing(2000),
        runtime=growing(10),
    script:
        "../scripts/latent_choice_figure.py"


rule choose_latents:
    input:
        expand(
            rules.latent_choice_figure.output.figure,
            session=SESSIONS,
            model=[n for n, m in CONFIG.models.items() if m.can_choose_latents],
        ),
