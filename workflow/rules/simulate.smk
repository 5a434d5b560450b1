"""Write the simulated recordings (demo only).

Requires: nothing.
Makes: any `*.simulated.nwb` that the table of sessions names.
"""


rule simulate:
    output:
        nwb="{path}.simulated.nwb",
    params:
        simulation=settings("simulate")["simulate"],
        code=code_fingerprint("simulate"),
    log:
        "{path}.simulated.log",
    resources:
        mem_mb=2000,
        runtime=10,
    conda:
        "../../envs/colatent.yaml"
    script:
        "../scripts/simulate.py"
