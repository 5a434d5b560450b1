"""Compare numbers of latents of the GPFA models, on training trials only: `snakemake choose_latents`.

Requires: session and split.
Makes: `{results}/{session}/latent_choice/{model}.csv`, and `.png` drawn from it; no other rule needs them.
"""


rule latent_choice:
    input:
        session=rules.ingest.output.session,
        split=rules.split.output.split,
    output:
        table=f"{RESULTS}/{{session}}/latent_choice/{{model}}.csv",
    log:
        f"{RESULTS}/logs/{{session}}/latent_choice/{{model}}.log",
    conda:
        "../../envs/colatent.yaml"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: attempt
        * fit_and_score_mb(size_of(wildcards), model_of(wildcards)),
        runtime=growing(240),
    params:
        model=lambda wildcards: settings("models")["models"][wildcards.model],
        folds=CONFIG.heldout.folds,
        clip=clip_percentiles(CONFIG),
        code=code_fingerprint("score"),
    script:
        "../scripts/latent_choice.py"


rule latent_choice_figure:
    input:
        table=rules.latent_choice.output.table,
    output:
        figure=report(
            f"{RESULTS}/{{session}}/latent_choice/{{model}}.png",
            category="Number of latents",
            caption="../report/latent_choice.rst",
        ),
    log:
        f"{RESULTS}/logs/{{session}}/latent_choice_figure/{{model}}.log",
    conda:
        "../../envs/colatent.yaml"
    resources:
        mem_mb=growing(2000),
        runtime=growing(10),
    params:
        code=code_fingerprint("report"),
    script:
        "../scripts/latent_choice_figure.py"


rule choose_latents:
    input:
        expand(
            rules.latent_choice_figure.output.figure,
            session=SESSIONS,
            model=[n for n, m in CONFIG.models.items() if isinstance(m, GPFAModel)],
        ),
