"""Write the simulated recordings (demo only).

Requires: nothing.
Makes: any `*.simulated.nwb` that the table of sessions names.
"""


rule simulate:
    input:
        made_with=MADE_WITH["simulate"],
    output:
        nwb="{path}.simulated.nwb",
    log:
        "{path}.simulated.log",
    conda:
        "../../envs/colatent.yaml"
    resources:
        mem_mb=growing(2000),
        runtime=growing(10),
    script:
        "../scripts/simulate.py"
