"""Figure: learned time scales, and the latents' sample autocorrelation against their prior's kernel."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter
from numpy.typing import NDArray

from colatent.report.figures.base import ReportFigure, finish, mark, new_figure, readable, style
from colatent.report.figures.style import BLUE, GREY, INK, short
from colatent.report.model_results import Array, ModelResults

REACH = 4  # time scales: lags drawn
MOST_LAGS = 150
SHOWN = 8  # latents whose autocorrelation is drawn
EDGE = 1.1  # factor between the outermost end of an interval and the edge of the axes


def time_scales_figure(model: ModelResults) -> ReportFigure | None:
    """Draw the time scales of all fits, and one panel of autocorrelations per latent."""
    scales = {fit: s["latent"]["time_scale"].values for fit, s in model.summaries.items() if "latent" in s}
    if model.shown not in scales or model.shown not in model.latents:
        return None
    own, interval = scales[model.shown], _interval(model)
    drawn = range(min(len(own), SHOWN))
    columns = 4
    rows = int(np.ceil(len(drawn) / columns))
    width = float(model.session.attrs["bin_width"])
    lags = np.arange(min(len(model.session.time) - 1, MOST_LAGS, int(REACH * own.max() / width) + 1) + 1)
    trials = model.session.words.trials
    with style():
        title = f"Time scales of {model.model} (training), autocorrelation in held-out (test) {trials}"
        figure = new_figure(title, 0.24 * len(own) + 1.0 + 1.75 * rows)
        grid = figure.add_gridspec(rows + 1, columns, height_ratios=[0.24 * len(own) + 0.7, *[1.6] * rows])
        _draw_scales(figure.add_subplot(grid[0, :]), model, scales, interval)
        tables = []
        for k in drawn:
            axes = figure.add_subplot(grid[1 + k // columns, k % columns])
            sample, prior = _sample(model, k, lags), _prior(model, float(own[k]), lags)
            _draw_correlation(axes, model.latent_names[k], width * lags.astype(float), sample, prior)
            tables.append(
                pd.DataFrame(
                    {
                        "latent": model.latent_names[k],
                        "lag_s": lags * width,
                        "sample": sample,
                        "prior": prior,
                        "time_scale_s": own[k],
                        "time_scale_low_s": interval[0, k],
                        "time_scale_high_s": interval[1, k],
                        "time_scale_maximum_s": interval[2, k],
                    }
                )
            )
        handles = [
            Line2D([], [], color=BLUE, label="posterior means, sample"),
            Line2D([], [], color=INK, ls="--", label="kernel of the prior"),
            Line2D([], [], color=GREY, lw=0.6, label="0: white noise"),
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return finish("time_scales", figure, _caption(model, interval), pd.concat(tables))


def _interval(model: ModelResults) -> Array:
    """Ends of the intervals of the fit that is shown, and maxima (s), (3, latent); NaN where it has none."""
    latent = model.summaries[model.shown]["latent"]
    return np.stack([latent[f"time_scale_{part}"].values for part in ("low", "high", "maximum")])


def _draw_scales(
    axes: Axes, model: ModelResults, scales: dict[tuple[int, int], Array], interval: Array
) -> None:
    values = np.array(list(scales.values()))
    for k in range(values.shape[1]):
        axes.plot(values[:, k], np.full(len(values), k), "o", color=BLUE, ms=3.5, alpha=0.5, mew=0)
        axes.plot(scales[model.shown][k], k, "o", color=BLUE, ms=6, mfc="none")
    time, width = model.session.time, float(model.session.attrs["bin_width"])
    for at, name in ((width, "one bin"), (time[-1] - time[0] + width, f"one {model.session.words.trial}")):
        axes.axvline(at, color=GREY, lw=0.8, ls=":")
        axes.annotate(
            name, (at, 0.98), xycoords=("data", "axes fraction"), xytext=(-3, 0), textcoords="offset points",
            fontsize=7, color=GREY, ha="right", va="top", rotation=90,
        )  # fmt: skip
    axes.set_xscale("log")
    _draw_intervals(axes, interval)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_yticks(range(values.shape[1]), [short(n, 34) for n in model.latent_names])
    axes.set_ylim(values.shape[1] - 0.5, -0.5)
    axes.set_xlabel("time scale (s)")
    axes.grid(axis="x", which="both", color=GREY, alpha=0.2, lw=0.5)


def _draw_intervals(axes: Axes, interval: Array) -> None:
    """Draw bars, those without an end up to an arrowhead at the edge of the axes."""
    ends = interval[np.isfinite(interval) & (interval > 0)]
    left, right = axes.get_xlim()
    left, right = min([left, *ends / EDGE]), max([right, *ends * EDGE])
    for k, (low, high, maximum) in enumerate(interval.T):
        if np.isnan(low) or np.isnan(high):
            continue
        axes.plot([max(low, left), min(high, right)], [k, k], color=BLUE, lw=1.5, zorder=1)
        axes.plot(maximum, k, "|", color=BLUE, ms=9, mew=1.5)
        for at, marker, is_open in ((left, "<", low == 0), (right, ">", np.isinf(high))):
            if is_open:
                axes.plot(at, k, marker, color=BLUE, ms=6, mew=0, clip_on=False)
    axes.set_xlim(left, right)


def _sample(model: ModelResults, k: int, lags: NDArray[np.int_]) -> Array:
    """Autocorrelation of the posterior means of one latent in test trials, about the prior's mean 0."""
    test = model.session.test_trials()
    running = model.session.reached()[test]
    z = np.where(running, model.latents[model.shown]["mean"].values[test, :, k], 0.0).astype(float)
    n_bins = z.shape[1]

    def moment(lag: int) -> float:
        pairs = running[:, : n_bins - lag] & running[:, lag:]
        return float((z[:, : n_bins - lag] * z[:, lag:]).sum() / max(pairs.sum(), 1))

    return np.array([moment(lag) for lag in lags]) / max(moment(0), 1e-300)


def _prior(model: ModelResults, time_scale: float, lags: NDArray[np.int_]) -> Array:
    import torch  # takes a second, and most pages have no such figure

    from colatent.models import gp

    kernel = getattr(model.session.config.models[model.model], "kernel", "squared-exponential")
    lag = torch.from_numpy(lags * float(model.session.attrs["bin_width"]))
    return gp.correlation(kernel, lag, torch.tensor(time_scale, dtype=torch.float64)).numpy()


def _draw_correlation(axes: Axes, name: str, lag: Array, sample: Array, prior: Array) -> None:
    axes.axhline(0, color=GREY, lw=0.6)
    mark(axes.plot(lag, sample, color=BLUE), label="sample")
    mark(axes.plot(lag, prior, color=INK, ls="--", lw=1), label="prior")
    axes.set_title(short(name, 30), fontsize=8)
    axes.set_ylim(min(-0.35, float(np.nanmin(sample)) - 0.05), 1.05)
    axes.set_xlabel("lag (s)")
    axes.set_ylabel("correlation")
    axes.margins(x=0)
    readable(axes, "s", "")


def _caption(model: ModelResults, interval: Array) -> str:
    results = model.session
    kernel = getattr(results.config.models[model.model], "kernel", "squared-exponential")
    n_latents = interval.shape[1]
    rest = f" Of {n_latents} latents, the first {SHOWN} are shown below." if n_latents > SHOWN else ""
    return (
        f"Above: time scales of the {kernel} prior, learned from the training {results.words.trials}; one "
        f"dot per fit (fold and seed), ringed: fold {results.shown_fold}, seed {results.shown_seed}. "
        f"{_interval_words(model, interval)} Latents are ordered within each fit, so the dots of a row need "
        "not be the same latent. Below: autocorrelation of the posterior means in the test "
        f"{results.words.trials} of that fold, about the prior’s mean, and the prior’s kernel. Posterior "
        f"means are smoother than the prior where the data say little.{rest}"
    )


def _interval_words(model: ModelResults, interval: Array) -> str:
    if np.isnan(interval).all():
        return (
            "No interval is drawn: none was asked for (intervals: true of a Gaussian gpfa model), or the "
            "likelihood is only bounded from below, and the profile of a bound cannot be trusted; see the "
            "spread over fits instead."
        )
    attrs = model.summaries[model.shown]["latent"]["time_scale_low"].attrs
    penalised = attrs["likelihood"] == "penalised"
    words = (
        f"Bar: the ringed fit’s {attrs['level']:.0%} profile-likelihood interval (Venzon & Moolgavkar 1988), "
        "the values at which the log "
        + ("likelihood minus the penalty on the loadings" if penalised else "marginal likelihood")
        + f" of its training {model.session.words.trials}, with everything else refitted, is less than "
        f"{attrs['drop']:.2f} nats below its maximum; it is valid only if the model is. Stroke: that "
        "maximum, searched for more closely than by the fit, which stops when an iteration gains little; a "
        "ring off the bar marks a fit that stopped early."
    )
    if failed := int(np.isnan(interval).any(axis=0).sum()):
        words += f" No bar: {failed} of {interval.shape[1]} latents, whose search found no end."
    if (interval[0] == 0).any() or np.isinf(interval[1]).any():
        words += (
            " Arrowhead: no end within the time scales that the fit allows, or a latent with negligible "
            "loadings, about whose time scale the data say nothing."
        )
    return words
