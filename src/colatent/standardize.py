"""Standardising by training trials."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Standardizer:
    """Mean and standard deviation of each channel over its observed training bins.

    A channel that never varies (or was never observed) has the deviation 1, so that it stays
    finite; it carries no information either way.
    """

    mean: Array
    deviation: Array

    @classmethod
    def fit(cls, values: Array, observed: NDArray[np.bool_]) -> Self:
        """Take (trial, time, channel) arrays of the training trials."""
        n = observed.sum(axis=(0, 1))
        safe = np.maximum(n, 1)
        mean = np.where(observed, values, 0.0).sum(axis=(0, 1)) / safe
        variance = np.where(observed, (values - mean) ** 2, 0.0).sum(axis=(0, 1)) / safe
        deviation = np.sqrt(variance)
        return cls(mean, np.where(deviation > 1e-12 * np.maximum(np.abs(mean), 1e-300), deviation, 1.0))

    def apply(self, values: Array, observed: NDArray[np.bool_]) -> Array:
        """Return standardised values, zero (the training mean) where nothing was observed."""
        return np.where(observed, (values - self.mean) / self.deviation, 0.0)


def training_scale(values: Array, observed: NDArray[np.bool_]) -> Array:
    """Return each channel's s.d. in the training trials; NaN, so that it is not pooled, if it has none."""
    low, high = (
        f(np.where(observed, values, fill), axis=(0, 1)) for f, fill in ((np.min, np.inf), (np.max, -np.inf))
    )
    return np.where(high > low, Standardizer.fit(values, observed).deviation, np.nan)
