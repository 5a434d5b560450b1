"""Exact log marginal likelihood of Gaussian GPFA and its gradient.

    y_t = C z_t + d + e_t,   e_t ~ N(0, diag R),   z_k ~ GP(0, correlation(. / tau_k))

(Yu et al. 2009, eqs 1-4). The gradient comes from the posterior moments by Fisher's identity: it is
the expected gradient of the complete-data log likelihood, so nothing is differentiated through a
Cholesky factorisation.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from colatent import gp
from colatent.models.gpfa_data import Observations, Pattern, chain_patterns, find_patterns
from colatent.models.gpfa_solvers import (
    CirculantSolver,
    DenseSolver,
    Solver,
    operations,
    to_coefficients,
)


class Parameters(NamedTuple):
    """Parameters of GPFA in the form in which they are fitted.

    Attributes:
        loading: C in units of the channels' noise standard deviation (channel, latent).
        log_noise: log R (channel,).
        offset: d (channel,).
        log_time_scale: log of the time scales in bins (latent,).
    """

    loading: Tensor
    log_noise: Tensor
    offset: Tensor
    log_time_scale: Tensor


@dataclass(frozen=True)
class Prior:
    """Kernel, and how exactly it is represented.

    Attributes:
        kernel: one of ``gp.KERNELS``.
        tolerance: coefficients with less than this share of the largest variance are dropped, and
            the circle is long enough for the wrapped correlation to stay below it.
    """

    kernel: str
    tolerance: float

    def n_circle(self, n_bins: int, longest_time_scale: float) -> int:
        """Return the bins of a circle for trials of ``n_bins``."""
        return gp.circle_bins(n_bins, longest_time_scale, self.kernel, self.tolerance)

    def variances(self, log_time_scale: Tensor, n_circle: int) -> Tensor:
        """Return the coefficients' prior variances (latent, F), zero where dropped."""
        full = gp.coefficient_variances(self.kernel, log_time_scale.exp(), n_circle)
        kept = full.detach() > self.tolerance * full.detach().amax(dim=1, keepdim=True)
        n_coef = int(kept.any(dim=0).nonzero()[-1]) + 1
        n_coef += 1 - n_coef % 2
        return torch.where(kept, full, 0.0)[:, :n_coef]

    def counts(self, time_scale: np.ndarray, n_circle: int) -> list[int]:
        """Return how many coefficients each latent keeps."""
        kept = self.variances(torch.as_tensor(np.log(time_scale)), n_circle) > 0
        return [int(n) for n in kept.sum(1)]


class Block:
    """The trials of one chain of patterns, projected once onto the Fourier basis of their circle.

    Attributes:
        trial: indices of the trials, in the order of the block.
        channels: channel masks (J, p).
        n_circle: bins in the circle.
    """

    def __init__(
        self,
        data: Observations,
        patterns: Sequence[Pattern],
        prior: Prior,
        time_scale: np.ndarray,
        longest: float,
        device: torch.device,
    ):
        self.prior = prior
        self.trial = np.concatenate([p.trial for p in patterns])
        n_bins = max(1, patterns[0].n_bins)
        self.n_circle = prior.n_circle(n_bins, longest)
        dense, circulant = operations(patterns, self.n_circle, prior.counts(time_scale, self.n_circle))
        self.solver: Solver = (
            DenseSolver(patterns, self.n_circle, device)
            if dense <= circulant
            else CirculantSolver(patterns, self.n_circle, device)
        )
