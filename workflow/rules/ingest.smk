"""Bring all modalities of a recording onto common bins.

Requires: the session's NWB file, or its URL.
Makes: `{results}/{session}/session`, a store with values and masks (trial, time, channel).
"""


rule ingest:
    input:
        nwb=recording,
        made_with=MADE_WITH["ingest"],
    output:
        session=place("ingest", "store"),
    log:
        place("ingest", "log"),
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
    script:
        "../scripts/ingest.py"
