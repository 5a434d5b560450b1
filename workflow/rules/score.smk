"""Score the fits on what they did not see.

Requires: session, split, and all fits of a model.
Makes: `{results}/{session}/score/{model}` (latents and reconstructions), its table of scores, and
`{results}/scores.csv` over all sessions and models (beside it `paired_differences.csv`, and
`latent_recovery.csv` for simulations).
"""


rule score:
    input:
        session=rules.ingest.output.session,
        split=rules.split.output.split,
        fits=fits_of,
        made_with=MADE_WITH["score"],
    output:
        scores=place("score", "table"),
        store=place("score", "store"),
    log:
        place("score", "log"),
    conda:
        "../../envs/colatent.yaml"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: attempt
        * score_mb(size_of(wildcards), model_of(wildcards)),
        runtime=lambda wildcards, attempt: attempt
        * score_minutes(size_of(wildcards), N_FITS),
    script:
        "../scripts/score.py"


rule scores:
    input:
        tables=expand(rules.score.output.scores, session=SESSIONS, model=CONFIG.models),
        stores=expand(rules.score.output.store, session=SESSIONS, model=CONFIG.models),
        made_with=MADE_WITH["scores"],
    output:
        scores=report(
            place("scores", "table"),
            category="Scores",
            caption="../report/scores.rst",
        ),
    log:
        place("scores", "log"),
    conda:
        "../../envs/colatent.yaml"
    resources:
        mem_mb=growing(2000),
        runtime=growing(10),
    script:
        "../scripts/scores.py"
