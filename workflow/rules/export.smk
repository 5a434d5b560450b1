"""Hand the latents of a model to other programs.

Requires: session, scores of a model that has latents, and the recording (its metadata).
Makes: `{results}/{session}/latents/{model}`, a store with the latents of every fit, and
`{results}/{session}/latents/{model}.nwb`, those of the first fit as a new NWB file.
"""


rule export:
    input:
        session=rules.ingest.output.session,
        score=rules.score.output.store,
        recording=recording,
        made_with=MADE_WITH["export"],
    output:
        store=place("export", "store"),
        nwb=place("export", "export"),
    log:
        place("export", "log"),
    conda:
        "../../envs/colatent.yaml"
    resources:
        mem_mb=lambda wildcards, attempt: attempt * page_mb(wildcards),
        runtime=growing(30),
    params:
        url=lambda wildcards: SESSIONS[wildcards.session].url,
    script:
        "../scripts/export.py"
