"""Bring all modalities of a recording onto common bins.

Requires: the session's NWB file, or its URL.
Makes: `{results}/{session}/session`, a store with values and masks (trial, time, channel).
"""

from colatent.location import is_url


def nwb_file(wildcards):
    """Return the session's NWB file; nothing if it is streamed from a URL."""
    nwb = SESSIONS[wildcards.session].nwb
    return [] if is_url(nwb) else nwb


def nwb_url(wildcards):
    """Return the session's URL, so that another one reruns the ingest; nothing for a file."""
    nwb = SESSIONS[wildcards.session].nwb
    return nwb if is_url(nwb) else ""


rule ingest:
    input:
        nwb=nwb_file,
    output:
        session=directory(f"{RESULTS}/{{session}}/session"),
    log:
        f"{RESULTS}/logs/{{session}}/ingest.log",
    conda:
        "../../envs/colatent.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=120,
    params:
        url=nwb_url,
        settings=settings("alignment", "modalities", "checks", "truth"),
        code=code_fingerprint("ingest"),
    script:
        "../scripts/ingest.py"
