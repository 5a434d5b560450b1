"""Draw the figures and write the pages: for each model of a session, each session, and all sessions.

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
        made_with=settings_of_model("model_page"),
    output:
        page=report(
            place("model_page", "page"),
            category="Sessions",
            subcategory="{session}",
            labels={"page": "{model}"},
            caption="../report/model_page.rst",
        ),
        figures=report(
            directory(place("model_page", "figures")),
            patterns=["{name}.png"],
            category="Figures",
            subcategory="{session}",
            labels={"model": "{model}", "figure": "{name}"},
            caption="../report/model_figures.rst",
        ),
    log:
        place("model_page", "log"),
    conda:
        "../../envs/colatent.yaml"
    resources:
        mem_mb=lambda wildcards, attempt: attempt * page_mb(wildcards),
        runtime=growing(30),
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
        made_with=MADE_WITH["session_page"],
    output:
        page=report(
            place("session_page", "page"),
            category="Sessions",
            subcategory="{session}",
            labels={"page": "models compared"},
            caption="../report/session_page.rst",
        ),
        figures=report(
            directory(place("session_page", "figures")),
            patterns=["{name}.png"],
            category="Figures",
            subcategory="{session}",
            labels={"model": "all", "figure": "{name}"},
            caption="../report/session_figures.rst",
        ),
    log:
        place("session_page", "log"),
    conda:
        "../../envs/colatent.yaml"
    resources:
        mem_mb=lambda wildcards, attempt: attempt * page_mb(wildcards),
        runtime=growing(30),
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
        made_with=MADE_WITH["report"],
    output:
        page=report(
            place("report", "page"),
            category="Report",
            labels={"page": "all sessions"},
            caption="../report/page.rst",
        ),
        figures=report(
            directory(place("report", "figures")),
            patterns=["{name}.png"],
            category="Report",
            labels={"page": "{name}"},
            caption="../report/figures.rst",
        ),
    log:
        place("report", "log"),
    conda:
        "../../envs/colatent.yaml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(30 + len(SESSIONS)),
    script:
        "../scripts/report.py"
