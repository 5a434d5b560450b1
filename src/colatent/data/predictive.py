"""Predictive distributions of held-out observations.

A mixture over posterior samples of the latents; given a sample, bins and channels are independent.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from colatent.data.likelihoods import LIKELIHOODS, Likelihood

Array = NDArray[np.float64]
COUNT_LIMIT = 10_000


@dataclass(frozen=True)
class Predictive:
    """Mixture of distributions of one family.

    Attributes:
        family: name of the likelihood.
        component_mean: (sample, trial, time, channel), expected value given one latent sample.
        scale: the likelihood's second parameter, broadcastable to ``component_mean``: standard
            deviation (Gaussian), or r with variance mean + mean^2 / r (negative binomial).
    """

    family: str
    component_mean: Array
    scale: Array | None = None

    def __post_init__(self) -> None:
        if self.family not in LIKELIHOODS:
            raise ValueError(f"unknown family {self.family!r}; choose one of {', '.join(LIKELIHOODS)}")
        if self.component_mean.ndim != 4:
            raise ValueError("component_mean must be (sample, trial, time, channel)")
        if self.scale is None and self.likelihood.initial_scale is not None:
            raise ValueError(f"the family {self.family} needs a scale")

    @classmethod
    def of_trials(cls, parts: "list[Predictive]") -> "Predictive":
        """Join the predictions of blocks of trials, which have the same family and scale."""
        first = parts[0]
        return cls(first.family, np.concatenate([one.component_mean for one in parts], axis=1), first.scale)

    @property
    def likelihood(self) -> Likelihood:
        """The likelihood named by ``family``."""
        return LIKELIHOODS[self.family]

    @property
    def mean(self) -> Array:
        """Expected observation, shape (trial, time, channel)."""
        return self.component_mean.mean(axis=0)

    def log_density(self, observation: Array) -> Array:
        """Log predictive density (nats) of each bin and channel, shape (trial, time, channel)."""
        from scipy.special import logsumexp

        log_p = self.likelihood.log_density(observation, self.component_mean, self.scale)
        return logsumexp(log_p, axis=0) - np.log(len(self.component_mean))

    def cdf(self, observation: Array) -> Array:
        """Predictive cumulative distribution function, shape (trial, time, channel)."""
        return self.likelihood.cdf(observation, self.component_mean, self.scale).mean(axis=0)

    def pit(self, observation: Array) -> tuple[Array, Array]:
        """Return the ends of each observation's probability integral transform, (trial, time, channel).

        For continuous observations both ends are the CDF; a count's transform is uniform between the
        CDF just below the count and the CDF at the count (randomised PIT).
        """
        upper = self.cdf(observation)
        if not self.likelihood.discrete:
            return upper, upper
        return np.maximum(upper - np.exp(self.log_density(observation)), 0.0), upper

    def quantile(self, probability: float) -> Array:
        """Quantile of the predictive distribution, shape (trial, time, channel)."""
        discrete = self.likelihood.discrete
        return self._discrete_quantile(probability) if discrete else self._continuous_quantile(probability)

    def _continuous_quantile(self, probability: float) -> Array:
        """Bisect between the smallest and the largest quantile of the components."""
        components = self.likelihood.quantile(probability, self.component_mean, self.scale)
        low, high = components.min(axis=0), components.max(axis=0)
        for _ in range(30):
            middle = (low + high) / 2
            below = self.cdf(middle) < probability
            low, high = np.where(below, middle, low), np.where(below, high, middle)
        return high

    def _discrete_quantile(self, probability: float) -> Array:
        """Count up from zero until the CDF reaches the probability."""
        quantile = np.zeros(self.component_mean.shape[1:])
        below = np.ones(quantile.shape, dtype=bool)
        for _ in range(COUNT_LIMIT):
            below[below] = self._only(below).cdf(quantile[below]).ravel() < probability
            if not below.any():
                break
            quantile[below] += 1
        return quantile

    def _only(self, mask: NDArray[np.bool_]) -> "Predictive":
        """Return the masked bins and channels (trial, time, channel) as the channels of a single bin."""
        mean, scale = self.component_mean, self.scale
        chosen = None if scale is None else np.broadcast_to(scale, mean.shape)[:, None, None, mask]
        return Predictive(self.family, mean[:, None, None, mask], chosen)


def coverage(pit: tuple[Array, Array], level: float) -> Array:
    """Share of each observation that lies in the central predictive interval of probability ``level``.

    0 or 1 for continuous observations. A count contributes the share of its own probability that
    lies inside (see `share_below`), so the expected coverage of a calibrated model equals the
    level even for rare spikes.

    Args:
        pit: the two ends from `Predictive.pit`.
        level: probability of the interval.
    """
    return share_below(*pit, (1 + level) / 2) - share_below(*pit, (1 - level) / 2)


def share_below(lower: Array, upper: Array, probability: float) -> Array:
    """Share of each transform from `Predictive.pit` that lies below a probability.

    This is the expected empirical distribution of the randomised PIT (non-randomised PIT, Czado,
    Gneiting & Held 2009, doi 10.1111/j.1541-0420.2009.01191.x, eq. 2).
    """
    width = upper - lower
    inside = (probability - lower) / np.where(width > 0, width, 1.0)
    return np.where(width > 0, np.clip(inside, 0.0, 1.0), upper < probability)
