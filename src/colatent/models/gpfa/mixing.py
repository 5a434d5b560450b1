"""Coordinates in which a fit of several modalities converges in fewer iterations.

The data say least of directions that move many loadings together: latents of similar time scales can be
mixed, and a latent's mean traded for the channels' offsets, at hardly any loss in likelihood. Along these,
single loadings move in many small steps. The optimiser therefore gets further variables, which move along
them at once:

    C = (W (I + a)) o support,    d = b + C0 m,

with W and b free, mixing a (latent, latent) and means m (latent,), and C0 the loadings at the start. The
redundancy does no harm to a quasi-Newton method, whose gradient has no component along it.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from colatent.models.gpfa.optimiser import minimize
from colatent.models.gpfa.options import FitOptions
from colatent.models.gpfa.parameters import Parameters

# Gain of an iteration (nats over all trials) below which a fit stops.
_GAIN = 0.05
_FREE = (-math.inf, math.inf)


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
    """The map from coordinates to parameters, around the start of a fit.

    Args:
        start: parameters at the start.
        support: where loadings can differ from zero (channel, latent).
        unit: unit of the loadings relative to that of the offsets (channel,).
    """

    def __init__(self, start: Parameters, support: Tensor, unit: Tensor):
        loading = start.loading
        self.support = support.to(loading.dtype)
        self.by_mean = loading * unit[:, None]
        self.identity = torch.eye(loading.shape[1], dtype=loading.dtype, device=loading.device)

    def start(self, parameters: Parameters) -> Coordinates:
        """Return the coordinates of parameters, without mixing."""
        return Coordinates(*parameters, torch.zeros_like(self.identity), torch.zeros_like(self.identity[0]))

    def parameters(self, at: Coordinates) -> Parameters:
        """Return the parameters at the coordinates."""
        loading = (at.loading @ self._matrix(at)) * self.support
        offset = at.offset + self.by_mean @ at.mean
        return Parameters(loading, at.log_noise, offset, at.log_time_scale, at.delay)

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


def minimize_mixed(
    function: Callable[[Parameters], tuple[float, Parameters]],
    start: Parameters,
    mixing: Mixing,
    bounds: Sequence[tuple[Any, Any]],
    limits: FitOptions,
    report: Callable[[float], None],
    n_bins: int,
) -> tuple[Parameters, bool]:
    """Minimise nats per bin in mixed coordinates, until an iteration gains little in all.

    Args:
        function, start, bounds, limits, report: as for `minimize`.
        mixing: the coordinates.
        n_bins: bins over which ``function`` averages.
    """
    total = n_bins * max(1.0, abs(function(start)[0]))

    def at_coordinates(at: Coordinates) -> tuple[float, Coordinates]:
        value, gradient = function(mixing.parameters(at))
        return value, mixing.gradient(gradient, at)

    found, converged = minimize(
        at_coordinates,
        mixing.start(start),
        [*bounds, _FREE, _FREE],
        replace(limits, convergence=_GAIN / total),
        report,
    )
    return mixing.parameters(found), converged
