"""Likelihoods of a modality's observations given its decoder's output, with a learned scale.

The decoder's output is the predictor ``eta`` (..., channel) of `colatent.data.likelihoods`. Log densities
are in nats per bin and channel; `masked_sum` sums the observed ones.
"""

import math

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from colatent.data.likelihoods import LIKELIHOODS


def masked_sum(log_prob: Tensor, observed: Tensor) -> Tensor:
    """Sum over time and channel where ``observed``, shape (..., trial)."""
    return torch.where(observed, log_prob, 0.0).sum(dim=(-2, -1))


class ChannelLikelihood(nn.Module):
    """A likelihood with, if it has a scale, a learned log scale per channel.

    Args:
        name: name of the likelihood.
        n_channels: channels of the modality.

    Attributes:
        record: record of the likelihood.
        log_scale: (channel,), None for a likelihood without a scale.
    """

    log_scale: nn.Parameter | None

    def __init__(self, name: str, n_channels: int) -> None:
        super().__init__()
        self.record = LIKELIHOODS[name]
        self.log_scale = None
        if self.record.initial_scale is not None:
            start = math.log(self.record.initial_scale)
            self.log_scale = nn.Parameter(torch.full((n_channels,), start, dtype=torch.float64))

    def distribution(self, eta: Tensor) -> Distribution:
        """Return the distribution of the observations given the decoder's output."""
        return self.record.distribution(eta, self.log_scale)

    def scale(self) -> Tensor | None:
        """Return the scale of each channel (channel,), or None."""
        return None if self.log_scale is None else self.record.scale(self.log_scale)

    def log_prob(self, observation: Tensor, eta: Tensor) -> Tensor:
        """Return the log density of each observation, in the shape of ``eta``."""
        return self.record.log_prob(observation, eta, self.log_scale)

    def expected_log_prob(self, observation: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        """Return E[log p(observation | eta)] over eta ~ N(mean, variance)."""
        return self.record.expected_log_prob(observation, mean, variance, self.log_scale)
