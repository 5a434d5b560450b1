"""Poisson counts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from colatent.data.likelihoods.base import (
    Array,
    CountLikelihood,
    Expectation,
    Likelihood,
    cdf_of_counts,
    quadrature,
)

if TYPE_CHECKING:
    from torch import Tensor
    from torch.distributions import Distribution

_NODES = 16
_MAX_LOG_RATE = 50.0  # reached only by poor trial steps of an optimiser


class Poisson(CountLikelihood):
    """y ~ Poisson(exp(eta)) per bin, with closed-form expectations."""

    name = "poisson"
    title = "Poisson"

    def log_density(self, y: Array, mean: Array, scale: Any) -> Array:
        from scipy.special import gammaln, xlogy

        return xlogy(y, mean) - mean - gammaln(y + 1)

    def cdf(self, y: Array, mean: Array, scale: Any) -> Array:
        from scipy.special import pdtr

        y, mean = np.broadcast_arrays(y, mean)
        return cdf_of_counts(y, np.exp(-mean), lambda some: pdtr(y[some], mean[some]))

    def distribution(self, eta: Tensor, log_scale: Any) -> Distribution:
        from torch.distributions import Poisson

        return Poisson(eta.exp(), validate_args=False)

    def log_prob(self, y: Tensor, eta: Tensor, log_scale: Any) -> Tensor:
        return y * eta - eta.exp() - (y + 1).lgamma()

    def expected_log_prob(self, y: Tensor, mean: Tensor, variance: Tensor, log_scale: Any) -> Tensor:
        """Closed form: y mean - exp(mean + variance / 2) - log y!."""
        return y * mean - (mean + 0.5 * variance).exp() - (y + 1).lgamma()

    def expectation(self, y: Tensor, mean: Tensor, variance: Tensor, log_scale: Tensor) -> Expectation:
        rate = (mean + variance / 2).clamp_max(_MAX_LOG_RATE).exp()
        return Expectation(y * mean - rate, y - rate, rate, rate.new_zeros(rate.shape))

    def moments(self, mean: Tensor, variance: Tensor, log_scale: Tensor) -> tuple[Tensor, Tensor]:
        rate = (mean + variance / 2).exp()
        return rate, rate + rate**2 * variance.expm1()


class SoftplusPoisson(Poisson):
    """y ~ Poisson(log(1 + exp(eta))), with expectations by Gauss-Hermite quadrature."""

    name = "poisson-softplus"
    title = "Poisson with a softplus rate"
    models = frozenset()
    unit = "inverse softplus of the rate"

    # undo Poisson's closed forms, which assume a rate of exp(eta)
    log_prob = Likelihood.log_prob
    expected_log_prob = Likelihood.expected_log_prob
    eta_of_expectation = Likelihood.eta_of_expectation

    def distribution(self, eta: Tensor, log_scale: Any) -> Distribution:
        from torch.distributions import Poisson
        from torch.nn.functional import softplus

        return Poisson(softplus(eta), validate_args=False)

    def initial_eta(self, mean: Tensor) -> Tensor:
        return super().initial_eta(mean.expm1())

    def initial_loading_and_offset(self, loading: Array, mean: Array) -> tuple[Array, Array]:
        offset = np.log(np.expm1(mean))
        return loading * (mean * (1 + np.exp(-offset)))[:, None], offset

    def expectation(self, y: Tensor, mean: Tensor, variance: Tensor, log_scale: Tensor) -> Expectation:
        from torch.nn.functional import softplus

        total = [mean.new_zeros(mean.shape) for _ in range(3)]
        for eta, weight in quadrature(mean, variance, _NODES):
            rate = softplus(eta).clamp_min(1e-300)
            rate_slope = eta.sigmoid()
            excess = y / rate - 1
            total[0] += weight * (y * rate.log() - rate)
            total[1] += weight * excess * rate_slope
            total[2] += weight * (y * (rate_slope / rate) ** 2 - excess * rate_slope * (1 - rate_slope))
        return Expectation(total[0], total[1], total[2].clamp_min(0.0), mean.new_zeros(mean.shape))

    def moments(self, mean: Tensor, variance: Tensor, log_scale: Tensor) -> tuple[Tensor, Tensor]:
        from torch.nn.functional import softplus

        first, second = mean.new_zeros(mean.shape), mean.new_zeros(mean.shape)
        for eta, weight in quadrature(mean, variance, _NODES):
            rate = softplus(eta)
            first += weight * rate
            second += weight * rate**2
        return first, first + second - first**2
