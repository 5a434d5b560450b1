"""Standardisation by the training trials."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
# smallest s.d. of a prediction, in units of the training s.d.: keeps the density of a perfect fit finite
MIN_DEVIATION = 1e-6


@dataclass(frozen=True)
class Standardizer:
    """Mean and standard deviation of each channel over its observed training bins.

    A channel that never varies or was never observed gets deviation 1, so that it stays finite.
    """

    mean: Array
    deviation: Array

    @classmethod
    def fit(cls, values: Array, observed: NDArray[np.bool_]) -> Self:
        """Estimate both from the training trials (trial, time, channel)."""
        deviation = standard_deviation(values, observed)
        return cls(_mean(values, observed), np.where(np.isnan(deviation), 1.0, deviation))

    def apply(self, values: Array, observed: NDArray[np.bool_]) -> Array:
        """Return standardised values, zero (the training mean) where nothing was observed."""
        return np.where(observed, (values - self.mean) / self.deviation, 0.0)


def standard_deviation(values: Array, observed: NDArray[np.bool_]) -> Array:
    """Return each channel's s.d. over its observed bins (channel,); NaN if constant or never observed.

    Errors and residuals are expressed in units of the training s.d.; without one, a channel is not scored.
    """
    low, high = (
        f(np.where(observed, values, fill), axis=(0, 1)) for f, fill in ((np.min, np.inf), (np.max, -np.inf))
    )
    n = np.maximum(observed.sum(axis=(0, 1)), 1)
    mean = _mean(values, observed)
    deviation = np.sqrt(np.where(observed, (values - mean) ** 2, 0.0).sum(axis=(0, 1)) / n)
    # use the range: over a million bins, the mean's rounding error exceeds that of the values
    varies = high - low > 1e-12 * np.maximum(np.abs(low), np.abs(high))
    return np.where(varies & (deviation > 0), deviation, np.nan)  # 0: the squares underflowed


def _mean(values: Array, observed: NDArray[np.bool_]) -> Array:
    """Mean over the observed bins (channel,), zero where a channel has none."""
    n = np.maximum(observed.sum(axis=(0, 1)), 1)
    return np.asarray(np.where(observed, values, 0.0).sum(axis=(0, 1)) / n)
