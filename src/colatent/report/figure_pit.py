"""Figure: where in its predictive distribution each held-out observation fell."""

from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from colatent.report.figure import ReportFigure, finish, new_figure, style
from colatent.report.model_results import Array, ModelResults
from colatent.report.style import BLUE, INK, break_group, short
from colatent.report.tables import HELDOUT_ORDER
from colatent.report.words import SHORT_HELDOUT

COLUMNS = 5
HIGHEST = 5.0  # times the flat level: what is beyond is cut off, and said


class Pit(NamedTuple):
    """PIT of one question over all fits: ``density`` (bin) is 1 throughout if the intervals are right."""

    heldout: str
    given: str
    predicted: str
    density: Array
    n: int


def pit_figure(model: ModelResults) -> ReportFigure | None:
    """Draw a histogram of the probability integral transform for each kind of question."""
    found = _largest(_pooled(model))
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


def _pooled(model: ModelResults) -> list[Pit]:
    """Pool the fits: each observation counts once for every fit that predicted it."""
    sums: dict[tuple[str, str, str], Array] = {}
    counts: dict[tuple[str, str, str], int] = {}
    for data in model.calibration.values():
        texts = (map(str, data[key].values) for key in ("heldout", "given", "predicted"))
        for question, share, n in zip(
            zip(*texts, strict=True), data["share"].values, data["n"].values, strict=True
        ):
            if n:
                sums[question] = sums.get(question, np.zeros(len(share))) + n * share
                counts[question] = counts.get(question, 0) + int(n)
    return [Pit(h, g, p, len(s) * s / counts[h, g, p], counts[h, g, p]) for (h, g, p), s in sums.items()]


def _largest(pits: list[Pit]) -> list[Pit]:
    """Keep, of each kind of question and predicted modality, the one with the most modalities given."""
    largest: dict[tuple[str, str], Pit] = {}
    for pit in sorted(pits, key=lambda p: -len(p.given.split("+"))):
        largest.setdefault((pit.heldout, pit.predicted), pit)
    return sorted(largest.values(), key=lambda p: HELDOUT_ORDER.index(p.heldout))


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
    given = "" if pit.given == "none" else f"\nfrom {break_group(short(pit.given, 30), 24)}"
    axes.set_title(f"{short(pit.predicted, 14)}: {SHORT_HELDOUT[pit.heldout]}{given}", fontsize=7.5)


def _table(pit: Pit) -> pd.DataFrame:
    centre = (np.arange(len(pit.density)) + 0.5) / len(pit.density)
    question = {"heldout": pit.heldout, "given": pit.given, "predicted": pit.predicted}
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
