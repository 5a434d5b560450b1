"""The read-out of one channel: a regression of its observations on latents, bin by bin."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from colatent.data.scaling import LEAST_DEVIATION

Array = NDArray[np.float64]
# per observation; just enough to keep the weights of near-silent units finite
RIDGE = 1e-4
# spikes that a unit silent in all training trials is taken to have fired in them
LEAST_COUNT = 0.5
# Expected spikes (or observed values), at latents of unit variance, that count for an existing read-out
# where it is adapted to other bins. Simulated: 8 to 200 trials, 2 and 6 latents, futures of 5 and 20 % of
# the trial; a regression on these bins alone was worse than no adaptation below some 60 trials.
PRIOR_OBSERVATIONS = 64.0
# least expected count by which one is divided where a read-out is adapted
LEAST_RATE = 1e-6


class ChannelReadout(NamedTuple):
    """The read-out of one channel, or along leading axes of several.

    E[count] = min(min(exp(w · z + b), most) · exp(v · [1, z]), most);  E[value] = w · z + b + v · [1, z].

    An exponential beyond what it was fitted to explodes, and one bin could decide a score: no more counts
    are expected than the most in the bins of the fit.

    Attributes:
        weight: w (..., latent). intercept: b (...).
        adaptation: v (..., 1 + latent), zero for a read-out of the bins that it was fitted to.
        spread: (...), of counts ``most``, of values their s.d. about the read-out.
    """

    weight: Array
    intercept: Array
    adaptation: Array
    spread: Array


def expected_count(readout: ChannelReadout, latent: Array) -> Array:
    """Return the expected counts (bin, channel) at latents (bin, latent)."""
    rate = np.minimum(np.exp(latent @ readout.weight.T + readout.intercept), readout.spread)
    return np.minimum(rate * np.exp(_with_one(latent) @ readout.adaptation.T), readout.spread)


def expected_value(readout: ChannelReadout, latent: Array) -> Array:
    """Return the expected values (bin, channel) at latents (bin, latent)."""
    return latent @ readout.weight.T + readout.intercept + _with_one(latent) @ readout.adaptation.T


def fit_count(latent: Array, count: Array) -> ChannelReadout:
    """Return the read-out of counts (bin,) from latents (bin, latent), by Poisson regression."""
    from sklearn.linear_model import PoissonRegressor  # takes two seconds, and only fits need it

    if not count.any():  # a regression would make a later spike impossible
        return _constant(LEAST_COUNT / max(len(count), 1), latent)
    if not latent.any():  # of a trial of which nothing is seen; the solver would search in vain
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
    """Return a read-out adapted to the bins of latents (bin, latent), where there are any to learn from.

    v is drawn towards 0 by what counts for the read-out as it is: with few bins it stays so, with many it
    is the Poisson regression on them.
    """
    from sklearn.linear_model import PoissonRegressor

    if not readout.weight.any() or len(count) < 2:
        return readout
    expected = np.maximum(expected_count(readout, latent), LEAST_RATE)
    # weights and ratios make an offset: e · ((y / e) log f - f) = y log f - e f
    regression = PoissonRegressor(
        alpha=PRIOR_OBSERVATIONS / expected.sum(), fit_intercept=False, solver="newton-cholesky"
    )
    regression.fit(_with_one(latent), count / expected, sample_weight=expected)
    return readout._replace(adaptation=regression.coef_)


def adapt_value(readout: ChannelReadout, latent: Array, value: Array) -> ChannelReadout:
    """Return a read-out of values adapted as `adapt_count` does; with the s.d. of these bins."""
    from sklearn.linear_model import Ridge

    if len(value) < 2:
        return readout
    regression = Ridge(alpha=PRIOR_OBSERVATIONS, fit_intercept=False)
    regression.fit(_with_one(latent), value - expected_value(readout, latent))
    adapted = readout._replace(adaptation=regression.coef_)
    deviation = _deviation(value - expected_value(adapted, latent), len(value), value)
    return adapted._replace(spread=np.asarray(deviation))


def _readout(weight: Array, intercept: float, spread: float) -> ChannelReadout:
    return ChannelReadout(weight, np.asarray(intercept), np.zeros(len(weight) + 1), np.asarray(spread))


def _constant(count: float, latent: Array) -> ChannelReadout:
    """Return the read-out of a channel of which the training trials say next to nothing."""
    return _readout(np.zeros(latent.shape[1]), float(np.log(count)), count)


def _with_one(latent: Array) -> Array:
    return np.column_stack([np.ones(len(latent)), latent])


def _deviation(error: Array, degrees: int, value: Array) -> float:
    least = LEAST_DEVIATION * (float(value.std()) or 1.0)
    return max(float(np.sqrt((error**2).sum() / degrees)), least)
