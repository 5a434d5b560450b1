"""Draw the figures and write the page.

Requires: all scores, and the stores of sessions, splits, fits and scores.
Makes: `{results}/report/index.html` (self-contained) and `{results}/report/figures`.
"""


rule report:
    input:
        scores=rules.scores.output.scores,
        stores=rules.scores.input.stores,
    output:
        page=report(
            f"{RESULTS}/report/index.html",
            category="Report",
            caption="../report/page.rst",
        ),
        figures=report(
            directory(f"{RESULTS}/report/figures"),
            patterns=["{name}.png"],
            category="Figures",
            caption="../report/figures.rst",
        ),
    log:
        f"{RESULTS}/logs/report.log",
    conda:
        "../../envs/colatent.yaml"
    resources:
        mem_mb=lambda wildcards, attempt: attempt * 4000,
        runtime=lambda wildcards, attempt: attempt * (30 + len(SESSIONS)),
    params:
        config=CONFIG.model_dump(mode="json"),
        sessions=list(SESSIONS),
        code=code_fingerprint("report"),
    script:
        "../scripts/report.py"
