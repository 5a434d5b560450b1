"""The read-out of one channel: a regression of its observations on latents, bin by bin."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LinearRegression, PoissonRegressor, Ridge

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


class ChannelReadout(Protocol):
    """Predicts a channel.

    Attributes:
        residual_: standard deviation of a continuous channel about its prediction.
    """

    residual_: float

    def predict(self, latent: Array) -> Array:
        """Return the expected observation (bin,) given latents (bin, latent)."""


class Constant:
    """The read-out of a channel of which the training trials say next to nothing."""

    def __init__(self, value: float) -> None:
        self.value, self.residual_ = value, 1.0

    def predict(self, latent: Array) -> Array:
        """Return the same value for every bin."""
        return np.full(len(latent), self.value)


class LogLinear:
    """E[count] = exp(w · latent + b), by Poisson regression; no more than the most in the bins of the fit.

    An exponential beyond what it was fitted to explodes: one bin could decide a score.
    """

    residual_ = np.nan

    def __init__(self, latent: Array, count: Array) -> None:
        self._regression = PoissonRegressor(alpha=RIDGE, solver="newton-cholesky").fit(latent, count)
        self.most = float(self._regression.predict(latent).max())

    def predict(self, latent: Array) -> Array:
        """Return the expected count."""
        return np.minimum(self._regression.predict(latent), self.most)

    def adapted(self, latent: Array, count: Array) -> "AdaptedLogLinear":
        """Return this read-out, adapted to other bins."""
        return AdaptedLogLinear(self, latent, count)


class AdaptedLogLinear:
    """E[count] = rate(latent) · exp(v · latent + a): v and a are drawn towards 0 by what counts for the rate.

    With few bins it stays with the rate as it was, with many it is the Poisson regression on them. It
    predicts no more than the rate ever does.
    """

    residual_ = np.nan

    def __init__(self, rate: LogLinear, latent: Array, count: Array) -> None:
        self._rate = rate
        expected = np.maximum(rate.predict(latent), LEAST_RATE)
        # weights and ratios make an offset: e · ((y / e) log f - f) = y log f - e f
        regression = PoissonRegressor(
            alpha=PRIOR_OBSERVATIONS / expected.sum(), fit_intercept=False, solver="newton-cholesky"
        )
        self._factor = regression.fit(_with_one(latent), count / expected, sample_weight=expected)

    def predict(self, latent: Array) -> Array:
        """Return the expected count."""
        count = self._rate.predict(latent) * self._factor.predict(_with_one(latent))
        return np.minimum(count, self._rate.most)


class Linear:
    """E[value] = w · latent + b, by least squares."""

    def __init__(self, latent: Array, value: Array) -> None:
        self._regression = LinearRegression().fit(latent, value)
        error = value - self.predict(latent)
        degrees = max(len(value) - latent.shape[1] - 1, 1)
        self.residual_ = _deviation(error, degrees, value)

    def predict(self, latent: Array) -> Array:
        """Return the expected value."""
        value: Array = self._regression.predict(latent)
        return value

    def adapted(self, latent: Array, value: Array) -> "AdaptedLinear":
        """Return this read-out, adapted to other bins."""
        return AdaptedLinear(self, latent, value)


class AdaptedLinear:
    """E[value] = mean(latent) + v · latent + a, as in `AdaptedLogLinear`; with the residual of these bins."""

    def __init__(self, mean: Linear, latent: Array, value: Array) -> None:
        self._mean = mean
        regression = Ridge(alpha=PRIOR_OBSERVATIONS, fit_intercept=False)
        self._step = regression.fit(_with_one(latent), value - mean.predict(latent))
        self.residual_ = _deviation(value - self.predict(latent), len(value), value)

    def predict(self, latent: Array) -> Array:
        """Return the expected value."""
        value: Array = self._mean.predict(latent) + self._step.predict(_with_one(latent))
        return value


def count_readout(latent: Array, count: Array) -> LogLinear | Constant:
    """Return the read-out of counts (bin,) from latents (bin, latent)."""
    if not count.any():  # a regression would make a later spike impossible
        return Constant(LEAST_COUNT / max(len(count), 1))
    if not latent.any():  # of a trial of which nothing is seen; the solver would search in vain
        return Constant(float(count.mean()))
    return LogLinear(latent, count)


def value_readout(latent: Array, value: Array) -> Linear | Constant:
    """Return the read-out of values (bin,) from latents (bin, latent)."""
    return Linear(latent, value) if len(value) >= 2 else Constant(0.0)


def adapted(readout: ChannelReadout, latent: Array, observation: Array) -> ChannelReadout:
    """Return a read-out adapted to the bins of latents (bin, latent), where there are any to learn from."""
    if isinstance(readout, LogLinear | Linear) and len(observation) >= 2:
        return readout.adapted(latent, observation)
    return readout


def _with_one(latent: Array) -> Array:
    return np.column_stack([np.ones(len(latent)), latent])


def _deviation(error: Array, degrees: int, value: Array) -> float:
    least = LEAST_DEVIATION * (float(value.std()) or 1.0)
    return max(float(np.sqrt((error**2).sum() / degrees)), least)
