"""Likelihoods of counts, and their expectations under a Gaussian predictor.

All are log-concave in the predictor eta, so the expected negative curvature is a valid precision.
Tensors broadcast; the last dimension is the channel.
"""

import math
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

_NODES = 16
_MAX_LOG_RATE = 50.0  # only poor trial steps of an optimiser come near it


class Expectation(NamedTuple):
    """Expectations under eta ~ N(mean, variance), elementwise.

    Attributes:
        log_density: E[log p(y | eta)].
        slope: E[d log p / d eta].
        curvature: -E[d^2 log p / d eta^2], not negative.
        dispersion_slope: E[d log p / d log r], zero where there is no dispersion.
    """

    log_density: Tensor
    slope: Tensor
    curvature: Tensor
    dispersion_slope: Tensor


class CountLikelihood(Protocol):
    """A distribution of counts given a predictor eta and a dispersion r per channel."""

    has_dispersion: bool

    def expectation(self, y: Tensor, mean: Tensor, variance: Tensor, log_dispersion: Tensor) -> Expectation:
        """Return the expectations for counts y."""
        ...

    def moments(self, mean: Tensor, variance: Tensor, log_dispersion: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and variance of y under eta ~ N(mean, variance)."""
        ...


class PoissonExp:
    """y ~ Poisson(exp(eta)): every expectation is in closed form."""

    has_dispersion = False

    def expectation(self, y: Tensor, mean: Tensor, variance: Tensor, log_dispersion: Tensor) -> Expectation:
        rate = (mean + variance / 2).clamp_max(_MAX_LOG_RATE).exp()
        log_density = y * mean - rate - torch.lgamma(y + 1)
        return Expectation(log_density, y - rate, rate, torch.zeros_like(rate))

    def moments(self, mean: Tensor, variance: Tensor, log_dispersion: Tensor) -> tuple[Tensor, Tensor]:
        rate = (mean + variance / 2).exp()
        return rate, rate + rate**2 * torch.expm1(variance)


class PoissonSoftplus:
    """y ~ Poisson(log(1 + exp(eta))), by Gauss-Hermite quadrature."""

    has_dispersion = False

    def expectation(self, y: Tensor, mean: Tensor, variance: Tensor, log_dispersion: Tensor) -> Expectation:
        total = [torch.zeros_like(mean) for _ in range(3)]
        for eta, weight in _quadrature(mean, variance):
            rate = torch.nn.functional.softplus(eta).clamp_min(1e-300)
            rise = torch.sigmoid(eta)
            excess = y / rate - 1
            total[0] += weight * (y * rate.log() - rate)
            total[1] += weight * excess * rise
            total[2] += weight * (y * (rise / rate) ** 2 - excess * rise * (1 - rise))
        log_density = total[0] - torch.lgamma(y + 1)
        return Expectation(log_density, total[1], total[2].clamp_min(0.0), torch.zeros_like(mean))

    def moments(self, mean: Tensor, variance: Tensor, log_dispersion: Tensor) -> tuple[Tensor, Tensor]:
        first, second = torch.zeros_like(mean), torch.zeros_like(mean)
        for eta, weight in _quadrature(mean, variance):
            rate = torch.nn.functional.softplus(eta)
            first += weight * rate
            second += weight * rate**2
        return first, first + second - first**2


class NegativeBinomial:
    """y with mean mu = exp(eta) and variance mu + mu^2 / r, by Gauss-Hermite quadrature."""

    has_dispersion = True

    def expectation(self, y: Tensor, mean: Tensor, variance: Tensor, log_dispersion: Tensor) -> Expectation:
        r = log_dispersion.exp()
        total = [torch.zeros_like(mean) for _ in range(4)]
        for eta, weight in _quadrature(mean, variance):
            share = torch.sigmoid(eta - log_dispersion)  # mu / (mu + r)
            log_sum = log_dispersion + torch.nn.functional.softplus(eta - log_dispersion)
            total[0] += weight * (y * eta - (y + r) * log_sum)
            total[1] += weight * (y - (y + r) * share)
            total[2] += weight * (y + r) * share * (1 - share)
            total[3] += weight * (-log_sum - (y + r) / r * (1 - share))
        constant = torch.lgamma(y + r) - torch.lgamma(r) - torch.lgamma(y + 1) + r * log_dispersion
        by_r = torch.digamma(y + r) - torch.digamma(r) + log_dispersion + 1 + total[3]
        return Expectation(total[0] + constant, total[1], total[2], r * by_r)

    def moments(self, mean: Tensor, variance: Tensor, log_dispersion: Tensor) -> tuple[Tensor, Tensor]:
        rate = (mean + variance / 2).exp()
        second = rate**2 * variance.exp()
        return rate, rate + second / log_dispersion.exp() + second - rate**2


def _quadrature(mean: Tensor, variance: Tensor) -> list[tuple[Tensor, float]]:
    """Nodes and weights of an expectation under N(mean, variance)."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(_NODES)
    scale = variance.clamp_min(0.0).sqrt()
    return [(mean + x * scale, w / math.sqrt(2 * math.pi)) for x, w in zip(nodes, weights, strict=True)]


LIKELIHOODS: dict[str, CountLikelihood] = {
    "poisson": PoissonExp(),
    "poisson-softplus": PoissonSoftplus(),
    "negative-binomial": NegativeBinomial(),
}
