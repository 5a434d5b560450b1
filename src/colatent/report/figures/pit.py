"""Figure: where in its predictive distribution each held-out observation fell."""

from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from colatent.data.tasks import Task, largest_tasks
from colatent.report.figures.base import ReportFigure, finish, new_figure, style
from colatent.report.figures.style import BLUE, INK, break_group, short
from colatent.report.model_results import Array, ModelResults
from colatent.report.text.heldout import HELDOUT

COLUMNS = 5
HIGHEST = 5.0  # times the flat level; higher bars are cut off and labelled


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
    trials = model.session.words.trials
    columns = min(len(found), COLUMNS)
    rows = int(np.ceil(len(found) / columns))
    with style():
        title = f"Probability integral transform of {model.model}, held-out (test) {trials}"
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
    return finish("pit", figure, _caption(trials), pd.concat([_table(pit) for pit in found]))


def _largest(model: ModelResults) -> list[Pit]:
    """Return, of each kind of question and predicted modality, the one with the most modalities given."""
    counts = _counts(model)
    tasks = sorted(largest_tasks(counts), key=lambda task: list(HELDOUT).index(task.heldout))
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
    axes.set_title(f"{short(task.predicted, 14)}: {HELDOUT[task.heldout].short}{given}", fontsize=7.5)


def _table(pit: Pit) -> pd.DataFrame:
    centre = (np.arange(len(pit.density)) + 0.5) / len(pit.density)
    task = pit.task
    question = {"heldout": task.heldout, "given": task.given_name, "predicted": task.predicted}
    return pd.DataFrame(question | {"pit": centre, "density": pit.density, "n": pit.n})


def _caption(trials: str) -> str:
    return (
        f"For every scored bin and channel of the test {trials}, all fits together: the probability that the "
        "prediction gave to values below the observed one. Flat at 1 (dashed) if predictions are as certain "
        "as they should be; high at both ends: too narrow; a hump in the middle: too wide; a slope: biased. "
        "Counts enter with the expectation of their randomised PIT; continuous channels without a score "
        "(which do not vary in training or in the scored bins) are left out. Each panel is the question of "
        f"its kind with the most modalities given. Densities beyond {HIGHEST:g} are cut off and labelled."
    )
