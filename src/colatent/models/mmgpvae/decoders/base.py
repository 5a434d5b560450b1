"""What all decoders have in common."""

import pkgutil

import torch
from torch import Tensor, nn

from colatent.models.mmgpvae.likelihoods import ChannelLikelihood
from colatent.models.mmgpvae.options import ModalityOptions
from colatent.models.mmgpvae.posterior import Marginals


class LatentDecoder(nn.Module):
    """Base of the decoders, which are made from a modality's options and a generator of their weights.

    Attributes:
        readout: the last layer.
    """

    readout: nn.Linear

    @property
    def output_bias(self) -> Tensor:
        """What is added to ``eta``, (channel,)."""
        return self.readout.bias

    def forward(self, latents: Tensor) -> Tensor:
        """Map latents (..., latent) to eta (..., channel)."""
        raise NotImplementedError

    def expected_log_prob(
        self, likelihood: ChannelLikelihood, target: Tensor, latents: Marginals, generator: torch.Generator
    ) -> Tensor:
        """Estimate E[log p(target | z)] per bin and channel from one antithetic pair of samples.

        Bins add up, so each needs samples of its own marginal only, which have less noise in their
        gradients than joint samples.
        """
        noise = torch.randn(latents.mean.shape, generator=generator, dtype=torch.float64).to(latents.mean)
        deviation = latents.variance.sqrt() * noise
        pair = self(torch.stack([latents.mean + deviation, latents.mean - deviation]))
        return likelihood.log_prob(target, pair).mean(dim=0)


def make_decoder(options: ModalityOptions, generator: torch.Generator) -> LatentDecoder:
    """Return the decoder that a modality's options name."""
    decoder: LatentDecoder = pkgutil.resolve_name(options.decoder.code)(options, generator)
    return decoder
