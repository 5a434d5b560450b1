"""The start page: all sessions and models, from the joined table of scores."""

from pathlib import Path

import numpy as np
import pandas as pd

from colatent.config import Config
from colatent.data.metrics import METRICS
from colatent.report.figures.overview import OverviewQuestion, overview_figure
from colatent.report.pages.page import render, write_page
from colatent.report.score_tables import Summary, summarise
from colatent.report.text.heldout import HELDOUT
from colatent.report.text.words import Words, end_of_trial
from colatent.scoring.tables import read_scores
from colatent.store.layout import where
from colatent.store.stores import read_attrs


def write_start_page(config: Config, sessions: list[str], output: Path, figures: Path) -> None:
    """Write the overview of all sessions and models, with links to their pages.

    Reads only the joined scores and the attributes of the sessions' stores.

    Args:
        config: results are read below ``config.results``.
        sessions: names, in the order of the page.
        output: the page, one file that needs no other.
        figures: folder for the figure as SVG, PNG and CSV.

    Raises:
        InputError: the table of scores is missing.
    """
    asked = questions(read_scores(where(config.results, "scores", "table")), config)
    attrs = {name: read_attrs(where(config.results, "ingest", "store", session=name)) for name in sessions}
    overview = overview_figure(asked, list(config.models), len(sessions))
    html = render(
        "start.html.j2",
        config,
        sessions=sessions,
        attrs=attrs,
        models={name: not model.record.baseline for name, model in config.models.items()},
        questions=asked,
        overview=overview,
        folds=config.heldout.folds,
        words=Words(end=end_of_trial(config.heldout.time)),
    )
    write_page(output, figures, html, [overview] if overview else [])


def questions(scores: pd.DataFrame, config: Config) -> list[OverviewQuestion]:
    """Return the pooled main scores of every session and model, question by question."""
    main = [name for name, metric in METRICS.items() if metric.is_main]
    pooled = scores[(scores["channel"] == "pooled") & scores["metric"].isin(main)]
    found = []
    for heldout in HELDOUT:
        for predicted in config.modalities:
            own = pooled[(pooled["heldout"] == heldout) & (pooled["predicted"] == predicted)]
            if own.empty:
                continue
            by_model = {
                (str(session), str(model)): _summary(rows, config.heldout.folds)
                for (session, model), rows in own.groupby(["session", "model"], sort=False)
            }
            found.append(OverviewQuestion(heldout, predicted, str(own["metric"].iloc[0]), by_model))
    return found


def _summary(rows: pd.DataFrame, folds: int) -> Summary:
    """Mean and s.e.m. over folds of the largest set of given modalities."""
    given = max(sorted(rows["given"].unique()), key=lambda g: 0 if g == "none" else g.count("+") + 1)
    value = rows[rows["given"] == given].groupby("fold")["value"].mean()
    return summarise(value.reindex(range(folds)).to_numpy(dtype=np.float64))
