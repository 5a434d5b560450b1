"""Coordinates in which a fit of several modalities converges in fewer iterations.

The data say least of directions that move many loadings together: latents of similar time scales can be
mixed, and a latent's mean traded for the channels' offsets, at hardly any loss in likelihood. Along these,
single loadings move in many small steps. The optimiser therefore gets further variables, which move along
them at once:

    C = (W (I + a)) o support,    d = b + C0 m,

with W and b free, mixing a (latent, latent) and means m (latent,), and C0 the loadings at the start. The
redundancy does no harm to a quasi-Newton method, whose gradient has no component along it.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from colatent.models.gpfa.parameters import Parameters


class Coordinates(NamedTuple):
    """The variables of the optimiser: those of `Parameters`, then the mixing and the means.

    Attributes:
        mixing: a (latent, latent).
        mean: m (latent,).
    """

    loading: Tensor
    log_noise: Tensor
    offset: Tensor
    log_time_scale: Tensor
    delay: Tensor
    mixing: Tensor
    mean: Tensor


class Mixing:
    """The map from coordinates to parameters, around the start of a fit."""

    def __init__(self, start: Parameters, support: Tensor):
        self.support = support.to(start.loading.dtype)
        # offsets are in units of the channels' standard deviation, loadings in units of their noise
        self.by_mean = start.loading * (0.5 * start.log_noise).exp()[:, None]
        self.identity = torch.eye(
            start.loading.shape[1], dtype=start.loading.dtype, device=start.loading.device
        )

    def start(self, parameters: Parameters) -> Coordinates:
        """Return the coordinates of parameters, without mixing."""
        return Coordinates(*parameters, torch.zeros_like(self.identity), torch.zeros_like(self.identity[0]))

    def parameters(self, at: Coordinates) -> Parameters:
        """Return the parameters at the coordinates."""
        loading = (at.loading @ self._matrix(at)) * self.support
        return Parameters(
            loading, at.log_noise, at.offset + self.by_mean @ at.mean, at.log_time_scale, at.delay
        )

    def gradient(self, by: Parameters, at: Coordinates) -> Coordinates:
        """Return the gradient with respect to the coordinates from that with respect to the parameters."""
        by_loading = by.loading * self.support
        return Coordinates(
            (by_loading @ self._matrix(at).T) * self.support,
            *by[1:],
            at.loading.T @ by_loading,
            self.by_mean.T @ by.offset,
        )

    def _matrix(self, at: Coordinates) -> Tensor:
        return self.identity + at.mixing
