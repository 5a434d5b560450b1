"""Figures: models and baselines fold by fold, and the given x predicted matrix."""

import math

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from colatent.data.metrics import METRICS, main_metric
from colatent.report.figures.base import ReportFigure, finish, new_figure, style
from colatent.report.figures.style import BLUE, CELL_INK, CELL_PAPER, GREY, short
from colatent.report.score_tables import ScoreTable, Summary, score_tables, summarise
from colatent.report.session_results import SessionResults
from colatent.report.text.heldout import HELDOUT
from colatent.report.text.numbers import number

Matrix = dict[tuple[str, str], Summary]


def scores_figure(results: SessionResults) -> ReportFigure | None:
    """Draw the main metric of every row of the session's tables of scores, one panel per table."""
    drawn = [
        b for b in score_tables(results) if any(np.isfinite(_fold(b, i)).any() for i in range(len(b.rows)))
    ]
    if not drawn:
        return None
    columns = min(len(drawn), 2)
    rows = math.ceil(len(drawn) / columns)
    longest = [max(len(b.rows) for b in drawn[i * columns : (i + 1) * columns]) for i in range(rows)]
    with style():
        title = f"Models and baselines in held-out (test) {results.words.trials}"
        figure = new_figure(title, sum(0.24 * n + 0.85 for n in longest))
        grid = figure.subplots(rows, columns, squeeze=False, height_ratios=[n + 1 for n in longest])
        for axes, table in zip(grid.flat, drawn, strict=False):
            _draw_table(axes, table)
        for axes in grid.flat[len(drawn) :]:
            axes.set_visible(False)
    caption = (
        "Models (blue) and baselines (grey) on the same splits: small dots are folds, the large dot with its "
        f"bar is mean ± s.e.m. over folds. All scores are of test {results.words.trials}; the title of each "
        "panel names what else was held out, the label of each row what inference was given. Means left of "
        "an axis are written at its edge."
    )
    data = pd.DataFrame(
        {"heldout": b.heldout, "predicted": b.predicted, "metric": b.metric, "model": row.model,
         "given": row.given, "fold": fold, "value": value}
        for b in drawn for i, row in enumerate(b.rows) for fold, value in enumerate(_fold(b, i))
    )  # fmt: skip
    return finish("scores", figure, caption, data)


def _fold(table: ScoreTable, row: int) -> np.ndarray:
    summary = table.rows[row].metrics.get(table.metric)
    return summary.fold if summary else np.array([np.nan])


def _draw_table(axes: Axes, table: ScoreTable) -> None:
    labels = []
    means = []
    for y, row in enumerate(table.rows):
        labels.append(short(row.model if row.given == "none" else f"{row.model} | {row.given}", 38))
        summary = row.metrics.get(table.metric)
        if summary is None or not np.isfinite(summary.mean):
            continue
        means.append(summary.mean)
        colour = GREY if row.baseline else BLUE
        axes.plot(summary.fold, np.full(len(summary.fold), y), "o", color=colour, ms=3, alpha=0.45, mew=0)
        sem = summary.sem if np.isfinite(summary.sem) else 0.0
        axes.errorbar(summary.mean, y, xerr=sem, fmt="o", color=colour, ms=5.5, capsize=2.5)
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    _limit_axis(axes, table, max(means))
    axes.axvline(0, color=GREY, lw=0.6, zorder=0)
    axes.set_title(f"{table.predicted}: {HELDOUT[table.heldout].short}", loc="left")
    axes.set_xlabel(table.metric_name)


def _limit_axis(axes: Axes, table: ScoreTable, top: float) -> None:
    """Keep one failed baseline from squeezing the others; means outside are written at the edge."""
    low, high = axes.get_xlim()
    low = max(low, min(0.0, top) - max(abs(top), 0.1))
    axes.set_xlim(low, high)
    axes.set_autoscale_on(False)
    for y, row in enumerate(table.rows):
        mean = row.metrics[table.metric].mean if table.metric in row.metrics else np.nan
        if mean < low:
            axes.text(low, y, f" ◂ {number(mean, 2)}", color=GREY, fontsize=8, va="center", ha="left")


def matrix_of(results: SessionResults, model: str) -> Matrix:
    """Return (given, predicted) -> pooled main metric over test trials, of one model."""
    scores = results.scores
    own = scores[
        (scores["model"] == model)
        & (scores["channel"] == "pooled")
        & scores["heldout"].isin(["trials", "modality"])
    ]
    matrix = {}
    for modality in results.modalities.values():
        cells = own[(own["predicted"] == modality.name) & (own["metric"] == main_metric(modality.counts))]
        for given, cell in cells.groupby("given"):
            by_fold = cell.groupby("fold")["value"].mean().to_numpy(dtype=float)
            matrix[str(given), modality.name] = summarise(by_fold)
    return matrix


def matrix_figure(results: SessionResults) -> ReportFigure | None:
    """Draw given x predicted for all models that know several modalities."""
    if len(results.modalities) < 2:
        return None
    matrices = {m: matrix_of(results, m) for m in results.config.models}
    reference = next((c for c in matrices.values() if c and all(given == "none" for given, _ in c)), {})
    # models of one modality have a single cell, which the tables show
    matrices = {m: c | reference for m, c in matrices.items() if len(c) > 1 and c is not reference}
    if not matrices:
        return None
    names = list(results.modalities)
    given = sorted(
        {g for c in matrices.values() for g, _ in c},
        key=lambda g: (g == "none", g.count("+"), [names.index(x) for x in g.split("+") if x in names]),
    )
    columns = min(len(matrices), 3)
    rows = math.ceil(len(matrices) / columns)
    top = {m: max((c[k].mean for c in matrices.values() for k in c if k[1] == m), default=1.0) for m in names}
    with style():
        width = min(10.5, 1.6 + columns * max(1.0 * len(names) + 0.3, 2.4))
        title = f"Given × predicted, held-out (test) {results.words.trials}"
        figure = new_figure(title, rows * (0.36 * len(given) + 1.0), width)
        grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
        for axes, (model, cells) in zip(grid.flat, matrices.items(), strict=False):
            _draw_matrix(axes, results, model, cells, given, top)
        for axes in grid.flat[len(matrices) :]:
            axes.set_visible(False)
        for row in grid:
            row[0].set_ylabel("given to inference")
    caption = (
        f"Given × predicted: pooled score over test {results.words.trials}, mean over folds (R² for "
        "continuous modalities, bits/spike for spikes). Framed cells are reconstructions (the predicted "
        "modality was itself given); all others are cross-predictions from other modalities alone. "
        + (f"Last row: the baseline that is given {results.words.nothing}. " if reference else "")
        + "Grey: this model cannot be asked. Colour: the score as a share of the column’s best over all "
        "models, white at 0 (chance: no better than the mean) and below."
    )
    data = pd.DataFrame(
        {"model": model, "given": g, "predicted": predicted, "mean": summary.mean, "sem": summary.sem}
        for model, cells in matrices.items() for (g, predicted), summary in cells.items()
    )  # fmt: skip
    return finish("matrix", figure, caption, data)


def _draw_matrix(
    axes: Axes,
    results: SessionResults,
    model: str,
    cells: Matrix,
    given: list[str],
    top: dict[str, float],
) -> None:
    names = list(results.modalities)
    share = np.full((len(given), len(names)), np.nan)
    for (g, predicted), summary in cells.items():
        share[given.index(g), names.index(predicted)] = summary.mean / max(top[predicted], 1e-9)
    axes.set_facecolor("#ECECEC")
    axes.imshow(np.clip(share, 0, 1), cmap="Blues", vmin=0, vmax=1.25, aspect="auto")
    for (g, predicted), summary in cells.items():
        y, x = given.index(g), names.index(predicted)
        dark = share[y, x] > 0.75
        colour = CELL_PAPER if dark else CELL_INK
        axes.text(x, y, number(summary.mean, 2), ha="center", va="center", fontsize=8.5, color=colour)
        if predicted in g.split("+"):
            axes.add_patch(Rectangle((x - 0.46, y - 0.41), 0.92, 0.82, fill=False, ec=CELL_INK, lw=1.0))
    mean = "training mean" if results.continuous else "condition mean"
    units = {m.name: METRICS[main_metric(m.counts)].title for m in results.modalities.values()}
    axes.set_xticks(range(len(names)), [f"{short(n, 14)}\n({units[n]})" for n in names])
    axes.set_yticks(range(len(given)), [g if g != "none" else mean for g in given])
    if "none" in given:
        axes.axhline(len(given) - 1.5, color="white", lw=4)
    axes.set_xlabel("predicted")
    axes.set_title(short(model))
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
