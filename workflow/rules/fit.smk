"""Fit one model to the training trials of one fold.

Requires: `{results}/{session}/session` and `split`.
Makes: `{results}/{session}/fit/{model}/fold-{fold}_seed-{seed}`, parameters and training history.
"""


rule fit:
    input:
        session=rules.ingest.output.session,
        split=rules.split.output.split,
        made_with=settings_of_model("fit"),
    output:
        fit=place("fit", "store"),
    log:
        place("fit", "log"),
    group:
        group_of_fit
    conda:
        "../../envs/colatent.yaml"
    threads: 1
    resources:
        gpu=needs_gpu,
        mem_mb=lambda wildcards, attempt: attempt
        * fit_mb(size_of(wildcards), model_of(wildcards)),
        runtime=lambda wildcards, attempt: attempt
        * fit_minutes(size_of(wildcards), model_of(wildcards)),
    params:
        # survives a retry: Snakemake deletes declared outputs before each attempt
        checkpoint=f"{RESULTS}/{CHECKPOINT}",
    script:
        "../scripts/fit.py"
