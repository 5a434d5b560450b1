"""Figure: trajectories of test trials in the plane (and the space) of a group's latents."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from colatent.report.figures.base import ReportFigure, finish, mark, new_figure, style
from colatent.report.figures.latents import Curve, latent_columns
from colatent.report.figures.style import GREY, INK, short
from colatent.report.model_results import Array, ModelResults

MOST_PLANES = 2
MARKERS = ("*", "D", "P")  # of events


def trajectories_figure(model: ModelResults) -> ReportFigure | None:
    """Draw two latents of each group against each other, and the first three latents in space."""
    results, data = model.session, model.latents.get(model.shown)
    if data is None or len(model.groups) < 2:
        return None
    curves = [c for _, cs in latent_columns(results, data)[: 3 if results.continuous else 1] for c in cs]
    planes = _planes(model.groups)
    space = len(model.groups) > 2
    n = len(planes) + space
    title = f"Trajectories of {model.model}, held-out (test) {results.words.trials}"
    with style():
        figure = new_figure(title, 3.4, width=min(0.6 + 3.3 * n, 10.5))
        for i, pair in enumerate(planes):
            axes = figure.add_subplot(1, n, i + 1)
            _draw(axes, model, curves, pair)
            axes.set_aspect("equal", adjustable="datalim")
            axes.axhline(0, color=GREY, lw=0.5, zorder=0)
            axes.axvline(0, color=GREY, lw=0.5, zorder=0)
        if space:
            axes = figure.add_subplot(1, n, n, projection="3d")
            axes.set_title("the first three latents")
            _draw(axes, model, curves, [0, 1, 2])
            for one in (axes.xaxis, axes.yaxis, axes.zaxis):
                one.set_pane_color((1, 1, 1, 0))
                one.label.set_fontsize(7)
            axes.tick_params(labelsize=6.5, pad=-2)
            axes.set_box_aspect(None, zoom=0.9)
        figure.legend(handles=_handles(model, curves), loc="outside lower center", ncols=6)
    series = {c.series: c.label for c in curves if c.series}
    return finish(
        "trajectories",
        figure,
        _caption(model),
        _numbers(model, curves),
        series if len(series) > 1 else {},
        "condition",
    )


def _planes(groups: list[str]) -> list[list[int]]:
    """Return the first two latents of each group that has two, or the first two of all."""
    of = {g: [k for k, other in enumerate(groups) if other == g] for g in groups}
    pairs = [k[:2] for k in of.values() if len(k) > 1]
    return pairs[:MOST_PLANES] or [[0, 1]]


def _draw(axes: Axes, model: ModelResults, curves: list[Curve], latents: list[int]) -> None:
    for curve in curves:
        path = curve.mean[:, latents]
        path = path[np.isfinite(path).all(axis=1)]
        if not len(path):
            continue
        mark(axes.plot(*path.T, color=curve.colour, lw=1.3), curve.series)
        mark(axes.plot(*path[:1].T, "o", color=curve.colour, ms=5, mfc="none"), curve.series)
        mark(axes.plot(*path[-1:].T, "s", color=curve.colour, ms=4), curve.series)
        for marker, at in zip(MARKERS, _event_bins(model, curve), strict=False):
            if at is not None and at < len(path):
                mark(axes.plot(*path[at : at + 1].T, marker, color=curve.colour, ms=6), curve.series)
    if len(latents) == 2:
        x, y = (f"latent {k + 1}: {short(model.latent_names[k], 24)} (s.d.)" for k in latents)
        axes.set(xlabel=x, ylabel=y)
    else:
        axes.set(**{f"{x}label": f"latent {k + 1} (s.d.)" for x, k in zip("xyz", latents, strict=True)})


def _event_bins(model: ModelResults, curve: Curve) -> list[int | None]:
    """Return the bin of each event: its median time in the curve's test trials."""
    results = model.session
    test = results.test_trials()
    own = test if results.condition is None else test[results.condition[test] == curve.label]
    bins: list[int | None] = []
    for time in model.events().values():
        at = np.nanmedian(time[own]) if np.isfinite(time[own]).any() else np.nan
        bins.append(int(np.abs(results.time - at).argmin()) if np.isfinite(at) else None)
    return bins


def _handles(model: ModelResults, curves: list[Curve]) -> list[Line2D]:
    handles = [Line2D([], [], color=c.colour, lw=2, label=short(c.label, 16)) for c in curves]
    ends = [("o", "start", "none"), ("s", "end", INK)]
    ends += [(m, short(e, 16), INK) for m, e in zip(MARKERS, model.events(), strict=False)]
    return handles + [Line2D([], [], color=INK, marker=m, ls="", ms=5, mfc=f, label=e) for m, e, f in ends]


def _numbers(model: ModelResults, curves: list[Curve]) -> pd.DataFrame:
    tables = []
    for curve in curves:
        mean: Array = curve.mean
        table = pd.DataFrame(mean, columns=model.latent_names)
        table.insert(0, "time_s", model.session.time)
        table.insert(0, "condition", curve.label)
        tables.append(table)
    return pd.concat(tables).dropna()


def _caption(model: ModelResults) -> str:
    results = model.session
    trials = results.words.trials
    what = "example" if results.continuous else "means over the"
    which = "" if results.continuous else " of each condition"
    return (
        f"Posterior means of latents of {model.model} against each other: {what} test {trials}{which} "
        f"of fold {results.shown_fold} (seed {results.shown_seed}), in units of the prior’s standard "
        f"deviation. No parameter was fitted to these {trials}. Grey lines: the prior mean. Events are "
        f"placed at the median of their times in the {trials} shown."
    )
