"""The multi-layer perceptron decoder."""

import torch
from torch import Tensor
from torch.nn.functional import silu

from colatent.models.mmgpvae.decoders.base import LatentDecoder
from colatent.models.mmgpvae.layers import DTYPE, dense
from colatent.models.mmgpvae.options import ModalityOptions


class MLPDecoder(LatentDecoder):
    """eta is the output of a network with two hidden layers, bin by bin."""

    def __init__(self, options: ModalityOptions, generator: torch.Generator) -> None:
        super().__init__()
        self.inner = dense(len(options.latents), options.hidden, generator)
        self.middle = dense(options.hidden, options.hidden, generator)
        self.readout = dense(options.hidden, options.n_channels, generator, gain=0.5)

    def forward(self, latents: Tensor) -> Tensor:
        return self.readout(silu(self.middle(silu(self.inner(latents.to(DTYPE))))))
