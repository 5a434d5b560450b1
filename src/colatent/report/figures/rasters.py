"""Figure: rasters of test trials above the rates that a model predicted for them."""

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import to_rgba

from colatent.data.metrics import main_metric
from colatent.report.figures.base import ReportFigure, finish, new_figure, style
from colatent.report.figures.reconstruction import (
    FEWEST_SPIKES,
    ShownChannel,
    channel_values,
    choose_channels,
)
from colatent.report.figures.style import INK, short
from colatent.report.model_results import Array, ModelResults
from colatent.report.text.heldout import heldout_words
from colatent.report.text.numbers import number


def rasters_figure(model: ModelResults, heldout: str, predicted: str) -> ReportFigure | None:
    """Draw the best, median and worst unit: spikes of each test trial, and its predicted rate."""
    results = model.session
    data = results.reconstructions.get((model.model, heldout, predicted))
    if data is None or not results.modalities[predicted].counts:
        return None
    values = channel_values(results, model.model, data, main_metric(counts=True))
    channels = choose_channels(values, data, counts=True)
    if not channels:
        return None
    index = data["trial"].values
    label = np.full(len(index), "") if results.condition is None else results.condition[index]
    order = np.argsort(label, kind="stable")
    data, label = data.isel(trial=order), label[order]
    width = float(results.attrs["bin_width"])
    word = results.words.trial
    with style():
        title = f"{short(predicted)}: spikes and predicted rates, {heldout_words(heldout, results.words)}"
        figure = new_figure(title, 4.2)
        grid = figure.subplots(2, len(channels), squeeze=False, sharex=True, sharey=True)
        for (above, below), channel in zip(grid.T, channels, strict=True):
            _draw_raster(above, results.time, data["observation"].values[..., channel.place])
            rate = data["mean"].values[..., channel.place] / width
            figure.colorbar(_draw_rate(below, results.time, rate), ax=below, label="rate (Hz)", shrink=0.9)
            score = number(values.get(channel.name, np.nan), 2)
            above.set_title(f"{channel.rank}: {short(channel.name, 18)} ({score} bits/spike)")
            below.set_xlabel(f"time in {word} (s)")
        for axes, what in zip(grid[:, 0], ("observed", "predicted"), strict=True):
            axes.set_ylabel(f"{what}\n{word}, by condition" if label[0] else f"{what}\n{word}")
            axes.set_yticks(np.arange(len(label)), [short(str(t), 10) for t in label], fontsize=6.5)
    given = results.words.given(str(data.attrs["given"]))
    caption = (
        f"Above: spike counts of example test {word}s of fold {results.shown_fold} (seed "
        f"{results.shown_seed}), one row each, darker where a bin contains more than one spike. Below: the "
        f"rates that {model.model} predicted for the same {word}s, given {given}; no parameter "
        f"was fitted to them. Units: best, median and worst by bits/spike over all test {word}s of the fold, "
        f"of those with {FEWEST_SPIKES} spikes or more in these, if three are; 0 bits/spike is no better "
        "than the unit’s mean rate."
    )
    return finish(f"rasters_{heldout}_{predicted}", figure, caption, _numbers(data, label, channels))


def _numbers(data: xr.Dataset, label: np.ndarray, channels: list[ShownChannel]) -> pd.DataFrame:
    own = data[["observation", "mean"]].isel(channel=[c.place for c in channels])
    table = own.to_dataframe().reset_index()
    return table.assign(condition=table["trial"].map(dict(zip(data["trial"].values, label, strict=True))))


def _draw_raster(axes: Axes, time: Array, count: Array) -> None:
    trial, bin_ = np.nonzero(count > 0)
    colours = np.tile(to_rgba(INK), (len(trial), 1))
    colours[:, 3] = np.clip(0.45 + 0.25 * count[trial, bin_], 0, 1)
    axes.scatter(time[bin_], trial, marker="|", s=22, c=colours, linewidths=0.9)
    axes.margins(x=0)


def _draw_rate(axes: Axes, time: Array, rate: Array) -> QuadMesh:
    edge = np.concatenate([time - (time[1] - time[0]) / 2, [time[-1] + (time[1] - time[0]) / 2]])
    rows = np.arange(len(rate) + 1) - 0.5
    mesh = axes.pcolormesh(edge, rows, rate, cmap="viridis", vmin=0, rasterized=True)
    axes.set_ylim(len(rate) - 0.5, -0.5)
    return mesh
