"""Figure: when in a trial held-out predictions go wrong."""

import math

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from colatent.report.figures.base import ReportFigure, finish, mark, new_figure, readable, style
from colatent.report.figures.style import BLUE, GREY, ORANGE, short
from colatent.report.model_results import ModelResults
from colatent.report.text.heldout import HELDOUT

COLUMNS = 3


def residuals_figure(model: ModelResults) -> ReportFigure | None:
    """Draw r.m.s. and mean of the residuals over time in trial, one panel per question."""
    if not model.diagnostics:
        return None
    rows = math.ceil(len(model.diagnostics) / COLUMNS)
    word = model.session.words.trial
    tables = []
    with style():
        figure = new_figure(
            f"Residuals of {model.model} over time, held-out (test) {word}s", 2.1 * rows + 0.5
        )
        grid = figure.subplots(rows, COLUMNS, squeeze=False, sharex=True)
        for axes in grid.flat[len(model.diagnostics) :]:
            axes.set_visible(False)
        asked = sorted(model.diagnostics.items(), key=lambda item: list(HELDOUT).index(item[0][0]))
        for axes, ((heldout, predicted), fits) in zip(grid.flat, asked, strict=False):
            mean = {name: over_fits(list(fits.values()), name) for name in LINES}
            _draw(axes, model, mean)
            given = model.session.words.given(str(next(iter(fits.values())).attrs["given"]))
            axes.set_title(
                f"{short(predicted, 18)}: {HELDOUT[heldout].short}\ngiven {short(given, 34)}", fontsize=8
            )
            table = pd.DataFrame({"time_s": model.session.time, **mean})
            tables.append(table.assign(heldout=heldout, predicted=predicted, given=given))
        for axes in grid[:, 0]:
            axes.set_ylabel("residual (training s.d.)")
        for axes in grid.flat[max(len(asked) - COLUMNS, 0) : len(asked)]:  # the last of each column
            axes.set_xlabel(f"time in {word} (s)")
            axes.tick_params(labelbottom=True)
        handles = [Line2D([], [], color=c, ls=ls, label=label) for c, ls, label in LINES.values()]
        figure.legend(handles=handles, loc="outside lower center", ncols=3)
    caption = (
        f"Observed minus predicted in the test {word}s, over all scored channels, each in units of its s.d. "
        f"in the training {word}s; mean over fits (each {word} is a test {word} of one fold). Baseline: the "
        "r.m.s. about each channel’s training mean. For counts, most of the residual is their own noise."
    )
    return finish("residuals", figure, caption, pd.concat(tables))


LINES = {
    "residual_rms": (BLUE, "-", "r.m.s. residual"),
    "baseline_rms": (GREY, "--", "baseline: training mean of each channel"),
    "residual_mean": (ORANGE, "-", "mean residual (bias)"),
}


def over_fits(fits: list[xr.Dataset], name: str) -> np.ndarray:
    """Return a residual of each bin over fits: its mean, or of r.m.s. values the root mean square."""
    values = np.array([f[name].values for f in fits])
    with np.errstate(invalid="ignore"):
        missing = np.isnan(values)
        n = np.maximum((~missing).sum(axis=0), 1)
        power = 2 if name.endswith("rms") else 1
        mean = np.where(missing, 0.0, values**power).sum(axis=0) / n
    return np.where(missing.all(axis=0), np.nan, mean ** (1 / power) if power == 2 else mean)


def _draw(axes: Axes, model: ModelResults, mean: dict[str, np.ndarray]) -> None:
    axes.axhline(0, color=GREY, lw=0.5)
    for time in model.events().values():
        axes.axvline(float(np.nanmedian(time)), color=GREY, lw=0.7, ls=":")
    for name, (colour, ls, label) in LINES.items():
        mark(axes.plot(model.session.time, mean[name], color=colour, ls=ls), label=label)
    axes.margins(x=0)
    readable(axes, "s", "s.d.")
