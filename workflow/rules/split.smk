"""Decide which trials and channels are kept from the models.

Requires: `{results}/{session}/session`.
Makes: `{results}/{session}/split`, the role of every trial in every fold, and hidden channels.
"""


rule split:
    input:
        session=rules.ingest.output.session,
    output:
        split=directory(f"{RESULTS}/{{session}}/split"),
    params:
        settings=settings("heldout", "alignment"),
        code=code_fingerprint("split"),
    log:
        f"{RESULTS}/logs/{{session}}/split.log",
    resources:
        mem_mb=2000,
        runtime=10,
    conda:
        "../../envs/colatent.yaml"
    script:
        "../scripts/split.py"
