"""Draw the figures and write the pages: of each model of a session, of each session, of all.

Requires: the stores of sessions, splits, fits and scores; for the start page the joined scores.
Makes: below `{results}/report`, `index.html` (all sessions), `sessions/{session}/index.html` (models
compared) and `sessions/{session}/models/{model}/index.html`, each with a folder `figures` beside it.
"""


rule model_page:
    input:
        session=rules.ingest.output.session,
        split=rules.split.output.split,
        fits=fits_of,
        scores=rules.score.output.scores,
        store=rules.score.output.store,
    output:
        page=report(
            f"{RESULTS}/report/sessions/{{session}}/models/{{model}}/index.html",
            category="Sessions",
            subcategory="{session}",
            labels={"page": "{model}"},
            caption="../report/model_page.rst",
        ),
        figures=report(
            directory(
                f"{RESULTS}/report/sessions/{{session}}/models/{{model}}/figures"
            ),
            patterns=["{name}.png"],
            category="Figures",
            subcategory="{session}",
            labels={"model": "{model}", "figure": "{name}"},
            caption="../report/model_figures.rst",
        ),
    log:
        f"{RESULTS}/logs/{{session}}/model_page/{{model}}.log",
    conda:
        "../../envs/colatent.yaml"
    resources:
        mem_mb=lambda wildcards, attempt: attempt * page_mb(wildcards),
        runtime=growing(30),
    params:
        config=config_of_model,
        code=code_fingerprint("report"),
    script:
        "../scripts/model_page.py"


rule session_page:
    input:
        session=rules.ingest.output.session,
        split=rules.split.output.split,
        fits=expand(
            rules.fit.output.fit,
            model=CONFIG.models,
            fold=FOLDS,
            seed=SEEDS,
            allow_missing=True,
        ),
        scores=expand(
            rules.score.output.scores, model=CONFIG.models, allow_missing=True
        ),
        stores=expand(rules.score.output.store, model=CONFIG.models, allow_missing=True),
    output:
        page=report(
            f"{RESULTS}/report/sessions/{{session}}/index.html",
            category="Sessions",
            subcategory="{session}",
            labels={"page": "models compared"},
            caption="../report/session_page.rst",
        ),
        figures=report(
            directory(f"{RESULTS}/report/sessions/{{session}}/figures"),
            patterns=["{name}.png"],
            category="Figures",
            subcategory="{session}",
            labels={"model": "all", "figure": "{name}"},
            caption="../report/session_figures.rst",
        ),
    log:
        f"{RESULTS}/logs/{{session}}/session_page.log",
    conda:
        "../../envs/colatent.yaml"
    resources:
        mem_mb=lambda wildcards, attempt: attempt * page_mb(wildcards),
        runtime=growing(30),
    params:
        config=CONFIG.model_dump(mode="json"),
        code=code_fingerprint("report"),
    script:
        "../scripts/session_page.py"


rule report:
    input:
        scores=rules.scores.output.scores,
        sessions=expand(rules.ingest.output.session, session=SESSIONS),
        # the start page links to them
        pages=[
            *expand(rules.session_page.output.page, session=SESSIONS),
            *expand(
                rules.model_page.output.page, session=SESSIONS, model=CONFIG.models
            ),
        ],
    output:
        page=report(
            f"{RESULTS}/report/index.html",
            category="Report",
            labels={"page": "all sessions"},
            caption="../report/page.rst",
        ),
        figures=report(
            directory(f"{RESULTS}/report/figures"),
            patterns=["{name}.png"],
            category="Report",
            labels={"page": "{name}"},
            caption="../report/figures.rst",
        ),
    log:
        f"{RESULTS}/logs/report.log",
    conda:
        "../../envs/colatent.yaml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(30 + len(SESSIONS)),
    params:
        config=CONFIG.model_dump(mode="json"),
        sessions=list(SESSIONS),
        code=code_fingerprint("report"),
    script:
        "../scripts/report.py"
