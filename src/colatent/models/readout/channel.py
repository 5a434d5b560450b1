"""The read-out of one channel: a bin-by-bin regression of its observations on latents."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from colatent.data.scaling import MIN_DEVIATION

Array = NDArray[np.float64]
# penalty per observation, just enough to keep the weights of nearly silent units finite
RIDGE = 1e-4
# spikes assumed of a unit silent in all training trials
MIN_COUNT = 0.5
# Weight of an existing read-out when it is adapted to other bins, in expected spikes (or observed values)
# at latents of unit variance. Chosen by simulation (8 to 200 trials, 2 and 6 latents, hidden ends of 5 and
# 20 % of the trial): a regression on these bins alone was worse than no adaptation below some 60 trials.
PRIOR_OBSERVATIONS = 64.0
# floor of the expected count in ratios of counts
MIN_RATE = 1e-6


class ChannelReadout(NamedTuple):
    """The read-out of one channel, or of several along leading axes.

    E[count] = min(min(exp(w · z + b), most) · exp(v · [1, z]), most);  E[value] = w · z + b + v · [1, z].

    The exponential can explode outside the range of the fit, so that a single bin would dominate a score:
    expected counts are capped at ``most``, the largest expected count in the bins of the fit.

    With a time course (`colatent.models.readout.time_course`), it is one more entry of z.

    Attributes:
        weight: w (..., latent). intercept: b (...).
        adaptation: v (..., 1 + latent), zero unless adapted to other bins.
        spread: (...), ``most`` for counts; the residual s.d. for values.
    """

    weight: Array
    intercept: Array
    adaptation: Array
    spread: Array


def expected_count(readout: ChannelReadout, latent: Array, course: Array | None = None) -> Array:
    """Return the expected counts (bin, channel) at latents (bin, latent).

    Args:
        course: time course of each channel (bin, channel), if it is not an entry of ``latent`` already.
    """
    rate = np.minimum(np.exp(_product(latent, readout.weight, course) + readout.intercept), readout.spread)
    more = _product(_with_one(latent), readout.adaptation, course)
    return np.minimum(rate * np.exp(more), readout.spread)


def expected_value(readout: ChannelReadout, latent: Array, course: Array | None = None) -> Array:
    """Return the expected values (bin, channel) at latents (bin, latent); see `expected_count`."""
    more = _product(_with_one(latent), readout.adaptation, course)
    return _product(latent, readout.weight, course) + readout.intercept + more


def fit_count(latent: Array, count: Array) -> ChannelReadout:
    """Return the read-out of counts (bin,) from latents (bin, latent), by Poisson regression."""
    from sklearn.linear_model import PoissonRegressor  # slow to import, and only fits need it

    if not count.any():  # a regression would make a later spike impossible
        return _constant(MIN_COUNT / max(len(count), 1), latent)
    if not latent.any():  # inferred from no observations; the solver would fail
        return _constant(float(count.mean()), latent)
    regression = PoissonRegressor(alpha=RIDGE, solver="newton-cholesky").fit(latent, count)
    most = regression.predict(latent).max()
    return _readout(regression.coef_, regression.intercept_, most)


def fit_value(latent: Array, value: Array) -> ChannelReadout:
    """Return the read-out of values (bin,) from latents (bin, latent), by least squares."""
    from sklearn.linear_model import LinearRegression

    if len(value) < 2:
        return _readout(np.zeros(latent.shape[1]), 0.0, 1.0)
    regression = LinearRegression().fit(latent, value)
    degrees = max(len(value) - latent.shape[1] - 1, 1)
    deviation = _deviation(value - regression.predict(latent), degrees, value)
    return _readout(regression.coef_, regression.intercept_, deviation)


def adapt_count(readout: ChannelReadout, latent: Array, count: Array) -> ChannelReadout:
    """Return the read-out adapted to the given bins, with latents (bin, latent) and counts (bin,).

    The prior shrinks v towards 0 (no adaptation): with few bins the read-out hardly changes, with many it
    approaches the Poisson regression on them.
    """
    from sklearn.linear_model import PoissonRegressor

    if not readout.weight.any() or len(count) < 2:
        return readout
    expected = np.maximum(expected_count(readout, latent), MIN_RATE)
    # weighted ratios act as an offset: e · ((y / e) log f - f) = y log f - e f
    regression = PoissonRegressor(
        alpha=PRIOR_OBSERVATIONS / expected.sum(), fit_intercept=False, solver="newton-cholesky"
    )
    regression.fit(_with_one(latent), count / expected, sample_weight=expected)
    return readout._replace(adaptation=regression.coef_)


def adapt_value(readout: ChannelReadout, latent: Array, value: Array) -> ChannelReadout:
    """Return a read-out of values adapted as in `adapt_count`, with the residual s.d. of these bins."""
    from sklearn.linear_model import Ridge

    if len(value) < 2:
        return readout
    regression = Ridge(alpha=PRIOR_OBSERVATIONS, fit_intercept=False)
    regression.fit(_with_one(latent), value - expected_value(readout, latent))
    adapted = readout._replace(adaptation=regression.coef_)
    deviation = _deviation(value - expected_value(adapted, latent), len(value), value)
    return adapted._replace(spread=np.asarray(deviation))


def _product(latent: Array, weight: Array, course: Array | None) -> Array:
    """Return latent @ weight' (bin, channel), the last weight being that of each channel's own course."""
    if course is None:
        return np.asarray(latent @ weight.T)
    return np.asarray(latent @ weight[..., :-1].T + course * weight[..., -1])


def _readout(weight: Array, intercept: float, spread: float) -> ChannelReadout:
    return ChannelReadout(weight, np.asarray(intercept), np.zeros(len(weight) + 1), np.asarray(spread))


def _constant(count: float, latent: Array) -> ChannelReadout:
    """Return a read-out that predicts the same count at all latents."""
    return _readout(np.zeros(latent.shape[1]), float(np.log(count)), count)


def _with_one(latent: Array) -> Array:
    return np.column_stack([np.ones(len(latent)), latent])


def _deviation(error: Array, degrees: int, value: Array) -> float:
    least = MIN_DEVIATION * (float(value.std()) or 1.0)
    return max(float(np.sqrt((error**2).sum() / degrees)), least)
