"""Decide which trials and channels are kept from the models.

Requires: `{results}/{session}/session`.
Makes: `{results}/{session}/split`, the role of every trial in every fold, and hidden channels.
"""


rule split:
    input:
        session=rules.ingest.output.session,
        made_with=MADE_WITH["split"],
    output:
        split=place("split", "store"),
    log:
        place("split", "log"),
    conda:
        "../../envs/colatent.yaml"
    resources:
        mem_mb=lambda wildcards, attempt: attempt * reading_mb(size_of(wildcards)),
        runtime=growing(10),
    script:
        "../scripts/split.py"
