"""Figure: predictions of test trials beside what was observed, models one above the other."""

from textwrap import fill
from typing import NamedTuple

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import NDArray

from colatent.data.metrics import METRICS, main_metric
from colatent.report.figures.base import ReportFigure, finish, new_figure, style
from colatent.report.figures.style import (
    BLUE,
    GREY,
    INK,
    break_group,
    masked,
    short,
    side_by_side,
    spread,
    trial_offset,
    trial_ticks,
    trial_times,
)
from colatent.report.model_results import ModelResults
from colatent.report.session_results import Modality, SessionResults
from colatent.report.text.heldout import HELDOUT, heldout_words
from colatent.report.text.numbers import number
from colatent.report.worst_trials import ranked_trials

Array = NDArray[np.float64]
FEWEST_SPIKES = 20  # in the trials with a stored prediction
LONG = 60  # bins: of longer trials, fewer are shown
# opacity of the bands of the 95 and 50 % predictive intervals
BANDS = {95: 0.16, 50: 0.32}


class ShownChannel(NamedTuple):
    """A channel of the figure: its place, its name, and why it was chosen."""

    place: int
    name: str
    rank: str


def own_reconstruction_figure(model: ModelResults, heldout: str, predicted: str) -> ReportFigure | None:
    """Draw the best, median and worst test trials of one model, see `reconstruction_figure`."""
    return reconstruction_figure(model.session, heldout, predicted, ranked_trials(model, heldout, predicted))


def reconstruction_figure(
    results: SessionResults, heldout: str, predicted: str, ranked: dict[int, str] | None = None
) -> ReportFigure | None:
    """Draw test trials of three channels as all models predict them, or None if none did.

    Args:
        ranked: trials to draw -> why; by default examples spread over conditions.
    """
    models = {
        m: results.reconstructions[m, heldout, predicted]
        for m in results.config.models
        if (m, heldout, predicted) in results.reconstructions
    }
    if not models:
        return None
    modality = results.modalities[predicted]
    reference = results.main_model if results.main_model in models else next(iter(models))
    metric = main_metric(modality.counts)
    values = channel_values(results, reference, models[reference], metric)
    channels = choose_channels(values, models[reference], modality.counts)
    if not channels:
        return None
    trials = choose_trials(results, models[reference])
    if ranked:
        index = models[reference]["trial"].values.tolist()
        trials = [index.index(t) for t in ranked]
    with style():
        title = f"{short(predicted)}: observed and predicted, {heldout_words(heldout, results.words)}"
        figure = new_figure(title, 1.35 * len(models) + 1.1)
        grid = figure.subplots(len(models), len(channels), squeeze=False, sharex=True, sharey="col")
        for row, (model, data) in zip(grid, models.items(), strict=True):
            scores = channel_values(results, model, data, metric)
            for axes, channel in zip(row, channels, strict=True):
                _draw_trials(axes, results, data.isel(trial=trials), channel.place, modality)
                _write_score(axes, metric, scores.get(channel.name, np.nan))
            label = _row_label(model, data, results.words.nothing)
            row[0].set_ylabel(label, rotation=0, ha="right", va="center", labelpad=10)
        width = float(results.attrs["bin_width"])
        trial_ticks(grid[0, 0], results.time, width, len(trials))  # all share them
        for axes, channel in zip(grid[0], channels, strict=True):
            _head_column(axes, results, models[reference], trials, ranked or {}, channel, modality)
        for axes in grid[0]:  # each column shares its axis
            low, high = axes.get_ylim()
            axes.set_ylim(low, high + 0.2 * (high - low))  # room for the score above the traces
        for axes in grid[-1]:
            axes.set_xlabel(f"time in {results.words.trial} (s)")
        figure.legend(handles=_handles(modality, heldout), loc="outside upper center", ncols=5)
    caption = _caption(results, heldout, predicted, reference, channels, len(trials), bool(ranked))
    places = [c.place for c in channels]
    table = pd.concat(
        d.isel(trial=trials, channel=places).to_dataframe().reset_index().assign(model=m)
        for m, d in models.items()
    )
    return finish(f"reconstruction_{heldout}_{predicted}", figure, caption, table)


def channel_values(results: SessionResults, model: str, data: xr.Dataset, metric: str) -> dict[str, float]:
    """Return channel -> score of the very fold, seed and question that the figure shows."""
    s: pd.DataFrame = results.scores
    chosen = s[
        (s["model"] == model)
        & (s["metric"] == metric)
        & (s["heldout"] == data.attrs["heldout"])
        & (s["predicted"] == data.attrs["predicted"])
        & (s["given"] == data.attrs["given"])
        & (s["fold"] == results.shown_fold)
        & (s["seed"] == results.shown_seed)
        & (s["channel"] != "pooled")
    ]
    return dict(zip(chosen["channel"].astype(str), chosen["value"].astype(float), strict=True))


def choose_channels(values: dict[str, float], data: xr.Dataset, counts: bool) -> list[ShownChannel]:
    """Return the best, the median and the worst channel among those scored.

    Units with few spikes are passed over, if enough others are there: the bits/spike of a handful say little.
    """
    names = [str(c) for c in data["channel"].values]
    seen = data["observed"].values
    scored = np.asarray(seen.any(axis=(0, 1)))
    if counts:
        active = np.where(seen, data["observation"].values, 0.0).sum(axis=(0, 1)) >= FEWEST_SPIKES
        scored = active if active.sum() >= 3 else scored
    good = [i for i, n in enumerate(names) if scored[i] and np.isfinite(values.get(n, np.nan))]
    good.sort(key=lambda i: -values[names[i]])
    if len(good) < 3:
        return [ShownChannel(i, names[i], r) for i, r in zip(good, ("better", "worse"), strict=False)]
    picks = {"best": good[0], "median": good[len(good) // 2], "worst": good[-1]}
    return [ShownChannel(i, names[i], rank) for rank, i in picks.items()]


def choose_trials(results: SessionResults, data: xr.Dataset) -> list[int]:
    """Return positions of example test trials: evenly spread over conditions, or else over time."""
    seen = np.flatnonzero(data["observed"].values.any(axis=(1, 2)))
    index = data["trial"].values[seen]
    if results.condition is not None:
        seen = seen[np.argsort(np.asarray(results.condition)[index], kind="stable")]
    wanted = 3 if len(results.time) <= LONG else 2
    return [int(i) for i in seen[spread(len(seen), wanted)]]


def _draw_trials(
    axes: Axes, results: SessionResults, data: xr.Dataset, channel: int, modality: Modality
) -> None:
    """Draw trials side by side along the time axis: one line, with a gap between trials."""
    time, step = results.time, float(results.attrs["bin_width"])
    spikes = modality.counts
    runs = results.reached()[data["trial"].values]
    value = {str(name): v.values[..., channel] for name, v in data.data_vars.items()}
    x = trial_times(time, step, len(runs))

    def line(name: str, keep: NDArray[np.bool_]) -> NDArray[np.float64]:
        return side_by_side(masked(value[name], keep))

    for level, opacity in BANDS.items():
        low, high = (line(f"{side}_{level}", runs) for side in ("low", "high"))
        axes.fill_between(x, low, high, color=BLUE, alpha=opacity, lw=0, step="mid" if spikes else None)
    axes.plot(x, line("mean", runs), color=BLUE, lw=1.4)
    scored, recorded = value["observed"].astype(bool), value["recorded"].astype(bool)
    if data.attrs["heldout"] == "time":
        _draw_observation(axes, x, line("observation", recorded & ~scored), spikes, GREY)
    _draw_observation(axes, x, line("observation", scored), spikes, INK)
    axes.margins(x=0.01)


def _draw_observation(
    axes: Axes, x: NDArray[np.float64], value: NDArray[np.float64], spikes: bool, colour: str
) -> None:
    if spikes:
        axes.plot(x[value > 0], value[value > 0], "o", color=colour, ms=2.2, mew=0)
        axes.plot(x[value == 0], value[value == 0], "|", color=GREY, ms=2.5, mew=0.6)
    else:
        axes.plot(x, value, color=colour, lw=0.9)


def _write_score(axes: Axes, metric: str, value: float) -> None:
    axes.text(
        0.99,
        0.97,
        f"{METRICS[metric].title} {number(value, 2)}",
        transform=axes.transAxes,
        ha="right",
        va="top",
        fontsize=7.5,
    )


def _row_label(model: str, data: xr.Dataset, nothing: str) -> str:
    given = str(data.attrs["given"])
    lines = fill(nothing, 18) if given == "none" else break_group(given)
    between = "\n" if len(lines) > 12 else " "
    return f"{short(model, 18)}\ngiven{between}{lines}"


def _head_column(
    axes: Axes,
    results: SessionResults,
    data: xr.Dataset,
    trials: list[int],
    ranked: dict[int, str],
    channel: ShownChannel,
    modality: Modality,
) -> None:
    unit = "spikes per bin" if modality.counts else modality.unit or "no unit"
    unit = short(unit, 18)
    name = short(channel.name, 32 - len(channel.rank) - len(unit))
    axes.set_title(f"{channel.rank}: {name} ({unit})", pad=12)
    for i, trial in enumerate(data["trial"].values[trials]):
        label = f"{ranked.get(int(trial), '')} {results.words.trial} {int(trial)}".strip()
        at = trial_offset(i, results.time, float(results.attrs["bin_width"]))
        axes.annotate(
            label,
            (at, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(0, 1),
            textcoords="offset points",
            fontsize=7,
            color=GREY,
        )


def _handles(modality: Modality, heldout: str) -> list[Line2D | Patch]:
    spikes = modality.counts
    dots = {"marker": "o", "ls": "", "ms": 3} if spikes else {"lw": 1}
    label = "observed count (tick: 0)" if spikes else "observed"
    seen = [Line2D([], [], color=GREY, label="seen by inference", **dots)] if heldout == "time" else []
    return [
        *seen,
        Line2D([], [], color=INK, label=label, **dots),
        Line2D([], [], color=BLUE, lw=1.6, label="predicted mean"),
        Patch(color=BLUE, alpha=sum(BANDS.values()), lw=0, label="50 % predictive interval"),
        Patch(color=BLUE, alpha=BANDS[95], lw=0, label="95 % predictive interval"),
    ]


def _caption(
    results: SessionResults,
    heldout: str,
    predicted: str,
    reference: str,
    channels: list[ShownChannel],
    n_trials: int,
    ranked: bool,
) -> str:
    words = results.words
    seen = words.fill(HELDOUT[heldout].seen, predicted=predicted)
    chosen = ", ".join(c.rank for c in channels)
    metric = METRICS[main_metric(results.modalities[predicted].counts)].title
    how = " They are the best, median and worst of those saved, by r.m.s. residual." if ranked else ""
    return (
        f"{predicted}, {heldout_words(heldout, words)}: {n_trials} example test {words.trials} of fold "
        f"{results.shown_fold} (seed {results.shown_seed}), side by side.{how} {seen}; no parameter was "
        f"fitted to these {words.trials}. Channels: {chosen} by {metric} of {reference} over all test "
        f"{words.trials} of this fold; the number in a panel is the channel’s {metric} over the same "
        f"{words.trials} (0: no better than its mean)."
    )
