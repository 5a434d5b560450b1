"""Figure: training curves of a latent model, one line per fold."""

import math

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes

from colatent.report.figures.base import ReportFigure, finish, mark, new_figure, readable, style
from colatent.report.figures.style import MODEL_COLOURS
from colatent.report.model_results import ModelResults
from colatent.report.session_results import Fit

STEPS = ("epoch", "iteration", "step")
# how the run went, not how well it fits
BOOKKEEPING = ("learning_rate", "skipped_steps", "evaluations", "seconds", "time")
CROSS = "cross_log_prob"
LABELS = {
    "loss": "negative objective\n(nats per bin)",
    "log_likelihood": "log marginal likelihood\n(nats per bin)",
    "elbo": "evidence lower bound\n(nats per bin)",
    "expected_log_likelihood": "expected log likelihood\n(nats per bin)",
    "kl": "KL divergence from the prior\n(nats per bin)",
    CROSS: "cross-modal log density,\nweighted (nats per bin)",
}
BURN_IN = 0.05


def training_figure(results: ModelResults) -> ReportFigure | None:
    """Draw the history of all fits of a model, or return None if none was kept."""
    session, model = results.session, results.model
    fits = [f for f in session.fits if f.model == model and f.history is not None and f.history.data_vars]
    if not fits:
        return None
    assert fits[0].history is not None
    panels = _panels(fits[0].history)
    rows = math.ceil(len(panels) / 3)
    with style():
        width = min(3.5 * len(panels), 10.5) if len(panels) > 1 else 6.0
        title = f"Training of {model}: objective on training {session.words.trials}"
        figure = new_figure(title, 2.4 * rows + 0.3, width)
        grid = figure.subplots(rows, min(len(panels), 3), squeeze=False)
        for axes, columns in zip(grid.flat, panels, strict=False):
            _draw_panel(axes, fits, columns)
        for axes in grid.flat[len(panels) :]:
            axes.set_visible(False)
        handles, labels = grid.flat[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside right upper", title="fold")
    two = any(len(p) > 1 for p in panels)
    changed = any(_changed(f.history) for f in fits if f.history is not None)
    caption = (
        f"Training of {model}, one line for each fold"
        + (" and seed" if len(session.config.heldout.seeds) > 1 else "")
        + f". All fits saw training {session.words.trials} only"
        + ("; solid: loss on the tenth of them held out of the updates; dotted: training loss" if two else "")
        + ". The first twentieth of the steps, and single ones far off, may lie outside the axis"
        + (", as may the objective while it included cross-modal predictions" if changed else "")
        + "."
    )
    tables = [
        f.history.to_dataframe().assign(fold=f.fold, seed=f.seed) for f in fits if f.history is not None
    ]
    return finish("training", figure, caption, pd.concat(tables).reset_index())


def _panels(history: xr.Dataset) -> list[list[str]]:
    """Return groups of columns that share an axis: all losses together, every other one alone."""
    names = [str(n) for n in history.data_vars if str(n) not in (*STEPS, *BOOKKEEPING)]
    losses = [n for n in names if n.endswith("loss")]
    return ([losses] if losses else []) + [[n] for n in names if n not in losses]


def _draw_panel(axes: Axes, fits: list[Fit], columns: list[str]) -> None:
    folds = sorted({f.fold for f in fits})
    colours = [MODEL_COLOURS[i % len(MODEL_COLOURS)] for i in range(len(folds))]
    late: list[np.ndarray] = []
    step = STEPS[1]
    for i, fit in enumerate(fits):
        assert fit.history is not None
        step = next((s for s in STEPS if s in fit.history), step)
        x = fit.history[step].values if step in fit.history else np.arange(fit.history.sizes["step"])
        for column in columns:
            y = fit.history[column].values
            dotted = len(columns) > 1 and column == "loss"
            first = fit.fold not in [f.fold for f in fits[:i]]
            label = str(fit.fold) if first and not dotted else None
            colour = colours[folds.index(fit.fold)]
            lines = axes.plot(
                x, y, color=colour, ls=":" if dotted else "-", lw=0.9 if dotted else 1.3, label=label
            )
            if np.isfinite(y).sum() == 1:
                lines[0].set_marker(".")
            mark(lines, label=f"fold {fit.fold}, {column.replace('_', ' ')}")
            first_shown = _changed(fit.history) if column.endswith("loss") else 0
            late.append(y[max(first_shown, int(BURN_IN * len(y))) :])
    _limit(axes, np.concatenate(late))
    axes.set_xlim(0, max(f.history.sizes["step"] for f in fits if f.history is not None))
    axes.set_xlabel(step)
    name = "loss" if "loss" in columns else columns[0]
    axes.set_ylabel(LABELS.get(name, name.replace("_", " ")))
    readable(axes, step, "")


def _changed(history: xr.Dataset) -> int:
    """Return the step from which the objective had no cross-modal predictions, 0 if it never had any."""
    if CROSS not in history:
        return 0
    without = np.isnan(history[CROSS].values) & np.isfinite(history["elbo"].values)
    return int(without.argmax())


def _limit(axes: Axes, values: np.ndarray) -> None:
    """Set limits that hold all values but single ones far off, as of a step that hides the best channels."""
    finite = values[np.isfinite(values)]
    if len(finite) and np.ptp(finite) > 0:
        low, high = np.percentile(finite, [2, 98])
        low, high = max(finite.min(), 2 * low - high), min(finite.max(), 2 * high - low)
        margin = 0.05 * (high - low)
        axes.set_ylim(low - margin, high + margin)
