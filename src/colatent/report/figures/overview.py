"""Figure: the main score of every session and model."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from colatent.data.metrics import METRICS
from colatent.report.figures.base import ReportFigure, finish, new_figure, style
from colatent.report.figures.style import BLUE, GREY, short
from colatent.report.score_tables import Summary, summarise
from colatent.report.text.heldout import HELDOUT


@dataclass(frozen=True)
class OverviewQuestion:
    """What all sessions' models were asked: scores by (session, model), of the most modalities given."""

    heldout: str
    predicted: str
    metric: str
    scores: dict[tuple[str, str], Summary]

    @property
    def metric_name(self) -> str:
        return METRICS[self.metric].title


def overview_figure(
    questions: Sequence[OverviewQuestion], models: list[str], n_sessions: int
) -> ReportFigure | None:
    """Draw one panel per question, one row per model: sessions as dots, their mean ± s.e.m."""
    if not questions:
        return None
    columns = min(len(questions), 3)
    rows = math.ceil(len(questions) / columns)
    with style():
        figure = new_figure("All sessions, held-out trials", rows * (0.23 * len(models) + 0.85))
        grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
        for axes in grid.flat[len(questions) :]:
            axes.set_visible(False)
        for axes, question in zip(grid.flat, questions, strict=False):
            _draw(axes, question, models)
    data = pd.DataFrame(
        (q.heldout, q.predicted, q.metric, session, model, s.mean, s.sem)
        for q in questions
        for (session, model), s in q.scores.items()
    )
    data.columns = ["heldout", "predicted", "metric", "session", "model", "mean", "sem"]
    error = "mean ± s.e.m. over sessions" if n_sessions > 1 else "its mean over folds"
    caption = (
        "All scores are of test trials (or windows), to which no parameter was fitted; each panel’s title "
        f"names what else was held out. Pale dots: sessions, mean over folds; large dots: {error}. Each "
        "model was given all the modalities it may see. 0 (grey line) is chance: no better than the mean. "
        "Means far below 0 are drawn at the edge."
    )
    return finish("overview", figure, caption, data)


def _draw(axes: Axes, question: OverviewQuestion, models: list[str]) -> None:
    values = {m: [s.mean for (_, model), s in question.scores.items() if model == m] for m in models}
    finite = np.array([v for vs in values.values() for v in vs if np.isfinite(v)])
    top = float(finite.max()) if len(finite) else 1.0
    low = max(float(finite.min()) if len(finite) else 0.0, -max(abs(top), 0.1))
    for y, (_, value) in enumerate(values.items()):
        drawn = np.maximum(np.array(value, dtype=float), low)
        if not np.isfinite(drawn).any():
            continue
        axes.plot(drawn, np.full(len(drawn), y), "o", color=BLUE, ms=3, alpha=0.35, mew=0)
        summary = summarise(np.array(value, dtype=float))
        sem = summary.sem if np.isfinite(summary.sem) else 0.0
        axes.errorbar(max(summary.mean, low), y, xerr=sem, fmt="o", color=BLUE, ms=5.5, capsize=2.5)
    axes.axvline(0, color=GREY, lw=0.8, zorder=0)
    axes.set_yticks(range(len(models)), [short(m, 24) for m in models])
    axes.set_ylim(len(models) - 0.5, -0.5)
    axes.set_title(f"{short(question.predicted, 20)}: {HELDOUT[question.heldout].short}", loc="left")
    axes.set_xlabel(question.metric_name)
