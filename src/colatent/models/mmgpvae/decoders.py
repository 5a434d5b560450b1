"""Decoders: from latents to the parameter ``eta`` of a modality's likelihood, bin by bin."""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle, silu

from colatent.models.mmgpvae.layers import (
    DTYPE,
    PATCH,
    convolution,
    dense,
    n_patches,
)
from colatent.models.mmgpvae.likelihoods import ChannelLikelihood
from colatent.models.mmgpvae.posterior import Marginals

DECODERS = ("linear", "mlp", "convolutional")


class LinearDecoder(nn.Module):
    """eta = C z + d."""

    def __init__(self, n_latents: int, n_channels: int, generator: torch.Generator) -> None:
        super().__init__()
        self.readout = dense(n_latents, n_channels, generator, gain=0.5)

    @property
    def bias(self) -> nn.Parameter:
        return self.readout.bias

    def forward(self, latents: Tensor) -> Tensor:
        """Map latents (..., latent) to eta (..., channel)."""
        return self.readout(latents.to(DTYPE))

    def expected_log_prob(
        self, likelihood: ChannelLikelihood, target: Tensor, latents: Marginals, generator: torch.Generator
    ) -> Tensor:
        """Return E[log p(target | z)] per bin and channel, without samples: eta is Gaussian."""
        return likelihood.expected_log_prob(target, *self.moments(latents))

    def moments(self, latents: Marginals) -> tuple[Tensor, Tensor]:
        """Return mean and variance of eta, each (trial, time, channel)."""
        return self(latents.mean), latents.variance.to(DTYPE) @ self.readout.weight.square().T


class NonlinearDecoder(nn.Module):
    """Base of the decoders whose expected log-density has to be estimated from samples."""

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


class MLPDecoder(NonlinearDecoder):
    """eta = a network of two hidden layers, bin by bin."""

    def __init__(self, n_latents: int, n_channels: int, hidden: int, generator: torch.Generator) -> None:
        super().__init__()
        self.inner = dense(n_latents, hidden, generator)
        self.middle = dense(hidden, hidden, generator)
        self.readout = dense(hidden, n_channels, generator, gain=0.5)

    @property
    def bias(self) -> nn.Parameter:
        return self.readout.bias

    def forward(self, latents: Tensor) -> Tensor:
        """Map latents (..., latent) to eta (..., channel)."""
        return self.readout(silu(self.middle(silu(self.inner(latents.to(DTYPE))))))


class ConvolutionalDecoder(NonlinearDecoder):
    """eta = an image: a network to the features of its patches, which a convolution turns into pixels."""

    def __init__(
        self, n_latents: int, shape: tuple[int, int], hidden: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.shape = shape
        self.patches = (PATCH**2, *n_patches(shape))
        self.inner = dense(n_latents, hidden, generator)
        self.middle = dense(hidden, hidden, generator)
        self.readout = dense(hidden, math.prod(self.patches), generator)
        self.convolution = convolution(PATCH**2, PATCH**2, generator)
        self.bias = nn.Parameter(torch.zeros(math.prod(shape), dtype=DTYPE))

    def forward(self, latents: Tensor) -> Tensor:
        """Map latents (..., latent) to eta (..., channel), pixels row by row."""
        hidden = silu(self.middle(silu(self.inner(latents.to(DTYPE)))))
        patches = silu(self.readout(hidden)).reshape(-1, *self.patches)
        rows, columns = self.shape
        image = pixel_shuffle(self.convolution(patches), PATCH)[:, 0, :rows, :columns]
        return image.reshape(*latents.shape[:-1], -1) + self.bias


Decoder = LinearDecoder | MLPDecoder | ConvolutionalDecoder


def make_decoder(
    kind: str,
    n_latents: int,
    n_channels: int,
    image_shape: tuple[int, int] | None,
    hidden: int,
    generator: torch.Generator,
) -> Decoder:
    """Return a decoder of one of the `DECODERS`; a convolutional one needs the image's shape."""
    if kind == "convolutional":
        assert image_shape is not None
        return ConvolutionalDecoder(n_latents, image_shape, hidden, generator)
    if kind == "mlp":
        return MLPDecoder(n_latents, n_channels, hidden, generator)
    return LinearDecoder(n_latents, n_channels, generator)
