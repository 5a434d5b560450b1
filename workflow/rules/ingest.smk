"""Bring all modalities of a recording onto common bins.

Requires: the session's NWB file, or its URL.
Makes: `{results}/{session}/session`, a store with values and masks (trial, time, channel).
"""


rule ingest:
    input:
        refuse_forgotten,  # here, as whatever the target, sessions lead to it
        nwb=recording,
    output:
        session=f"{RESULTS}/{{session}}/session/complete.json",
    log:
        f"{RESULTS}/logs/{{session}}/ingest.log",
    conda:
        "../../envs/colatent.yaml"
    threads: 4
    resources:
        mem_mb=lambda wildcards, threads, attempt: attempt
        * ingest_mb(
            recording_mb(wildcards), CONFIG.read_mb, threads, CONFIG.distributed
        ),
        runtime=lambda wildcards, attempt: attempt
        * ingest_minutes(recording_mb(wildcards)),
    params:
        url=lambda wildcards: SESSIONS[wildcards.session].url,
        settings=ingest_settings(CONFIG),
        code=code_fingerprint("ingest"),
    script:
        "../scripts/ingest.py"
