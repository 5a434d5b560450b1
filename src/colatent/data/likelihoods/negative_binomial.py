"""Negative-binomial counts, which are overdispersed relative to Poisson counts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from colatent.data.likelihoods.base import Array, CountLikelihood, Expectation, cdf_of_counts, quadrature

if TYPE_CHECKING:
    from torch import Tensor
    from torch.distributions import Distribution

_NODES = 16


class NegativeBinomial(CountLikelihood):
    """Counts with mean mu = exp(eta) and variance mu + mu^2 / r; the scale is r."""

    name = "negative-binomial"
    title = "negative binomial"
    initial_scale = 10.0

    def log_density(self, y: Array, mean: Array, scale: Any) -> Array:
        from scipy.special import gammaln, xlogy

        log_coefficient = gammaln(y + scale) - gammaln(scale) - gammaln(y + 1)
        return log_coefficient + xlogy(y, mean) - y * np.log(scale + mean) - scale * np.log1p(mean / scale)

    def cdf(self, y: Array, mean: Array, scale: Any) -> Array:
        from scipy.special import betainc

        y, mean, scale = np.broadcast_arrays(y, mean, scale)

        def elsewhere(some: NDArray[np.bool_]) -> Array:
            r = scale[some]
            return betainc(r, y[some] + 1, r / (r + mean[some]))

        return cdf_of_counts(y, np.exp(-scale * np.log1p(mean / scale)), elsewhere)

    def distribution(self, eta: Tensor, log_scale: Any) -> Distribution:
        from torch.distributions import NegativeBinomial

        return NegativeBinomial(log_scale.exp(), logits=eta - log_scale, validate_args=False)

    def expectation(self, y: Tensor, mean: Tensor, variance: Tensor, log_scale: Tensor) -> Expectation:
        """Compute the expectations by Gauss-Hermite quadrature."""
        from torch.nn.functional import softplus

        r = log_scale.exp()
        total = [mean.new_zeros(mean.shape) for _ in range(4)]
        for eta, weight in quadrature(mean, variance, _NODES):
            share = (eta - log_scale).sigmoid()  # mu / (mu + r)
            log_sum = log_scale + softplus(eta - log_scale)
            total[0] += weight * (y * eta - (y + r) * log_sum)
            total[1] += weight * (y - (y + r) * share)
            total[2] += weight * (y + r) * share * (1 - share)
            total[3] += weight * (-log_sum - (y + r) / r * (1 - share))
        constant = (y + r).lgamma() - r.lgamma() + r * log_scale
        by_r = (y + r).digamma() - r.digamma() + log_scale + 1 + total[3]
        return Expectation(total[0] + constant, total[1], total[2], r * by_r)

    def moments(self, mean: Tensor, variance: Tensor, log_scale: Tensor) -> tuple[Tensor, Tensor]:
        rate = (mean + variance / 2).exp()
        second = rate**2 * variance.exp()
        return rate, rate + second / log_scale.exp() + second - rate**2
