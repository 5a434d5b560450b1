"""Metrics of predictions against observations, with one record for each in `METRICS`.

To add a metric, write its function and its `METRICS` entry: it is then computed, tabulated and explained.

All functions take arrays (trial, time, channel) and a mask ``observed``, and return one value per
channel and one pooled value. A channel without a score (see `scoring.scorable`; for bits/spike and PSTH R²,
a silent unit) is reported as NaN with its number of observations rather than omitted. Pooled values and
counts cover the channels with a score; only bits/spike also charges spikes predicted for silent units.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from colatent.data.predictive import coverage
from colatent.data.scaling import standard_deviation

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


class Score(NamedTuple):
    """A metric per channel (channel,) and pooled, each with its number of observations."""

    channel: Array
    n_channel: NDArray[np.int_]
    pooled: float
    n_pooled: int


def _score(channel: Array, n: NDArray[np.int_], pooled: float) -> Score:
    return Score(channel, n, pooled, int(n[~np.isnan(channel)].sum()))


def _require_finite(prediction: Array, observed: Mask) -> None:
    """Reject broken predictions: dropping their channels would flatter the rest."""
    if not np.isfinite(prediction[observed]).all():
        raise ValueError("some predictions are not finite where they are scored")


def _divide(numerator: Array, denominator: Array) -> Array:
    """Divide; NaN where the denominator is not positive."""
    good = denominator > 0
    return np.where(good, numerator / np.where(good, denominator, 1.0), np.nan)


def _squares(observation: Array, prediction: Array, observed: Mask) -> tuple[Array, Array]:
    """Return each channel's summed squared error and summed squared deviation (0 if constant)."""
    n = observed.sum(axis=(0, 1))
    mean = np.where(observed, observation, 0.0).sum(axis=(0, 1)) / np.maximum(n, 1)
    error = np.where(observed, (observation - prediction) ** 2, 0.0).sum(axis=(0, 1))
    deviation = np.where(observed, (observation - mean) ** 2, 0.0).sum(axis=(0, 1))
    return error, np.where(np.isnan(standard_deviation(observation, observed)), 0.0, deviation)


def r2(observation: Array, prediction: Array, observed: Mask, scale: Array) -> Score:
    """Coefficient of determination, 1 - SSE / SST about the mean over the evaluated bins.

    For the pooled value, SSE and SST are summed over channels in units of ``scale`` (channel,), each
    channel's standard deviation in the training trials, so that channels with large units do not dominate.
    A channel whose ``scale`` is NaN has no score.
    """
    _require_finite(prediction, observed)
    error, deviation = _squares(observation, prediction, observed)
    channel = np.where(np.isfinite(scale), 1 - _divide(error, deviation), np.nan)
    good = ~np.isnan(channel)
    pooled = 1 - (error[good] / scale[good] ** 2).sum() / (deviation[good] / scale[good] ** 2).sum() if (
        good.any()
    ) else np.nan  # fmt: skip
    return _score(channel, observed.sum(axis=(0, 1)), float(pooled))


def nrmse(observation: Array, prediction: Array, observed: Mask, scale: Array) -> Score:
    """Root-mean-square error divided by ``scale`` (channel,), the training s.d. (NaN if undefined)."""
    _require_finite(prediction, observed)
    error, deviation = _squares(observation, prediction, observed)
    n = observed.sum(axis=(0, 1))
    mean_square = np.where(deviation > 0, _divide(error, n.astype(float)), np.nan) / scale**2
    good = ~np.isnan(mean_square)
    pooled = np.sqrt((mean_square * n)[good].sum() / n[good].sum()) if good.any() else np.nan
    return _score(np.sqrt(mean_square), n, float(pooled))


def poisson_nll(count: Array, rate: Array) -> Array:
    """Negative log-likelihood (nats) of counts under Poisson rates (per bin)."""
    from scipy.special import gammaln, xlogy

    return rate - xlogy(count, rate) + gammaln(count + 1)


def bits_per_spike(count: Array, rate: Array, observed: Mask) -> Score:
    """Bits per spike as defined by the Neural Latents Benchmark.

    (NLL_null - NLL_model) / (number of spikes * ln 2), where the null model is each unit's mean over
    the evaluated bins (Pei et al. 2021, eq. 1). Units silent in these bins have no score of their own,
    but the pooled score charges the spikes predicted for them.
    """
    _require_finite(rate, observed)
    if (rate[observed] < 0).any():
        raise ValueError("some predicted rates are negative")
    n = observed.sum(axis=(0, 1))
    spikes = np.where(observed, count, 0.0).sum(axis=(0, 1))
    null = np.broadcast_to(spikes / np.maximum(n, 1), count.shape)
    gain = np.where(observed, poisson_nll(count, null) - poisson_nll(count, rate), 0.0).sum(axis=(0, 1))
    channel = _divide(gain, spikes) / np.log(2)
    pooled = gain.sum() / spikes.sum() / np.log(2) if spikes.sum() else np.nan
    return Score(channel, n, float(pooled), int(n.sum()))


def psth_r2(
    observation: Array, prediction: Array, observed: Mask, condition: NDArray[np.str_], scale: Array
) -> Score:
    """R2, over conditions and time, of the mean over the evaluated trials of each condition.

    The counts ``n`` are bins of these means. A unit silent in training (``scale`` NaN) has no score.
    """
    means = []
    for label in np.unique(condition):
        seen = observed[condition == label]
        n = seen.sum(axis=0)
        pair = [
            np.where(seen, a[condition == label], 0.0).sum(axis=0) / np.maximum(n, 1)
            for a in (observation, prediction)
        ]
        means.append((*pair, n > 0))
    observation_mean, prediction_mean, seen_mean = (np.stack(a) for a in zip(*means, strict=True))
    return r2(observation_mean, prediction_mean, seen_mean, scale)


def mean_over_observed(value: Array, observed: Mask, scorable: Mask) -> Score:
    """Mean of log densities (nats) or coverages over the observed bins.

    Args:
        value: (trial, time, channel).
        observed: (trial, time, channel).
        scorable: (channel,), False for channels without a score.
    """
    if np.isnan(value[observed & scorable]).any():
        raise ValueError("some log densities or coverages are not a number where they are scored")
    n = observed.sum(axis=(0, 1))
    total = np.where(observed & scorable, value, 0.0).sum(axis=(0, 1))
    channel = np.where(scorable, _divide(total, n.astype(float)), np.nan)
    n_pooled = n[scorable].sum()
    pooled = total.sum() / n_pooled if n_pooled else np.nan
    return _score(channel, n, float(pooled))


@dataclass(frozen=True)
class Outcome:
    """A prediction and its outcome; arrays are (trial, time, channel).

    Attributes:
        observation: recorded values.
        mean: expected observation.
        scored: True where the prediction is scored.
        scale: (channel,), each channel's s.d. in the training trials, NaN if undefined.
        scorable: (channel,), False for channels without a score.
        log_density: log predictive density, nats.
        pit: both ends of the probability integral transform.
        condition: (trial,), if trials have conditions.
    """

    observation: Array
    mean: Array
    scored: Mask
    scale: Array
    scorable: Mask
    log_density: Array
    pit: tuple[Array, Array]
    condition: NDArray[np.str_] | None = None


@dataclass(frozen=True)
class Metric:
    """The record of a metric.

    Attributes:
        title: name in reports.
        text: definition in a report's methods.
        score: function that computes the metric.
        suits: modalities for which the metric is computed.
        more_is_better: None if the metric has a target level; models are then not compared by it.
        is_main: whether the metric leads the tables of its modalities.
        needs_conditions: whether the metric requires trials with conditions.
        column: column heading in tables, if not the title; metrics with the same heading share a column.
    """

    title: str
    text: str
    score: Callable[[Outcome], Score]
    suits: Literal["counts", "continuous", "all"] = "all"
    more_is_better: bool | None = True
    is_main: bool = False
    needs_conditions: bool = False
    column: str = ""

    def suits_modality(self, counts: bool) -> bool:
        """Whether the metric applies to counts (or else to continuous values)."""
        return self.suits in ("all", "counts" if counts else "continuous")


def _bits_per_spike(outcome: Outcome) -> Score:
    return bits_per_spike(outcome.observation, outcome.mean, outcome.scored)


def _psth_r2(outcome: Outcome) -> Score:
    assert outcome.condition is not None
    return psth_r2(outcome.observation, outcome.mean, outcome.scored, outcome.condition, outcome.scale)


def _r2(outcome: Outcome) -> Score:
    return r2(outcome.observation, outcome.mean, outcome.scored, outcome.scale)


def _nrmse(outcome: Outcome) -> Score:
    return nrmse(outcome.observation, outcome.mean, outcome.scored, outcome.scale)


def _log_density(outcome: Outcome) -> Score:
    return mean_over_observed(outcome.log_density, outcome.scored, outcome.scorable)


def _coverage_50(outcome: Outcome) -> Score:
    return mean_over_observed(coverage(outcome.pit, 0.5), outcome.scored, outcome.scorable)


def _coverage_95(outcome: Outcome) -> Score:
    return mean_over_observed(coverage(outcome.pit, 0.95), outcome.scored, outcome.scorable)


COVERAGE = "coverage of\n50 / 95 %"
METRICS = {
    "bits_per_spike": Metric(
        "bits/spike",
        "(NLL of the null − NLL of the model) / (number of spikes · ln 2), both Poisson, summed over the "
        "scored bins; the null is each unit’s mean over these bins, which favours it slightly (Pei et al. "
        "2021, Neural Latents Benchmark). 0: no better than the mean. Units silent in these bins have no "
        "score of their own; the pooled score charges the spikes predicted of them.",
        _bits_per_spike,
        suits="counts",
        is_main=True,
    ),
    "psth_r2": Metric(
        "PSTH R²",
        "R² of the predicted mean over the test trials of each condition, over conditions and time. Units "
        "silent in the training or test trials have no score.",
        _psth_r2,
        suits="counts",
        needs_conditions=True,
    ),
    "r2": Metric(
        "R²",
        "1 − SSE/SST about the mean over the scored bins. Pooled: SSE and SST summed over channels in units "
        "of each channel’s s.d. in the training trials.",
        _r2,
        suits="continuous",
        is_main=True,
    ),
    "nrmse": Metric(
        "NRMSE",
        "root-mean-square error divided by the channel’s s.d. in the training trials.",
        _nrmse,
        suits="continuous",
        more_is_better=False,
    ),
    "log_density": Metric(
        "log density (nats/observation)",
        "mean log predictive density, nats per scored bin and channel, in the modality’s own unit: "
        "comparable only between models of the same modality.",
        _log_density,
        column="log density\n(nats/obs.)",
    ),
    "coverage_50": Metric(
        "50 % coverage",
        "share of observations inside the central 50 % predictive interval; 0.5 if calibrated. A count "
        "contributes the share of its probability that lies inside (non-randomised PIT, Czado et al. 2009).",
        _coverage_50,
        more_is_better=None,
        column=COVERAGE,
    ),
    "coverage_95": Metric(
        "95 % coverage",
        "the same for the 95 % interval; 0.95 if calibrated.",
        _coverage_95,
        more_is_better=None,
        column=COVERAGE,
    ),
}


def computed_metrics(counts: bool, conditions: bool) -> dict[str, Metric]:
    """Return the metrics for counts or other values, in trials with or without conditions."""
    return {
        name: metric
        for name, metric in METRICS.items()
        if metric.suits_modality(counts) and (conditions or not metric.needs_conditions)
    }


def main_metric(counts: bool) -> str:
    """Return the name of the main metric for counts or for other values."""
    return next(name for name, m in METRICS.items() if m.is_main and m.suits_modality(counts))
