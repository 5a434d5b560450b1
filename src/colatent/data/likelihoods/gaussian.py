"""Gaussian observations."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from colatent.data.likelihoods.base import Array, Expectation, SiteLikelihood

if TYPE_CHECKING:
    from torch import Tensor
    from torch.distributions import Distribution

MIN_SD = 1e-3  # of a standardised channel; the density of a constant channel would be infinite


class Gaussian(SiteLikelihood):
    """y ~ N(eta, sigma^2); the scale is the standard deviation sigma."""

    name = "gaussian"
    title = "Gaussian"
    describes = "values"
    models = frozenset({"gpfa", "mm-gpvae"})
    unit = "training s.d."
    discrete = False
    initial_scale = 1.0

    def log_density(self, y: Array, mean: Array, scale: Any) -> Array:
        return -0.5 * ((y - mean) / scale) ** 2 - np.log(scale) - 0.5 * np.log(2 * np.pi)

    def cdf(self, y: Array, mean: Array, scale: Any) -> Array:
        from scipy.special import ndtr

        return ndtr((y - mean) / scale)

    def quantile(self, probability: float, mean: Array, scale: Any) -> Array:
        from scipy.special import ndtri

        return mean + scale * ndtri(probability)

    def distribution(self, eta: Tensor, log_scale: Any) -> Distribution:
        from torch.distributions import Normal

        return Normal(eta, self.scale(log_scale), validate_args=False)

    def initial_eta(self, mean: Tensor) -> Tensor:
        return mean

    def scale(self, log_scale: Tensor) -> Tensor:
        return log_scale.exp().clamp_min(MIN_SD)

    def log_prob(self, y: Tensor, eta: Tensor, log_scale: Any) -> Tensor:
        # in eta's dtype: images have many pixels, and torch's Normal would promote to the scale's dtype
        sd = self.scale(log_scale).to(eta.dtype)
        return -0.5 * ((y - eta) * (1 / sd)).square() - (sd.log() + 0.5 * math.log(2 * math.pi))

    def expected_log_prob(self, y: Tensor, mean: Tensor, variance: Tensor, log_scale: Any) -> Tensor:
        """Closed form: log N(y; mean, sigma^2) - variance / (2 sigma^2)."""
        return self.log_prob(y, mean, log_scale) - 0.5 * variance / self.scale(log_scale).square()

    def expectation(self, y: Tensor, mean: Tensor, variance: Tensor, log_scale: Tensor) -> Expectation:
        precision = (-2 * log_scale).exp() + 0 * mean
        slope = (y - mean) * precision
        square = (y - mean) * slope + variance * precision
        log_density = -0.5 * (square + math.log(2 * math.pi)) - log_scale
        return Expectation(log_density, slope, precision, square - 1)

    def moments(self, mean: Tensor, variance: Tensor, log_scale: Tensor) -> tuple[Tensor, Tensor]:
        return mean, variance + (2 * log_scale).exp()


class GaussianOfRoots(Gaussian):
    """Gaussian likelihood of y, the square root of a count, whose variance is nearly constant."""

    name = "gaussian-sqrt"
    title = "Gaussian of square-rooted counts"
    describes = "counts"
    models = frozenset({"gpfa"})
    unit = "√(spikes per bin)"
