"""Encoders map a modality's observations to one Gaussian site per bin and latent."""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import conv1d, pad, pixel_unshuffle, silu, softplus

from colatent.models.mmgpvae.layers import DTYPE, PATCH, Dropout, Recurrent, convolution, dense, n_patches
from colatent.models.mmgpvae.options import ModalityOptions
from colatent.models.mmgpvae.posterior import Sites

# Initial sites are weak: an overconfident untrained encoder would distort latents shared with others.
INITIAL_LOG_PRECISION = -3.0
INVERSE_OF_ONE = math.log(math.e - 1)  # at which softplus is 1


class ImageProjection(nn.Module):
    """A convolution over the patches of each image, followed by a linear projection of its features.

    Args:
        shape: rows and columns; the channels are the pixels in row-major order.
        n_out: number of projections.
        generator: random generator of the weights.
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
    """A projection of the channels, recurrent units or filters over bins, and a network for the sites.

    Muscles follow neurons by some bins, and one bin of few neurons says little: with recurrent units, a
    monkey's muscles were predicted from its neurons with R² .87, with filters of nine bins with .83. The
    errors of such sites are correlated between bins, but treated as independent; inference only starts from
    them (`joint`). Each filter acts on a single projection: a full convolution over channels and bins would
    have many times the weights, and would overfit sooner.

    Args:
        options: options of the modality; ``hidden`` is also the number of projections.
        generator: CPU random generator of the weights and later of the dropout.

    Attributes:
        weight: of each channel in the linear terms of the sites (channel, latent), besides the network's;
            None for networks that do not start from the linear model.
        information: of each channel in the precisions of the sites (channel, latent), which the network
            multiplies.
        center: value of each channel at which its linear terms are zero (channel,).
    """

    weight: nn.Parameter | None
    recurrent: Recurrent | None
    filters: nn.Parameter | None
    information: Tensor
    center: Tensor

    def __init__(self, options: ModalityOptions, generator: torch.Generator) -> None:
        super().__init__()
        hidden, n_latents = options.hidden, len(options.latents)
        self.projection: nn.Module = (
            dense(options.n_channels, hidden, generator)
            if options.image_shape is None
            else ImageProjection(options.image_shape, hidden, generator)
        )
        self.recurrent, self.filters = None, None
        if options.context is None:
            self.recurrent = Recurrent(hidden, generator)
        else:
            filters = torch.empty(hidden, 1, options.context, dtype=DTYPE)
            self.filters = nn.Parameter(filters.normal_(0.0, options.context**-0.5, generator=generator))
        self.hidden = dense(hidden, hidden, generator)
        self.location = dense(hidden, n_latents, generator)
        self.log_precision = dense(hidden, n_latents, generator, gain=0.1)
        nn.init.constant_(self.log_precision.bias, INITIAL_LOG_PRECISION)
        self.weight = None
        share = torch.full((options.n_channels, n_latents), 1 / options.n_channels, dtype=DTYPE)
        self.register_buffer("information", share)
        self.register_buffer("center", torch.zeros(options.n_channels, dtype=DTYPE))
        if options.from_linear:
            self.weight = nn.Parameter(torch.zeros_like(share))
        self.dropout = Dropout(options.dropout, generator)

    def forward(self, features: Tensor, observed: Tensor) -> Sites:
        """Return one site per bin and latent.

        Args:
            features: centred observations, zero where not observed, (trial, time, channel).
            observed: boolean mask of the same shape.
        """
        hidden = self.dropout(self._over_bins(self.projection(features)))
        hidden = self.dropout(silu(self.hidden(hidden)))
        # Information adds over channels, so precision is proportional to the share of observed channels
        # and exactly zero where none is observed.
        factor = softplus(self.log_precision(hidden))
        there = observed.to(features.dtype)
        precision = factor * (there @ self.information)
        linear = precision * self.location(hidden)
        if self.weight is not None:
            linear = linear + factor * ((features - there * self.center) @ self.weight)
        return Sites(precision.double(), linear.double())

    @torch.no_grad()
    def start_linear(self, weight: Tensor, information: Tensor, center: Tensor) -> None:
        """Let the sites be linear in the observations: the network adds nothing at the start."""
        assert self.weight is not None
        self.weight.copy_(weight)
        self.center.copy_(center)
        self.information.copy_(information)
        for layer in (self.location, self.log_precision):
            nn.init.zeros_(layer.weight)
        nn.init.zeros_(self.location.bias)
        nn.init.constant_(self.log_precision.bias, INVERSE_OF_ONE)

    def _over_bins(self, projected: Tensor) -> Tensor:
        """Return hidden units that see other bins, from projections (trial, time, projection)."""
        if self.recurrent is not None:
            found: Tensor = self.recurrent(self.dropout(silu(projected)))
            return found
        assert self.filters is not None
        n_projections, _, context = self.filters.shape
        if context == 1:  # plain factors: six times faster than a convolution
            return silu(projected * self.filters[:, 0, 0])
        filtered = conv1d(projected.transpose(1, 2), self.filters, padding=context // 2, groups=n_projections)
        return silu(filtered.transpose(1, 2))
