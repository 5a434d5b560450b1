"""Predictive distributions: what a model says about observations it did not see.

A mixture over posterior samples of the latents, of independent observations per bin and channel.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.special import logsumexp

Array = NDArray[np.float64]
FAMILIES = ("gaussian", "poisson", "negative-binomial", "bernoulli")


@dataclass(frozen=True)
class Predictive:
    """Mixture of ``family`` distributions.

    Attributes:
        family: one of ``FAMILIES``.
        component_mean: (sample, trial, time, channel): expected value given one latent sample.
        scale: what broadcasts with ``component_mean``: standard deviation (gaussian), number of
            failures r with variance mean + mean^2 / r (negative binomial), unused otherwise.
    """

    family: str
    component_mean: Array
    scale: Array | None = None

    def __post_init__(self) -> None:
        if self.family not in FAMILIES:
            raise ValueError(f"unknown family {self.family!r}; choose one of {', '.join(FAMILIES)}")
        if self.component_mean.ndim != 4:
            raise ValueError("component_mean must be (sample, trial, time, channel)")

    @property
    def mean(self) -> Array:
        """Expected observation, shape (trial, time, channel)."""
        return self.component_mean.mean(axis=0)

    def _component(self) -> stats.rv_continuous | stats.rv_discrete:
        if self.family == "gaussian":
            return stats.norm(self.component_mean, self.scale)
        if self.family == "poisson":
            return stats.poisson(self.component_mean)
        if self.family == "bernoulli":
            return stats.bernoulli(np.clip(self.component_mean, 0.0, 1.0))
        assert self.scale is not None
        return stats.nbinom(self.scale, self.scale / (self.scale + self.component_mean))

    def log_density(self, observation: Array) -> Array:
        """Log predictive density (nats) of each bin and channel, shape (trial, time, channel)."""
        component = self._component()
        log_p = (
            component.logpdf(observation) if self.family == "gaussian" else component.logpmf(observation)
        )
        return logsumexp(log_p, axis=0) - np.log(len(self.component_mean))

    def cdf(self, observation: Array) -> Array:
        """Predictive distribution function, shape (trial, time, channel)."""
        return self._component().cdf(observation).mean(axis=0)

    def coverage(self, observation: Array, level: float) -> Array:
        """Share of each observation that lies in the central interval of probability ``level``.

        0 or 1 for continuous observations. A count lies in the interval with the share of its own
        probability that does (non-randomised PIT, Czado, Gneiting & Held 2009), so that a
        calibrated model has an expected coverage of exactly ``level`` even for rare spikes.
        """
        low, high = (1 - level) / 2, (1 + level) / 2
        upper = self.cdf(observation)
        if self.family == "gaussian":
            return ((upper >= low) & (upper <= high)).astype(float)
        lower = self.cdf(observation - 1)
        width = np.maximum(upper - lower, 1e-300)
        overlap = np.clip(np.minimum(upper, high) - np.maximum(lower, low), 0.0, None)
        return np.clip(overlap / width, 0.0, 1.0)

    def quantile(self, probability: float) -> Array:
        """Quantile of the predictive distribution, by bisection, shape (trial, time, channel)."""
        component = self._component()
        low = component.ppf(min(probability, 0.5) / 10).min(axis=0)
        high = component.ppf(1 - min(1 - probability, 0.5) / 10).max(axis=0)
        for _ in range(40):
            middle = (low + high) / 2
            below = component.cdf(middle).mean(axis=0) < probability
            low, high = np.where(below, middle, low), np.where(below, high, middle)
        return high if self.family == "gaussian" else np.ceil(high - 1e-6)
