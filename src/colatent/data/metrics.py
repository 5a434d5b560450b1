"""Metrics of predictions against observations.

All functions take arrays (trial, time, channel) and a mask ``observed``, and return one value a
channel and one pooled. A channel without a score (see `scorable`; for bits/spike and PSTH R², a silent
unit) has NaN, with its count of observations: never left out in silence. Pooled values are over the channels
that have one, and so is their count; only bits/spike charges what was predicted of silent units, too.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln, xlogy

from colatent.data.scaling import standard_deviation

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


class Score(NamedTuple):
    """A metric of each channel (channel,) and pooled, each with its number of observations."""

    channel: Array
    n_channel: NDArray[np.int_]
    pooled: float
    n_pooled: int


def _score(channel: Array, n: NDArray[np.int_], pooled: float) -> Score:
    return Score(channel, n, pooled, int(n[~np.isnan(channel)].sum()))


def _require_finite(prediction: Array, observed: Mask) -> None:
    """A broken prediction must not count as a channel without a score, which would flatter the rest."""
    if not np.isfinite(prediction[observed]).all():
        raise ValueError("some predictions are not finite where they are scored")


def _divide(numerator: Array, denominator: Array) -> Array:
    """Divide, NaN where the denominator is not positive."""
    good = denominator > 0
    return np.where(good, numerator / np.where(good, denominator, 1.0), np.nan)


def _squares(observation: Array, prediction: Array, observed: Mask) -> tuple[Array, Array]:
    """Return each channel's squared error and squared deviation from its mean, summed; 0 if constant."""
    n = observed.sum(axis=(0, 1))
    mean = np.where(observed, observation, 0.0).sum(axis=(0, 1)) / np.maximum(n, 1)
    error = np.where(observed, (observation - prediction) ** 2, 0.0).sum(axis=(0, 1))
    deviation = np.where(observed, (observation - mean) ** 2, 0.0).sum(axis=(0, 1))
    return error, np.where(np.isnan(standard_deviation(observation, observed)), 0.0, deviation)


def r2(observation: Array, prediction: Array, observed: Mask, scale: Array) -> Score:
    """Coefficient of determination, 1 - SSE / SST about the mean over the evaluated bins.

    Pooled: SSE and SST summed over channels in units of ``scale`` (channel,), each channel's
    standard deviation in the training trials, so that no channel counts more for its unit. A channel
    without one (NaN) has no score.
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
    """Root-mean-square error over ``scale`` (channel,): the s.d. in the training trials, NaN without one."""
    _require_finite(prediction, observed)
    error, deviation = _squares(observation, prediction, observed)
    n = observed.sum(axis=(0, 1))
    mean_square = np.where(deviation > 0, _divide(error, n.astype(float)), np.nan) / scale**2
    good = ~np.isnan(mean_square)
    pooled = np.sqrt((mean_square * n)[good].sum() / n[good].sum()) if good.any() else np.nan
    return _score(np.sqrt(mean_square), n, float(pooled))


def poisson_nll(count: Array, rate: Array) -> Array:
    """Negative log-likelihood (nats) of counts under Poisson rates (per bin)."""
    return rate - xlogy(count, rate) + gammaln(count + 1)


def bits_per_spike(count: Array, rate: Array, observed: Mask) -> Score:
    """Bits per spike as the Neural Latents Benchmark defines them.

    (NLL_null - NLL_model) / (number of spikes * ln 2), the null model being each unit's mean over
    the evaluated bins (Pei et al. 2021, eq. 1). Units that were silent in these bins have no score of
    their own; the pooled one charges the spikes that were predicted of them.
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
    """R2 of the mean over the evaluated trials of each condition, over conditions and time.

    What is counted are bins of these means. A unit silent in training (``scale`` NaN) has no score.
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
    """Mean over the observed bins: of log densities (nats) or of coverages.

    Args:
        scorable: (channel,), False for those without a score.
    """
    if np.isnan(value[observed & scorable]).any():
        raise ValueError("some log densities or coverages are not a number where they are scored")
    n = observed.sum(axis=(0, 1))
    total = np.where(observed & scorable, value, 0.0).sum(axis=(0, 1))
    channel = np.where(scorable, _divide(total, n.astype(float)), np.nan)
    n_pooled = n[scorable].sum()
    pooled = total.sum() / n_pooled if n_pooled else np.nan
    return _score(channel, n, float(pooled))
