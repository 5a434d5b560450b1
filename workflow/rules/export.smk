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
    output:
        store=f"{RESULTS}/{{session}}/latents/{{model}}/complete.json",
        nwb=f"{RESULTS}/{{session}}/latents/{{model}}.nwb",
    log:
        f"{RESULTS}/logs/{{session}}/export/{{model}}.log",
    conda:
        "../../envs/colatent.yaml"
    resources:
        mem_mb=lambda wildcards, attempt: attempt * page_mb(wildcards),
        runtime=growing(30),
    params:
        url=lambda wildcards: SESSIONS[wildcards.session].url,
        checks=settings("checks")["checks"],
        code=code_fingerprint("export"),
    script:
        "../scripts/export.py"
