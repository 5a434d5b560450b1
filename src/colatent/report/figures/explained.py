"""Figure: how much of each modality each group of latents explains."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from colatent.report.figures.base import ReportFigure, finish, new_figure, style
from colatent.report.figures.style import CELL_INK, CELL_PAPER, break_group, short
from colatent.report.model_results import ModelResults
from colatent.report.score_tables import summarise
from colatent.report.text.numbers import number

TITLES = {"alone": "this group’s latents alone", "unique": "lost without this group"}


def explained_figure(model: ModelResults) -> ReportFigure | None:
    """Draw the matrices group x modality of R² in test trials, mean ± s.e.m. over folds."""
    found = [(fold, s["explained"]) for (fold, _), s in model.summaries.items() if "explained" in s]
    if not found:
        return None
    groups = [str(g) for g in found[0][1]["group"].values]
    modalities = [str(m) for m in found[0][1]["modality"].values]
    rows = [
        (kind, g, m, *summarise(_by_fold(found, kind, i, j))[:2])
        for kind in TITLES
        for i, g in enumerate(groups)
        for j, m in enumerate(modalities)
    ]
    table = pd.DataFrame(rows, columns=["kind", "group", "modality", "r2", "sem"])
    trials = model.session.words.trials
    with style():
        figure = new_figure(
            f"What each group of {model.model} explains, held-out (test) {trials}",
            0.42 * len(groups) + 1.1,
            width=min(2.2 + 2 * max(1.25 * len(modalities), 2.4), 10.5),
        )
        for axes, kind in zip(figure.subplots(1, 2, sharey=True), TITLES, strict=True):
            _draw(axes, table[table["kind"] == kind], groups, modalities)
            axes.set_title(TITLES[kind])
            axes.set_xlabel("modality")
            if kind == next(iter(TITLES)):
                axes.set_ylabel("latent group")
    caption = (
        f"R² over the test {trials} of each fold (all bins and channels, in units of their training s.d.; "
        "for spikes, of the counts, whose noise nothing explains), mean ± s.e.m. over folds. Latents were "
        "inferred from all modalities. Left: decoded from the posterior means of one group, with all others "
        "at their prior mean; what a model predicts without latents, such as a mean time course, is in it. "
        "Right: what is lost if this group is put at its prior mean instead. 0: no better than the training "
        "mean; grey: the group does not drive the modality. In a model of one group, that group explains all "
        "that is reconstructed."
    )
    return finish("explained", figure, caption, table)


def _by_fold(found: list, kind: str, i: int, j: int) -> np.ndarray:
    """Return the value of each fold, seeds averaged."""
    values: dict[int, list[float]] = {}
    for fold, data in found:
        values.setdefault(fold, []).append(float(data[kind].values[i, j]))
    return np.array([np.mean(v) for v in values.values()])


def _draw(axes: Axes, table: pd.DataFrame, groups: list[str], modalities: list[str]) -> None:
    value = table["r2"].to_numpy().reshape(len(groups), len(modalities))
    sem = table["sem"].to_numpy().reshape(value.shape)
    axes.set_facecolor("#ECECEC")
    axes.pcolormesh(np.clip(value, 0, 1), cmap="Blues", vmin=0, vmax=1.25, edgecolors="white", linewidth=1.5)
    for (i, j), v in np.ndenumerate(value):
        error = float(sem[i, j])
        if np.isfinite(v):
            text = number(float(v), 2) + (f" ± {number(error, 2)}" if np.isfinite(error) else "")
            colour = CELL_PAPER if v > 0.75 else CELL_INK
            axes.text(j + 0.5, i + 0.5, text, ha="center", va="center", fontsize=8, color=colour)
    axes.set_xticks(np.arange(len(modalities)) + 0.5, [f"{short(m, 14)}\n(R²)" for m in modalities])
    axes.set_yticks(np.arange(len(groups)) + 0.5, [break_group(g, 20) for g in groups])
    axes.set_ylim(len(groups), 0)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
