"""Encoders: from a modality's observations to one Gaussian site per bin and latent."""

import torch
from torch import Tensor, nn
from torch.nn.functional import conv1d, pad, pixel_unshuffle, silu, softplus

from colatent.models.mmgpvae.layers import DTYPE, PATCH, Dropout, convolution, dense, n_patches
from colatent.models.mmgpvae.options import ModalityOptions
from colatent.models.mmgpvae.posterior import Sites

# Sites start weak: an encoder that is sure of itself before it has learned anything drags along
# the latents that it shares with others.
INITIAL_LOG_PRECISION = -3.0


class ImageProjection(nn.Module):
    """A convolution over the patches of each image, and a projection of what it finds.

    Args:
        shape: rows and columns; the channels are the pixels, row by row.
        n_out: number of projections.
    """

    def __init__(self, shape: tuple[int, int], n_out: int, generator: torch.Generator) -> None:
        super().__init__()
        self.shape = shape
        rows, columns = n_patches(shape)
        self.padding = (0, PATCH * columns - shape[1], 0, PATCH * rows - shape[0])
        self.convolution = convolution(PATCH**2, PATCH**2, generator)
        self.readout = dense(PATCH**2 * rows * columns, n_out, generator)

    def forward(self, pixels: Tensor) -> Tensor:
        """Map pixels (..., channel) to projections (..., n_out)."""
        images = pad(pixels.reshape(-1, 1, *self.shape), self.padding)
        found: Tensor = silu(self.convolution(pixel_unshuffle(images, PATCH)))
        return self.readout(found.flatten(1)).reshape(*pixels.shape[:-1], -1)


class Encoder(nn.Module):
    """A projection of the channels, filters over a few bins, and a per-bin network to the sites.

    The filters act on each projection by itself: a full convolution over channels and bins has
    many times the weights, costs as much more and over-fits sooner.

    Args:
        options: of the modality; ``hidden`` is also the number of projections.
        generator: on the CPU; of the weights, and later of the dropout.
    """

    def __init__(self, options: ModalityOptions, generator: torch.Generator) -> None:
        super().__init__()
        hidden, context, n_latents = options.hidden, options.context, len(options.latents)
        self.projection: nn.Module = (
            dense(options.n_channels, hidden, generator)
            if options.image_shape is None
            else ImageProjection(options.image_shape, hidden, generator)
        )
        self.filters = nn.Parameter(
            torch.empty(hidden, 1, context, dtype=DTYPE).normal_(0.0, context**-0.5, generator=generator)
        )
        self.hidden = dense(hidden, hidden, generator)
        self.location = dense(hidden, n_latents, generator)
        self.log_precision = dense(hidden, n_latents, generator, gain=0.1)
        self.dropout = Dropout(options.dropout, generator)

    def forward(self, features: Tensor, observed: Tensor) -> Sites:
        """Return one site per bin and latent.

        Args:
            features: centred observations, zero where not observed, (trial, time, channel).
            observed: boolean, same shape.
        """
        hidden = self.dropout(silu(self._filtered(self.projection(features))))
        hidden = self.dropout(silu(self.hidden(hidden)))
        # Information adds over channels, so the precision shrinks with the share of them that was
        # observed, down to exactly zero where nothing was.
        share = observed.to(features.dtype).mean(dim=-1, keepdim=True)
        precision = softplus(self.log_precision(hidden) + INITIAL_LOG_PRECISION) * share
        return Sites(precision.double(), (precision * self.location(hidden)).double())

    def _filtered(self, projected: Tensor) -> Tensor:
        """Filter each projection (trial, time, projection) by itself."""
        n_projections, _, context = self.filters.shape
        if context == 1:  # a factor each, which a convolution takes six times as long to apply
            return projected * self.filters[:, 0, 0]
        padding = context // 2
        filtered = conv1d(projected.transpose(1, 2), self.filters, padding=padding, groups=n_projections)
        return filtered.transpose(1, 2)
