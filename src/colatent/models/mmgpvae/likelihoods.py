"""Observation models: how likely a modality's observations are given its decoder's output.

The decoder's output ``eta`` (..., channel) is the mean (Gaussian), the log mean count per bin
(Poisson, negative binomial) or the log odds (Bernoulli). All log-densities are in nats per bin and
channel; `masked_sum` adds up the observed ones.
"""

import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Distribution, NegativeBinomial, Normal, Poisson

N_QUADRATURE = 12
MIN_SD = 1e-3  # of a standardised channel; without it a constant one ends in an infinite density


def masked_sum(log_prob: Tensor, observed: Tensor) -> Tensor:
    """Sum over time and channel where ``observed``, shape (..., trial)."""
    return torch.where(observed, log_prob, 0.0).sum(dim=(-2, -1))


class Likelihood(nn.Module):
    """Base of the observation models: a distribution given ``eta``, independent over channels."""

    family: str
    is_count = False

    def __init__(self, n_channels: int) -> None:
        super().__init__()
        self.n_channels = n_channels

    def distribution(self, eta: Tensor) -> Distribution:
        """Return the distribution of the observations given the decoder's output."""
        raise NotImplementedError

    def scale(self) -> Tensor | None:
        """Return the second parameter of `Predictive` per channel, where the family has one."""
        return None

    def initial_eta(self, mean: Tensor) -> Tensor:
        """Return the decoder's output at which the expected observation is ``mean``."""
        raise NotImplementedError

    def log_prob(self, observation: Tensor, eta: Tensor) -> Tensor:
        """Log-density of each observation, shape of ``eta``."""
        return self.distribution(eta).log_prob(observation)

    def expected_log_prob(self, observation: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        """E[log p(observation | eta)] over eta ~ N(mean, variance), by Gauss-Hermite quadrature.

        Subclasses override it where the integral has a closed form.
        """
        node, weight = np.polynomial.hermite_e.hermegauss(N_QUADRATURE)
        sd = variance.sqrt()
        terms = (
            float(w) * self.log_prob(observation, mean + float(x) * sd)
            for x, w in zip(node, weight / weight.sum(), strict=True)
        )
        return torch.stack(tuple(terms)).sum(dim=0)


class GaussianLikelihood(Likelihood):
    """y ~ N(eta, sigma_c^2): one noise variance a channel."""

    family = "gaussian"

    def __init__(self, n_channels: int) -> None:
        super().__init__(n_channels)
        self.log_sd = nn.Parameter(torch.zeros(n_channels, dtype=torch.float64))

    def distribution(self, eta: Tensor) -> Distribution:
        return Normal(eta, self.scale(), validate_args=False)

    def scale(self) -> Tensor:
        return self.log_sd.exp().clamp_min(MIN_SD)

    def initial_eta(self, mean: Tensor) -> Tensor:
        return mean

    def log_prob(self, observation: Tensor, eta: Tensor) -> Tensor:
        # in the precision of eta: images have many pixels, and torch's own goes up to the scale's
        sd = self.scale().to(eta.dtype)
        return -0.5 * ((observation - eta) * (1 / sd)).square() - (sd.log() + 0.5 * math.log(2 * math.pi))

    def expected_log_prob(self, observation: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        """Closed form: log N(y; mean, sigma^2) - variance / (2 sigma^2)."""
        return self.log_prob(observation, mean) - 0.5 * variance / self.scale().square()


class PoissonLikelihood(Likelihood):
    """y ~ Poisson(exp(eta)) counts per bin."""

    family = "poisson"
    is_count = True

    def distribution(self, eta: Tensor) -> Distribution:
        return Poisson(eta.exp(), validate_args=False)

    def initial_eta(self, mean: Tensor) -> Tensor:
        return _log_count(mean)

    def log_prob(self, observation: Tensor, eta: Tensor) -> Tensor:
        return observation * eta - eta.exp() - torch.lgamma(observation + 1)

    def expected_log_prob(self, observation: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        """Closed form: y mean - exp(mean + variance / 2) - log y!."""
        return observation * mean - torch.exp(mean + 0.5 * variance) - torch.lgamma(observation + 1)


class NegativeBinomialLikelihood(Likelihood):
    """Counts of mean m = exp(eta) and variance m + m^2 / r_c, one r a channel."""

    family = "negative-binomial"
    is_count = True

    def __init__(self, n_channels: int) -> None:
        super().__init__(n_channels)
        self.log_r = nn.Parameter(torch.full((n_channels,), math.log(10.0), dtype=torch.float64))

    def distribution(self, eta: Tensor) -> Distribution:
        return NegativeBinomial(self.log_r.exp(), logits=eta - self.log_r, validate_args=False)

    def scale(self) -> Tensor:
        return self.log_r.exp()

    def initial_eta(self, mean: Tensor) -> Tensor:
        return _log_count(mean)


class BernoulliLikelihood(Likelihood):
    """y in {0, 1} with log odds eta."""

    family = "bernoulli"

    def distribution(self, eta: Tensor) -> Distribution:
        return Bernoulli(logits=eta, validate_args=False)

    def initial_eta(self, mean: Tensor) -> Tensor:
        return torch.logit(mean, eps=1e-3)


def _log_count(mean: Tensor) -> Tensor:
    # A silent unit starts at a rate that one training set could just have missed.
    return mean.clamp_min(1e-3).log()


LIKELIHOODS: dict[str, type[Likelihood]] = {
    kind.family: kind
    for kind in (GaussianLikelihood, PoissonLikelihood, NegativeBinomialLikelihood, BernoulliLikelihood)
}
