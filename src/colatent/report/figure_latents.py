"""Figure: posterior latents of test trials, by condition and in single trials."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from colatent.report.results import SessionResults
from colatent.report.style import (
    CONDITION_COLOURS,
    GREY,
    INK,
    MODEL_COLOURS,
    ReportFigure,
    break_group,
    masked,
    new_figure,
    short,
    spread,
    style,
    to_png,
)

Z95 = 1.959964  # standard normal quantile of 0.975
EXAMPLES = 3
Array = NDArray[np.float64]


class Curve(NamedTuple):
    """A line with a band, each (time, latent)."""

    label: str
    colour: str
    mean: Array
    deviation: Array


def latents_figure(results: SessionResults, model: str) -> ReportFigure | None:
    """Draw all latents of a model: one row a latent, sorted by group."""
    data = results.latents.get(model)
    if data is None:
        return None
    columns = _columns(results, data)
    groups = [str(g) for g in data["group"].values]
    order = sorted(range(len(groups)), key=lambda k: (-len(groups[k].split("+")), groups.index(groups[k])))
    with style():
        figure = new_figure(1.25 * len(order) + 0.9)
        grid = figure.subplots(len(order), len(columns), squeeze=False, sharex=True, sharey="row")
        for row, k in zip(grid, order, strict=True):
            for axes, (_, curves) in zip(row, columns, strict=True):
                _draw_curves(axes, results.time, curves, k)
            _label_row(row[0], k, groups[k], groups)
        for axes, (title, _) in zip(grid[0], columns, strict=True):
            axes.set_title(title)
        for axes in grid[-1]:
            axes.set_xlabel(f"time in {results.trial_word} (s)")
        if not results.continuous:
            _condition_legend(figure, columns[0][1])
        png = to_png(figure)
    caption = _caption(results, model, str(data.attrs.get("given", "")))
    return ReportFigure(f"{results.name}_latents_{model}", png, caption, f"Latents of {model} over time")


def _columns(results: SessionResults, data: xr.Dataset) -> list[tuple[str, list[Curve]]]:
    """Return titles and curves of the figure's columns."""
    reached = results.reached()[..., None]
    mean = masked(data["mean"].values, np.broadcast_to(reached, data["mean"].shape))
    variance = data["variance"].values
    test = results.test_trials()
    if results.continuous:
        chosen = test[spread(len(test), EXAMPLES)]
        start = results.trials["start"].values
        return [
            (
                f"window {t} (at {start[t] - start[0]:.1f} s)",
                [Curve("", MODEL_COLOURS[0], mean[t], np.sqrt(variance[t]))],
            )
            for t in chosen
        ]
    condition = results.condition
    label = np.full(len(mean), "all trials") if condition is None else condition
    shown = shown_conditions(label[test])
    averages = [
        _average(name, colour, mean[test[label[test] == name]], variance[test[label[test] == name]])
        for name, colour in shown.items()
    ]
    names = list(shown)
    singles = []
    for name in [names[i] for i in spread(len(names), EXAMPLES)]:
        trial = test[label[test] == name][0]
        singles.append(Curve(name, shown[name], mean[trial], np.sqrt(variance[trial])))
    if condition is None:
        singles = [
            Curve("", colour, mean[t], np.sqrt(variance[t]))
            for t, colour in zip(test[spread(len(test), EXAMPLES)], CONDITION_COLOURS, strict=False)
        ]
    average = "mean of each condition’s test trials" if condition is not None else "mean of all test trials"
    return [(average, averages), ("single test trials" + _one_each(condition), singles)]


def _one_each(condition: NDArray[np.str_] | None) -> str:
    return "" if condition is None else " (one of a condition)"


def shown_conditions(label: NDArray[np.str_]) -> dict[str, str]:
    """Return condition -> colour for those with the most trials, in the order of their names."""
    names, n = np.unique(label, return_counts=True)
    most = names[np.argsort(-n, kind="stable")][: len(CONDITION_COLOURS)]
    ordered = sorted(map(str, most), key=_natural)
    return dict(zip(ordered, CONDITION_COLOURS, strict=False))


def _natural(name: str) -> tuple[float, str]:
    try:
        return float(name), name
    except ValueError:
        return np.inf, name


def _average(name: str, colour: str, mean: Array, variance: Array) -> Curve:
    """Average over trials; the posteriors of trials are independent, so variances add."""
    present = np.isfinite(mean)
    n = present.sum(axis=0)
    # a mean over fewer than half of the trials jumps whenever one of them ends
    enough = n >= max(len(mean) / 2, 1)
    total = np.where(present, mean, 0.0).sum(axis=0)
    spread_of_mean = np.sqrt(np.where(present, variance, 0.0).sum(axis=0)) / np.maximum(n, 1)
    return Curve(name, colour, masked(total / np.maximum(n, 1), enough), spread_of_mean)


def _draw_curves(axes: Axes, time: Array, curves: list[Curve], k: int) -> None:
    axes.axhline(0, color=GREY, lw=0.5)
    for curve in curves:
        mean, half = curve.mean[:, k], Z95 * curve.deviation[:, k]
        axes.fill_between(time, mean - half, mean + half, color=curve.colour, alpha=0.22, lw=0)
        axes.plot(time, mean, color=curve.colour, label=short(curve.label))
    axes.margins(x=0)


def _label_row(axes: Axes, k: int, group: str, groups: list[str]) -> None:
    kind = "shared" if "+" in group else "private"
    several = len(set(groups)) > 1
    label = f"latent {k + 1}\n{kind}:\n{break_group(group)}" if several else f"latent {k + 1}\n{group}"
    colour = MODEL_COLOURS[list(dict.fromkeys(groups)).index(group) % len(MODEL_COLOURS)] if several else INK
    axes.set_ylabel(label, color=colour, rotation=0, ha="right", va="center", labelpad=8, fontsize=8.5)


def _condition_legend(figure: Figure, curves: list[Curve]) -> None:
    if len(curves) > 1:
        handles = [Line2D([], [], color=c.colour, lw=2, label=short(c.label)) for c in curves]
        figure.legend(handles=handles, loc="outside upper center", ncols=len(curves), title="condition")


def _caption(results: SessionResults, model: str, given: str) -> str:
    return " ".join(_sentences(results, model, given))


def _sentences(results: SessionResults, model: str, given: str) -> Iterator[str]:
    word = results.trial_word
    yield (
        f"Latents of {model}, inferred given {given or 'its modality'}: posterior means with 95 % bands, in "
        "units of the prior’s standard deviation; sign and order have no meaning."
    )
    yield (
        f"All {word}s shown are test {word}s of fold {results.shown_fold} (seed {results.shown_seed}): no "
        f"parameter was fitted to them, inference saw their observations."
    )
    if results.continuous:
        yield "One column for each example window; above it its start, counted from the first window."
        return
    yield ("Bands of averages are the posterior’s uncertainty of the average, not the spread between trials.")
    condition = results.condition
    n = len(np.unique(condition)) if condition is not None else 1
    if n > len(CONDITION_COLOURS):
        yield f"Of {n} conditions, the {len(CONDITION_COLOURS)} with the most test trials are shown."
    if not results.reached().all():
        yield "Trials differ in length: averages stop where fewer than half of the trials remain."
