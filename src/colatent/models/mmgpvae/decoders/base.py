"""Base class of all decoders."""

import pkgutil

import torch
from torch import Tensor, nn

from colatent.models.mmgpvae.layers import DTYPE
from colatent.models.mmgpvae.likelihoods import ChannelLikelihood
from colatent.models.mmgpvae.options import ModalityOptions
from colatent.models.mmgpvae.posterior import Marginals


class LatentDecoder(nn.Module):
    """Base of decoders, which are built from a modality's options and a random generator of weights.

    Attributes:
        readout: the last layer.
    """

    readout: nn.Linear

    @property
    def linear_weight(self) -> nn.Parameter | None:
        """C (channel, latent), if eta is C z + d plus something, or nothing, else."""
        return None

    @property
    def output_bias(self) -> Tensor:
        """Bias of ``eta`` (channel,)."""
        return self.readout.bias

    @torch.no_grad()
    def start_linear(self, loading: Tensor, offset: Tensor) -> None:
        """Let eta be C z + d for C (channel, latent) and d (channel,)."""
        raise NotImplementedError

    def variance_of_eta(self, variance: Tensor) -> Tensor:
        """Return the variance (channel,) that latents' variances (latent,) add to eta through C, if known."""
        weight = self.linear_weight
        if weight is None:
            return torch.zeros_like(self.output_bias)
        return variance.to(weight.dtype) @ weight.square().T

    def forward(self, latents: Tensor) -> Tensor:
        """Map latents (..., latent) to eta (..., channel)."""
        raise NotImplementedError

    def expected_log_prob(
        self, likelihood: ChannelLikelihood, target: Tensor, latents: Marginals, generator: torch.Generator
    ) -> Tensor:
        """Estimate E[log p(target | z)] per bin and channel from one antithetic pair of samples.

        The log likelihood is a sum over bins, so samples from each bin's marginal suffice; their
        gradients are less noisy than those of joint samples.
        """
        noise = torch.randn(latents.mean.shape, generator=generator, dtype=torch.float64).to(latents.mean)
        deviation = latents.variance.sqrt() * noise
        pair = self(torch.stack([latents.mean + deviation, latents.mean - deviation]))
        return likelihood.log_prob(target, pair).mean(dim=0)


class AddedToLinear(LatentDecoder):
    """eta = C z + d + f(z), where f is another decoder, zero at the start."""

    def __init__(self, nonlinear: LatentDecoder, options: ModalityOptions) -> None:
        super().__init__()
        self.nonlinear = nonlinear
        self.loading = nn.Parameter(torch.zeros(options.n_channels, len(options.latents), dtype=DTYPE))

    @property
    def linear_weight(self) -> nn.Parameter:
        return self.loading

    @property
    def output_bias(self) -> Tensor:
        return self.nonlinear.output_bias

    @torch.no_grad()
    def start_linear(self, loading: Tensor, offset: Tensor) -> None:
        self.loading.copy_(loading)
        self.nonlinear.readout.weight.zero_()
        self.output_bias.copy_(offset)

    def forward(self, latents: Tensor) -> Tensor:
        return self.nonlinear(latents) + latents.to(DTYPE) @ self.loading.T


def make_decoder(options: ModalityOptions, generator: torch.Generator) -> LatentDecoder:
    """Return the decoder named in a modality's options."""
    decoder: LatentDecoder = pkgutil.resolve_name(options.decoder.code)(options, generator)
    if options.from_linear and not options.decoder.is_linear:
        return AddedToLinear(decoder, options)
    return decoder
