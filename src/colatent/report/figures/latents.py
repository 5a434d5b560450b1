"""Figure: posterior latents of test trials, by condition and in single trials."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import FigureBase
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from colatent.report.figures.base import ReportFigure, finish, mark, new_figure, readable, style
from colatent.report.figures.style import (
    CONDITION_COLOURS,
    GREY,
    INK,
    MODEL_COLOURS,
    break_group,
    masked,
    short,
    spread,
)
from colatent.report.model_results import ModelResults
from colatent.report.session_results import SessionResults

EXAMPLES = 3
SINGLE = 5  # trials of each condition that are drawn one by one
Array = NDArray[np.float64]


class Curve(NamedTuple):
    """A line with a band (none: a thin line), each (time, latent); ``series`` is toggled on the page."""

    label: str
    colour: str
    mean: Array
    deviation: Array | None
    series: str = ""


def latents_figure(model: ModelResults) -> ReportFigure | None:
    """Draw all latents of a model in test trials: one row per latent, sorted by group."""
    results, data = model.session, model.latents.get(model.shown)
    if data is None:
        return None
    columns = latent_columns(results, data)
    groups = model.groups
    order = sorted(range(len(groups)), key=lambda k: (-len(groups[k].split("+")), groups.index(groups[k])))
    words = results.words
    with style():
        title = f"Latents of {model.model}, held-out (test) {words.trials}"
        figure = new_figure(title, 1.25 * len(order) + 0.9)
        grid = figure.subplots(len(order), len(columns), squeeze=False, sharex=True, sharey="row")
        for row, k in zip(grid, order, strict=True):
            for axes, (_, curves) in zip(row, columns, strict=True):
                _draw_curves(axes, results.time, curves, k)
            for time in model.events().values():
                for axes in row:
                    axes.axvline(float(np.nanmedian(time)), color=GREY, lw=0.7, ls="--")
            for axes in row:
                readable(axes, "s", "s.d.")
            _label_row(row[0], k, groups[k], groups)
        for axes, (title, _) in zip(grid[0], columns, strict=True):
            axes.set_title(title)
        for axes in grid[-1]:
            axes.set_xlabel(f"time in {words.trial} (s)")
        if not results.continuous:
            _condition_legend(figure, columns[0][1])
    series = {c.series: c.label for c in columns[0][1] if c.series}
    numbers = pd.concat(_numbers(title, c, results.time, model) for title, cs in columns for c in cs)
    caption = _caption(model, str(data.attrs.get("given", "")))
    return finish("latents", figure, caption, numbers, series if len(series) > 1 else {}, "condition")


def _numbers(panel: str, curve: Curve, time: Array, model: ModelResults) -> pd.DataFrame:
    shape = curve.mean.shape
    deviation = np.full(shape, np.nan) if curve.deviation is None else curve.deviation
    return pd.DataFrame(
        {
            "panel": panel,
            "condition": curve.label,
            "time_s": np.repeat(time, shape[1]),
            "latent": np.tile(model.latent_names, len(time)),
            "mean": curve.mean.ravel(),
            "sd": deviation.ravel(),
        }
    ).dropna(subset=["mean"])


def latent_columns(results: SessionResults, data: xr.Dataset) -> list[tuple[str, list[Curve]]]:
    """Return titles and curves of the figure's columns."""
    reached = results.reached()[..., None]
    mean = masked(data["mean"].values, np.broadcast_to(reached, data["mean"].shape))
    deviation = np.sqrt(data["variance"].values)
    test = results.test_trials()
    if results.continuous:
        start = results.trials["start"].values
        return [
            (
                f"window {t} (at {start[t] - start[0]:.1f} s)",
                [Curve(f"window {t}", MODEL_COLOURS[0], mean[t], deviation[t])],
            )
            for t in test[spread(len(test), EXAMPLES)]
        ]
    condition = results.condition
    label = np.full(len(mean), "all trials") if condition is None else condition
    shown = shown_conditions(label[test])
    averages, singles, examples = [], [], []
    for i, (name, colour) in enumerate(shown.items()):
        own = test[label[test] == name]
        key = f"condition{i}"
        averages.append(_average(name, colour, mean[own], deviation[own] ** 2)._replace(series=key))
        singles += [Curve(name, colour, mean[t], None, key) for t in own[spread(len(own), SINGLE)]]
        examples.append(Curve(name, colour, mean[own[0]], deviation[own[0]], key))
    kept = [examples[i] for i in spread(len(examples), EXAMPLES)]
    average = "mean of each condition" if condition is not None else "mean of all trials"
    return [
        (f"{average} (test)", averages),
        ("single trials (test)", singles),
        ("one trial, with its band", kept),
    ]


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
        mean = curve.mean[:, k]
        if curve.deviation is None:
            mark(axes.plot(time, mean, color=curve.colour, lw=0.7, alpha=0.7), curve.series)
            continue
        half = 2 * curve.deviation[:, k]
        band = axes.fill_between(time, mean - half, mean + half, color=curve.colour, alpha=0.22, lw=0)
        mark(band, curve.series)
        line = axes.plot(time, mean, color=curve.colour, label=short(curve.label))
        mark(line, curve.series, short(curve.label))
    axes.margins(x=0)


def _label_row(axes: Axes, k: int, group: str, groups: list[str]) -> None:
    kind = "shared" if "+" in group else "private"
    several = len(set(groups)) > 1
    label = f"latent {k + 1}\n{kind}:\n{break_group(group)}" if several else f"latent {k + 1}\n{group}"
    colour = MODEL_COLOURS[list(dict.fromkeys(groups)).index(group) % len(MODEL_COLOURS)] if several else INK
    axes.set_ylabel(label, color=colour, rotation=0, ha="right", va="center", labelpad=8, fontsize=8.5)


def _condition_legend(figure: FigureBase, curves: list[Curve]) -> None:
    if len(curves) > 1:
        handles = [Line2D([], [], color=c.colour, lw=2, label=short(c.label)) for c in curves]
        figure.legend(handles=handles, loc="outside upper center", ncols=len(curves), title="condition")


def _caption(model: ModelResults, given: str) -> str:
    return " ".join(_sentences(model, given))


def _sentences(model: ModelResults, given: str) -> Iterator[str]:
    results = model.session
    trials = results.words.trials
    yield (
        f"Latents of {model.model}, inferred from {given or 'its modality'}: posterior means ± 2 s.d., in "
        "units of the prior’s standard deviation; sign and order have no meaning. Grey line: the prior mean."
    )
    yield (
        f"All {trials} shown are test {trials} of fold {results.shown_fold} (seed {results.shown_seed}): no "
        "parameter was fitted to them, but inference saw their observations."
    )
    if results.continuous:
        yield "Each column is an example window, headed by its start relative to the first window."
        return
    yield "Bands of averages are the posterior’s uncertainty of the average, not the spread between trials."
    if events := model.events():
        yield f"Dashed lines: median time of {', '.join(events)}."
    condition = results.condition
    n = len(np.unique(condition)) if condition is not None else 1
    if n > len(CONDITION_COLOURS):
        yield f"The {len(CONDITION_COLOURS)} of {n} conditions with the most test trials are shown."
    if not results.reached().all():
        yield "Trials differ in length: averages stop where fewer than half of the trials remain."
