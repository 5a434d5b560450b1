"""Figure: where in its predictive distribution each held-out observation fell."""

from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from colatent.data.tasks import Task, largest_tasks
from colatent.report.figures.base import (
    ReportFigure,
    finish,
    new_figure,
    style,
)
from colatent.report.figures.style import (
    BLUE,
    INK,
    break_group,
    short,
)
from colatent.report.model_results import Array, ModelResults
from colatent.report.pages.score_tables import HELDOUT_ORDER
from colatent.report.text.labels import SHORT_HELDOUT

COLUMNS = 5
HIGHEST = 5.0  # times the flat level: what is beyond is cut off, and said


class Pit(NamedTuple):
    """PIT of one question over all fits: ``density`` (bin) is 1 throughout if the intervals are right."""

    task: Task
    density: Array
    n: int


def pit_figure(model: ModelResults) -> ReportFigure | None:
    """Draw a histogram of the probability integral transform for each kind of question."""
    found = _largest(model)
    if not found:
        return None
    word = model.session.trial_word
    columns = min(len(found), COLUMNS)
    rows = int(np.ceil(len(found) / columns))
    with style():
        title = f"Probability integral transform of {model.model}, held-out (test) {word}s"
        figure = new_figure(title, 1.75 * rows + 0.2)
        grid = figure.subplots(rows, columns, squeeze=False, sharex=True)
        for axes, pit in zip(grid.flat, found, strict=False):
            _draw(axes, pit)
        for axes in grid.flat[len(found) :]:
            axes.set_visible(False)
        for axes in grid[:, 0]:
            axes.set_ylabel("density")
        for axes in grid.flat[max(len(found) - columns, 0) : len(found)]:
            axes.set_xlabel("PIT")
            axes.tick_params(labelbottom=True)
    return finish("pit", figure, _caption(word), pd.concat([_table(pit) for pit in found]))


def _largest(model: ModelResults) -> list[Pit]:
    """Return, of each kind of question and predicted modality, the one with the most modalities given."""
    counts = _counts(model)
    tasks = sorted(largest_tasks(counts), key=lambda task: HELDOUT_ORDER.index(task.heldout))
    return [Pit(task, counts[task] / counts[task].mean(), round(counts[task].sum())) for task in tasks]


def _counts(model: ModelResults) -> dict[Task, Array]:
    """Return the observations (bin,) of each question; each counts once for every fit that predicted it."""
    counts: dict[Task, Array] = {}
    for data in model.calibration.values():
        texts = (map(str, data[key].values) for key in ("heldout", "given", "predicted"))
        for heldout, given, predicted, share, n in zip(
            *texts, data["share"].values, data["n"].values, strict=True
        ):
            task = Task(heldout, () if given == "none" else tuple(given.split("+")), predicted)
            if n:
                counts[task] = counts.get(task, 0.0) + n * share
    return counts


def _draw(axes: Axes, pit: Pit) -> None:
    edges = np.linspace(0, 1, len(pit.density) + 1)
    axes.stairs(np.minimum(pit.density, HIGHEST), edges, fill=True, color=BLUE, alpha=0.7)
    axes.axhline(1, color=INK, lw=1, ls="--")
    cut = np.flatnonzero(pit.density > HIGHEST)
    for k in cut:
        inside = (edges[k], HIGHEST)
        axes.annotate(
            f"{pit.density[k]:.0f}", inside, xytext=(2, -2), textcoords="offset points", fontsize=6, va="top",
            ha="left" if k < len(pit.density) / 2 else "right",
        )  # fmt: skip
    axes.set_xlim(0, 1)
    axes.set_ylim(0, HIGHEST if len(cut) else max(2.0, 1.1 * float(pit.density.max())))
    axes.set_xticks([0, 0.5, 1], ["0", ".5", "1"])
    task = pit.task
    given = f"\nfrom {break_group(short(task.given_name, 30), 24)}" if task.given else ""
    axes.set_title(f"{short(task.predicted, 14)}: {SHORT_HELDOUT[task.heldout]}{given}", fontsize=7.5)


def _table(pit: Pit) -> pd.DataFrame:
    centre = (np.arange(len(pit.density)) + 0.5) / len(pit.density)
    task = pit.task
    question = {"heldout": task.heldout, "given": task.given_name, "predicted": task.predicted}
    return pd.DataFrame(question | {"pit": centre, "density": pit.density, "n": pit.n})


def _caption(word: str) -> str:
    return (
        f"Of every scored bin and channel of the test {word}s, all fits together: the probability that the "
        "predictive distribution gave to less than what was observed. Flat at 1 (dashed) if predictions are "
        "as sure as they may be; high at both ends: too narrow; a hill in the middle: too wide; a slope: "
        "biased. Counts enter with the expectation of their randomised PIT; continuous channels without a "
        "score (which do not vary in training or in the scored bins) are left out. Of each kind of question, "
        f"the one with the most modalities given. Densities beyond {HIGHEST:g} are cut off and written."
    )
