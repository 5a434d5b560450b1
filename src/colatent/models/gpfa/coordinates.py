"""Coordinates of latents on the bins of trials, and the posterior's covariance in them.

Shapes: G sets of trials, N trials, T bins, q latents, n coordinates of all latents together.
"""

import math
from collections.abc import Iterable, Sequence
from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor

from colatent.models.gp import shifted_basis
from colatent.models.gpfa.parameters import NO_DELAY

_NEGLIGIBLE = 1e-4  # standard deviation along a direction, relative to the largest


class Alike(NamedTuple):
    """Sets of trials whose posteriors have the same covariance.

    Attributes:
        kind: the set of each trial (N,).
        size: trials of each set (G,).
    """

    kind: Tensor
    size: Tensor

    @classmethod
    def of(cls, kind: Tensor) -> "Alike":
        """Return the sets with given numbers, from 0 on."""
        return cls(kind, torch.bincount(kind).to(torch.float64))

    @property
    def apart(self) -> bool:
        """Whether each trial is a set of its own."""
        every = torch.arange(len(self.kind), device=self.kind.device)
        return len(self.size) == len(every) and torch.equal(self.kind, every)

    def total(self, values: Tensor) -> Tensor:
        """Return the sums over the trials of each set (G, ...)."""
        return values.new_zeros(len(self.size), *values.shape[1:]).index_add_(0, self.kind, values)

    def average(self, values: Tensor) -> Tensor:
        """Return the means over the trials of each set (G, ...)."""
        return self.total(values) / self.size.view(-1, *[1] * (values.ndim - 1))


class Spread(NamedTuple):
    """The covariance of a posterior.

    Attributes:
        inverse: of u, see `Basis` (G, n, n).
        covariance: between latents within a bin (G, T, q, q), as each modality sees them.
        kl: what a set's trials have of their Kullback-Leibler divergence from the prior in common (G,), nats.
    """

    inverse: Tensor
    covariance: list[Tensor]
    kl: Tensor


class Basis:
    """Bins as mixtures of independent standard normal coordinates u, a few for each latent.

    In the Fourier basis of the circle, modality m sees z_k = R_mk' w with w ~ N(0, I) and R_mk the rows of
    S^(1/2) b(t - D_mk). Trials are shorter than the circle, so that few directions U of w matter: the left
    singular vectors of R_k over all modalities. Then z_k = (U' R_mk)' u; the rest of w keeps its prior.

    Attributes:
        rows: U' R_mk (r, T) of each latent, one list for each modality, or for all.
        slopes: their derivatives by D.
        parts: place of each latent's coordinates among all.
    """

    def __init__(self, variances: Tensor, n_circle: int, n_bins: int, delay: Tensor = NO_DELAY):
        late = delay.expand(-1, len(variances))
        self.rows: list[list[Tensor]] = [[] for _ in late]
        self.slopes: list[list[Tensor]] = [[] for _ in late]
        self.directions: list[Tensor] = []
        self.parts: list[slice] = []
        self.n = 0
        for k, s in enumerate(variances):
            n_kept = int((s > 0).sum())
            root = s[:n_kept].sqrt()[:, None]
            coef = torch.arange(n_kept, device=s.device)
            seen = [[b.T for b in shifted_basis(n_circle, n_bins, coef, row[k])] for row in late]
            u, size, _ = torch.linalg.svd(torch.cat([root * b for b, _ in seen], dim=1), full_matrices=False)
            u = u[:, size > _NEGLIGIBLE * size[0]]
            for m, (basis, slope) in enumerate(seen):
                self.rows[m].append(u.T @ (root * basis))
                if len(late) > 1:  # else nothing is delayed
                    self.slopes[m].append(u.T @ (root * slope))
            self.directions.append(u)
            self.parts.append(slice(self.n, self.n + u.shape[1]))
            self.n += u.shape[1]

    def spread(self, precision: Sequence[Tensor]) -> Spread:
        """Return the posterior's covariance; the cost per set is an inversion of n x n plus n^2 T.

        Args:
            precision: of the latents in each bin, as each modality sees them (G, T, q, q).
        """
        if len(self.rows) == 1:
            precision = [sum_of(precision)]
        a = precision[0].new_zeros(len(precision[0]), self.n, self.n)
        for rows, by_bin in zip(self.rows, precision, strict=True):
            for k, rows_k in enumerate(rows):
                for j in range(k + 1):
                    a[:, self.parts[k], self.parts[j]] += (rows_k * by_bin[:, None, :, k, j]) @ rows[j].T
        a.diagonal(dim1=1, dim2=2).add_(1.0)
        factor, failed = torch.linalg.cholesky_ex(a)  # reads the lower triangle
        inverse = torch.cholesky_inverse(factor)
        log_det = 2 * factor.diagonal(dim1=1, dim2=2).log().sum(1)
        kl = 0.5 * (inverse.diagonal(dim1=1, dim2=2).sum(1) - self.n + log_det)
        covariance = [self._within_bins(rows, rows, inverse) for rows in self.rows]
        # overflowing sites give an infinite KL divergence, so that iterations turn back
        return Spread(inverse, covariance, torch.where(failed == 0, kl, math.inf))

    def to_bins(self, u: Tensor) -> list[Tensor]:
        """Return the latents as each modality sees them (N, T, q) from coordinates (N, n)."""
        return [self._at(rows, u) for rows in self.rows]

    def from_bins(self, natural: Sequence[Tensor]) -> Tensor:
        """Apply the transpose of `to_bins` to one (N, T, q) of each modality; return (N, n)."""
        if len(self.rows) == 1:
            natural = [sum_of(natural)]
        found = natural[0].new_zeros(len(natural[0]), self.n)
        for rows, slope in zip(self.rows, natural, strict=True):
            for k, rows_k in enumerate(rows):
                found[:, self.parts[k]] += slope[:, :, k] @ rows_k.T
        return found

    def relevance(self, u: Tensor, spread: Spread, alike: Alike) -> list[Tensor]:
        """Return the sum over trials of E[w^2] of each kept Fourier coefficient, one tensor per latent."""
        found = []
        for direction, part in zip(self.directions, self.parts, strict=True):
            second = u[:, part].T @ u[:, part] + torch.tensordot(alike.size, spread.inverse[:, part, part], 1)
            second.diagonal().sub_(len(u))  # less the prior's
            found.append(len(u) + ((direction @ second) * direction).sum(1))
        return found

    def moved(self, modality: int, u: Tensor, spread: Spread) -> tuple[Tensor, Tensor]:
        """Return the mean of dz/dD (N, T, q) and its covariance with z (G, T, q, q), as a modality sees z."""
        rows, slopes = self.rows[modality], self.slopes[modality]
        return self._at(slopes, u), self._within_bins(slopes, rows, spread.inverse)

    def _at(self, rows: list[Tensor], u: Tensor) -> Tensor:
        return torch.stack([u[:, self.parts[k]] @ rows_k for k, rows_k in enumerate(rows)], dim=-1)

    def _within_bins(self, left: list[Tensor], right: list[Tensor], inverse: Tensor) -> Tensor:
        """Return the covariance between latents within each bin (G, T, q, q)."""
        q, symmetric = len(left), left is right
        covariance = inverse.new_empty(len(inverse), left[0].shape[1], q, q)
        for k, left_k in enumerate(left):
            for j in range(k + 1 if symmetric else q):
                block = inverse[:, self.parts[k], self.parts[j]]
                between = ((block @ right[j]) * left_k).sum(1)
                covariance[:, :, k, j] = between
                if symmetric:
                    covariance[:, :, j, k] = between
        return covariance


def sum_of(parts: Iterable[Tensor]) -> Tensor:
    """Return the sum of tensors."""
    return reduce(torch.add, parts)
