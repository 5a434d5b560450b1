"""Record what made the results, with checksums of all tables, figures and pages.

Requires: everything else.
Makes: `{results}/provenance.json`, which `colatent verify` and `colatent compare` read.
"""


rule record:
    input:
        rules.scores.output.scores,
        rules.report.output.page,
        expand(rules.export.output.nwb, session=SESSIONS, model=LATENT_MODELS),
        stores=rules.scores.input.stores,
    output:
        record=f"{RESULTS}/provenance.json",
    log:
        f"{RESULTS}/logs/record.log",
    conda:
        "../../envs/colatent.yaml"
    resources:
        mem_mb=growing(2000),
        runtime=growing(10),
    params:
        config=CONFIG.model_dump(mode="json"),
        sessions=list(SESSIONS),
        code=code_of_run,
        config_file=str(CONFIG_FILE),
    script:
        "../scripts/record.py"
