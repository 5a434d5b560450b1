"""Figure: the true latents of a simulation, and how well models recover them in test trials."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from colatent.report.figures.base import ReportFigure, finish, new_figure, style
from colatent.report.figures.style import (
    BLUE,
    GREY,
    INK,
    MODEL_COLOURS,
    masked,
    short,
    side_by_side,
    spread,
    trial_ticks,
    trial_times,
)
from colatent.report.session_results import SessionResults

Array = NDArray[np.float64]
TRACES = 3


def recovery_figure(results: SessionResults) -> ReportFigure | None:
    """Draw R2 of each true latent for all models, and example traces of the main model."""
    table, truth = results.recovery, results.truth
    if table.empty or truth is None:
        return None
    latents = list(dict.fromkeys(zip(table["latent"], table["group"], strict=True)))
    traces = _aligned(results) if results.main_model in results.latents else None
    with style():
        title = f"Recovery of the simulation’s true latents in held-out (test) {results.words.trials}"
        figure = new_figure(title, 0.75 * len(latents) + 1.2)
        grid = figure.subplots(
            len(latents),
            2 if traces else 1,
            squeeze=False,
            sharex="col",
            width_ratios=[1, 2] if traces else [1],
        )
        models = list(dict.fromkeys(table["model"]))
        for k, (row, (latent, group)) in enumerate(zip(grid, latents, strict=True)):
            own = table[(table["latent"] == latent) & (table["group"] == group)]
            values = {m: own.loc[own["model"] == m, "r2"].to_numpy(dtype=float) for m in models}
            _draw_values(row[0], values)
            label = str(latent) if str(group) in str(latent) else f"{latent}\n{group}"
            row[0].set_ylabel(label, rotation=0, ha="right", va="center", labelpad=8)
            if traces is not None:
                _draw_trace(row[1], results, *traces, k)
        low = float(np.nanmin(table["r2"]))
        grid[-1][0].set_xlim(min(max(low - 0.05, -0.5), 0.8), 1.01)
        grid[-1][0].set_xlabel(f"R² (held-out {results.words.trials})")
        if traces is not None:
            grid[-1][1].set_xlabel(f"time in {results.words.trial} (s)")
            grid[0][1].set_title(f"test {results.words.trials} side by side (units of the simulation)")
        figure.legend(handles=_handles(results, models, bool(traces)), loc="outside upper center", ncols=4)
    return finish("recovery", figure, _caption(results), table)


def _caption(results: SessionResults) -> str:
    trials = results.words.trials
    return (
        f"Recovery of the simulation’s true latents. Left: R² of each true latent in test {trials}; small "
        "dots are folds and seeds, large dots their mean. The affine map from the inferred latents of the "
        f"same group (of all groups, for a model without it) was fitted on training {trials} only. Right: "
        f"true latents (black) and aligned posterior means of {results.main_model} (blue) in test {trials} "
        f"of fold {results.shown_fold} (seed {results.shown_seed}), in units of the simulation."
    )


def _draw_values(axes: Axes, values: dict[str, Array]) -> None:
    for y, (value, colour) in enumerate(zip(values.values(), MODEL_COLOURS * 3, strict=False)):
        if len(value):
            axes.plot(value, np.full(len(value), y), "o", color=colour, ms=3, alpha=0.45, mew=0)
            axes.plot(np.nanmean(value), y, "o", color=colour, ms=6)
    axes.set_ylim(len(values) - 0.5, -0.5)
    axes.set_yticks([])
    axes.grid(axis="x", color=GREY, alpha=0.25, lw=0.6)
    axes.set_axisbelow(True)


def _aligned(results: SessionResults) -> tuple[Array, Array] | None:
    """Return the truth and the aligned posterior means, each (trial, time, latent), NaN where unobserved."""
    assert results.truth is not None
    data = results.latents[results.main_model]
    truth, observed = results.truth["value"].values, results.truth["observed"].values.astype(bool)
    if data["mean"].shape[:2] != truth.shape[:2]:
        return None
    inferred = data["mean"].values
    groups = [frozenset(str(g).split("+")) for g in data["group"].values]
    training = (results.role[results.shown_fold] == 0)[:, None]
    aligned = np.full(truth.shape, np.nan)
    for k, group in enumerate(_truth_groups(results)):
        own = np.array([g == frozenset(group.split("+")) for g in groups])
        own = own if own.any() else np.ones_like(own)
        design = np.concatenate([inferred[..., own], np.ones((*inferred.shape[:2], 1))], axis=-1)
        fit = training & observed[..., k]
        weight, *_ = np.linalg.lstsq(design[fit], truth[fit][:, k], rcond=None)
        aligned[..., k] = design @ weight
    return masked(truth, observed), masked(aligned, observed)


def _truth_groups(results: SessionResults) -> list[str]:
    assert results.truth is not None
    name = "group" if "group" in results.truth.coords else "latent"
    return [str(g) for g in results.truth[name].values]


def _draw_trace(axes: Axes, results: SessionResults, truth: Array, aligned: Array, k: int) -> None:
    test = results.test_trials()
    time = results.time
    width = float(results.attrs["bin_width"])
    chosen = test[spread(len(test), TRACES)]
    x = trial_times(time, width, len(chosen))
    axes.plot(x, side_by_side(truth[chosen, :, k]), color=INK, lw=1.0)
    axes.plot(x, side_by_side(aligned[chosen, :, k]), color=BLUE, lw=1.4, alpha=0.85)
    trial_ticks(axes, time, width, len(chosen))
    axes.tick_params(labelsize=7)


def _handles(results: SessionResults, models: list[str], traces: bool) -> list[Line2D]:
    handles = [
        Line2D([], [], color=c, marker="o", ls="", ms=5, label=short(m))
        for m, c in zip(models, MODEL_COLOURS * 3, strict=False)
    ]
    if traces:
        handles += [
            Line2D([], [], color=INK, label="true latent"),
            Line2D([], [], color=BLUE, label=f"{short(results.main_model)}, aligned"),
        ]
    return handles
