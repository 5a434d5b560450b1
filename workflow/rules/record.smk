"""Record what made the results, with checksums of all tables, figures and pages.

Requires: everything else.
Makes: `{results}/provenance.json`, which `colatent verify` and `colatent archive` read, and the config that
made the results, `{results}/made_with/config.yaml`.
"""


rule record:
    input:
        rules.scores.output.scores,
        rules.report.output.page,
        expand(rules.export.output.nwb, session=SESSIONS, model=LATENT_MODELS),
        stores=rules.scores.input.stores,
        made_with=MADE_WITH["record"],
    output:
        record=place("record", "record"),
    log:
        place("record", "log"),
    conda:
        "../../envs/colatent.yaml"
    resources:
        mem_mb=growing(2000),
        runtime=growing(10),
    script:
        "../scripts/record.py"
