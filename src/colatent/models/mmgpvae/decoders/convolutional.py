"""The decoder of images."""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle, silu

from colatent.models.mmgpvae.decoders.base import LatentDecoder
from colatent.models.mmgpvae.layers import DTYPE, PATCH, convolution, dense, n_patches
from colatent.models.mmgpvae.options import ModalityOptions


class ConvolutionalDecoder(LatentDecoder):
    """eta is an image: a network computes features of its patches, which a convolution maps to pixels."""

    def __init__(self, options: ModalityOptions, generator: torch.Generator) -> None:
        super().__init__()
        assert options.image_shape is not None
        self.shape = options.image_shape
        self.patches = (PATCH**2, *n_patches(self.shape))
        self.inner = dense(len(options.latents), options.hidden, generator)
        self.middle = dense(options.hidden, options.hidden, generator)
        self.readout = dense(options.hidden, math.prod(self.patches), generator)
        self.convolution = convolution(PATCH**2, PATCH**2, generator)
        self.bias = nn.Parameter(torch.zeros(math.prod(self.shape), dtype=DTYPE))

    @property
    def output_bias(self) -> Tensor:
        return self.bias

    def forward(self, latents: Tensor) -> Tensor:
        """Map latents (..., latent) to eta (..., channel), with pixels in row-major order."""
        hidden = silu(self.middle(silu(self.inner(latents.to(DTYPE)))))
        patches = silu(self.readout(hidden)).reshape(-1, *self.patches)
        rows, columns = self.shape
        image = pixel_shuffle(self.convolution(patches), PATCH)[:, 0, :rows, :columns]
        return image.reshape(*latents.shape[:-1], -1) + self.bias
