"""Decide which trials and channels are kept from the models.

Requires: `{results}/{session}/session`.
Makes: `{results}/{session}/split`, the role of every trial in every fold, and hidden channels.
"""


rule split:
    input:
        session=rules.ingest.output.session,
    output:
        split=f"{RESULTS}/{{session}}/split/complete.json",
    log:
        f"{RESULTS}/logs/{{session}}/split.log",
    conda:
        "../../envs/colatent.yaml"
    resources:
        mem_mb=lambda wildcards, attempt: attempt * reading_mb(size_of(wildcards)),
        runtime=growing(10),
    params:
        settings=split_settings(CONFIG),
        code=code_fingerprint("split"),
    script:
        "../scripts/split.py"
