"""The linear decoder."""

from typing import cast

import torch
from torch import Tensor, nn

from colatent.models.mmgpvae.decoders.base import LatentDecoder
from colatent.models.mmgpvae.layers import DTYPE, dense
from colatent.models.mmgpvae.likelihoods import ChannelLikelihood
from colatent.models.mmgpvae.options import ModalityOptions
from colatent.models.mmgpvae.posterior import Marginals


class LinearDecoder(LatentDecoder):
    """eta = C z + d."""

    def __init__(self, options: ModalityOptions, generator: torch.Generator) -> None:
        super().__init__()
        self.readout = dense(len(options.latents), options.n_channels, generator, gain=0.5)

    @property
    def linear_weight(self) -> nn.Parameter:
        return cast(nn.Parameter, self.readout.weight)

    @torch.no_grad()
    def start_linear(self, loading: Tensor, offset: Tensor) -> None:
        self.readout.weight.copy_(loading)
        self.readout.bias.copy_(offset)

    def forward(self, latents: Tensor) -> Tensor:
        return self.readout(latents.to(DTYPE))

    def expected_log_prob(
        self, likelihood: ChannelLikelihood, target: Tensor, latents: Marginals, generator: torch.Generator
    ) -> Tensor:
        """Return E[log p(target | z)] per bin and channel, without sampling, because eta is Gaussian."""
        return likelihood.expected_log_prob(target, *self.moments(latents))

    def moments(self, latents: Marginals) -> tuple[Tensor, Tensor]:
        """Return the mean and variance of eta, each (trial, time, channel)."""
        return self(latents.mean), latents.variance.to(DTYPE) @ self.readout.weight.square().T
