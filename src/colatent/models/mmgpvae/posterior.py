"""The exact posterior of the latents given a GP prior and Gaussian sites in each bin.

Latent k is ``z_k(t) = sum_f G_k[f, t] u_kf`` with whitened coefficients ``u_k ~ N(0, I)`` and
``G_k = S_k^(1/2) B``, the real Fourier basis scaled by the root of the prior's spectral variances.
A site is a Gaussian factor ``exp(h z - p z^2 / 2)`` on one latent in one bin. The posterior of each
latent and trial is then exact (Rasmussen & Williams 2006, eq. 2.8, in weight space):

    u | sites ~ N(A^-1 G h, A^-1),    A = I + G diag(p) G'.

A bin without a site has ``p = h = 0``, so gaps, ragged ends and missing modalities are not special cases.
Latents with similar numbers of coefficients are batched: shorter bases are padded with rows of zeros, whose
coefficients keep their prior and have no effect.
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from colatent.models import gp

# Latents are batched if they need at least this share of the largest number of coefficients in the batch.
SIMILAR = 0.75


class Sites(NamedTuple):
    """Gaussian factors per bin, in natural parameters: a product of sites is the sum of their parameters.

    Attributes:
        precision: p >= 0, shape (trial, time, latent).
        linear: h = precision times location, shape (trial, time, latent).
    """

    precision: Tensor
    linear: Tensor

    def select(self, latent: Tensor) -> "Sites":
        return Sites(self.precision[..., latent], self.linear[..., latent])


class Marginals(NamedTuple):
    """Mean and variance of each latent in each bin, each (trial, time, latent)."""

    mean: Tensor
    variance: Tensor

    def select(self, latent: Tensor) -> "Marginals":
        return Marginals(self.mean[..., latent], self.variance[..., latent])


class LatentPosterior(Protocol):
    """A Gaussian posterior of the latents, independent over trials."""

    @property
    def marginals(self) -> Marginals:
        """Mean and variance of each latent in each bin."""

    def kl(self) -> Tensor:
        """KL divergence (nats) from the prior, shape (trial,)."""

    def sample(self, n_samples: int, generator: torch.Generator) -> Tensor:
        """Return joint samples in antithetic pairs, shape (sample, trial, time, latent).

        The mean of each pair is the posterior mean. All trials get the same noise, so that a trial's
        samples do not depend on other trials.

        Args:
            n_samples: an even number.
            generator: CPU random generator.
        """


def prior_basis(kernel: str, time_scale: Tensor, n_bins: int) -> Tensor:
    """Return the scaled Fourier basis ``G`` of each latent, (latent, coefficient, time).

    Every latent has its own circle and keeps only the coefficients with non-negligible prior variance.
    Slow latents have few, which gives most of the speed.

    Args:
        kernel: one of ``gp.KERNELS``.
        time_scale: bins, shape (latent,); the result is differentiable in it.
        n_bins: bins per trial.
    """
    circles = [gp.circle_bins(n_bins, scale, kernel) for scale in time_scale.detach().tolist()]
    latents, bases = [], []
    for n_circle in sorted(set(circles)):
        here = [k for k, n in enumerate(circles) if n == n_circle]
        latents += here
        variances = gp.coefficient_variances(kernel, time_scale[here], n_circle)
        bases.append(_scaled_basis(variances, n_circle, n_bins))
    most = max(basis.shape[1] for basis in bases)
    padded = torch.cat([pad(basis, (0, 0, 0, most - basis.shape[1])) for basis in bases])
    return padded[np.argsort(latents)]


def _scaled_basis(variances: Tensor, n_circle: int, n_bins: int) -> Tensor:
    """Return G for latents on one circle; negligible ``variances`` (latent, coefficient) are set to 0."""
    n_kept = np.array([gp.n_coefficients(v) for v in variances.detach().cpu().numpy()])
    most = int(n_kept.max())
    kept = torch.from_numpy(np.arange(most) < n_kept[:, None]).to(variances.device)
    root = torch.where(kept, variances[:, :most], 1.0).sqrt() * kept  # sqrt is not differentiable at 0
    return root[..., None] * _fourier_basis(n_circle, n_bins, most).to(variances.device)


@lru_cache(maxsize=256)
def _fourier_basis(n_circle: int, n_bins: int, n_coefficients: int) -> Tensor:
    return torch.from_numpy(gp.fourier_basis(n_circle, n_bins, n_coefficients))


@dataclass(frozen=True)
class LatentBlock:
    """Gaussian posterior of latents whose bases have the same number of coefficients.

    Attributes:
        latent: indices of the latents, shape (latent,).
        basis: G, shape (latent, coefficient, time).
        coefficient_mean: E[u], shape (latent, trial, coefficient).
        whitener: W with W' W = A^-1 (the inverse of A's Cholesky factor), triangular, shape
            (latent, trial, coefficient, coefficient).
    """

    latent: Tensor
    basis: Tensor
    coefficient_mean: Tensor
    whitener: Tensor

    def mean(self) -> Tensor:
        """Posterior mean, shape (latent, trial, time)."""
        return self.coefficient_mean @ self.basis

    def variance(self) -> Tensor:
        """Posterior variance in each bin, shape (latent, trial, time)."""
        rows = self.whitener.flatten(1, 2) @ self.basis
        return rows.unflatten(1, self.whitener.shape[1:3]).square().sum(dim=2)

    def kl(self) -> Tensor:
        """KL divergence (nats) from the prior: (tr A^-1 + |E u|^2 - F + log |A|) / 2, shape (trial,)."""
        trace = self.whitener.square().sum(dim=(-2, -1))
        log_det = -2 * self.whitener.diagonal(dim1=-2, dim2=-1).log().sum(dim=-1)
        square = self.coefficient_mean.square().sum(dim=-1)
        return 0.5 * (trace + square - self.basis.shape[1] + log_det).sum(dim=0)

    def sample(self, n_samples: int, generator: torch.Generator) -> Tensor:
        """Return joint samples in antithetic pairs, shape (latent, sample, trial, time)."""
        shape = (len(self.basis), n_samples // 2, self.basis.shape[1])
        half = torch.randn(shape, generator=generator, dtype=self.basis.dtype)
        noise = torch.cat([half, -half], dim=1).to(self.basis.device)
        deviation = torch.einsum("ksg,kngf->ksnf", noise, self.whitener)
        coefficients = self.coefficient_mean[:, None] + deviation
        return (coefficients.flatten(1, 2) @ self.basis).unflatten(1, coefficients.shape[1:3])


@dataclass(frozen=True)
class Posterior:
    """Posterior of all latents, independent over trials and latents."""

    blocks: tuple[LatentBlock, ...]

    @cached_property
    def marginals(self) -> Marginals:
        """Mean and variance of each latent in each bin."""
        mean = self._in_order([block.mean() for block in self.blocks])
        variance = self._in_order([block.variance() for block in self.blocks])
        return Marginals(mean.permute(1, 2, 0), variance.permute(1, 2, 0))

    def kl(self) -> Tensor:
        """KL divergence (nats) from the prior, shape (trial,)."""
        return torch.stack([block.kl() for block in self.blocks]).sum(dim=0)

    def sample(self, n_samples: int, generator: torch.Generator) -> Tensor:
        """Return joint samples, see `LatentPosterior`."""
        samples = [block.sample(n_samples, generator) for block in self.blocks]
        return self._in_order(samples).permute(1, 2, 3, 0)

    def _in_order(self, parts: list[Tensor]) -> Tensor:
        """Join the blocks' arrays, with latents first, in the order of the latents."""
        return in_order([block.latent for block in self.blocks], parts)


def in_order(latents: list[Tensor], parts: list[Tensor]) -> Tensor:
    """Join arrays along their first axis, the latents, in the order of the latents."""
    return torch.cat(parts)[torch.cat(latents).argsort()]


def blocks_of(bases: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Batch latents with similar numbers of coefficients, largest first; return indices and bases.

    The cost is cubic in the number of coefficients: slow latents must not be padded to the size of fast ones.
    """
    used = (bases.detach() != 0).any(dim=2).cpu().numpy()
    size = used.shape[1] - used[:, ::-1].argmax(axis=1)
    blocks: list[list[int]] = []
    for k in np.argsort(-size, kind="stable").tolist():
        if not blocks or size[k] < SIMILAR * size[blocks[-1][0]]:
            blocks.append([])
        blocks[-1].append(k)
    return [
        (torch.tensor(block, device=bases.device), bases[block, : int(size[block[0]])]) for block in blocks
    ]


def posterior(bases: Tensor, sites: Sites) -> Posterior:
    """Return the exact posterior of every latent and trial.

    Args:
        bases: G of each latent, see `prior_basis`.
        sites: product of all modalities' sites.
    """
    blocks = []
    for latent, basis in blocks_of(bases):
        own = sites.select(latent)
        factor = torch.linalg.cholesky(coefficient_precision(basis, own.precision))
        identity = torch.eye(basis.shape[1], dtype=basis.dtype, device=basis.device)
        whitener = torch.linalg.solve_triangular(factor, identity, upper=False)
        mean = whitener.mT @ (whitener @ project(basis, own.linear)[..., None])
        blocks.append(LatentBlock(latent, basis, mean[..., 0], whitener))
    return Posterior(tuple(blocks))


def posterior_mean(bases: Tensor, sites: Sites) -> Tensor:
    """Return only the posterior mean of the latents (trial, time, latent), which needs a single solve."""
    blocks = blocks_of(bases)
    means = [coefficient_mean(basis, sites.select(latent)) @ basis for latent, basis in blocks]
    return in_order([latent for latent, _ in blocks], means).permute(1, 2, 0)


def coefficient_mean(bases: Tensor, sites: Sites) -> Tensor:
    """Return E[u] = A^-1 G h, shape (latent, trial, coefficient)."""
    precision = coefficient_precision(bases, sites.precision)
    return torch.linalg.solve(precision, project(bases, sites.linear))


def project(bases: Tensor, linear: Tensor) -> Tensor:
    """G h, shape (latent, trial, coefficient)."""
    return by_latent(linear) @ bases.mT


def coefficient_precision(bases: Tensor, precision: Tensor) -> Tensor:
    """A = I + G diag(p) G', shape (latent, trial, coefficient, coefficient)."""
    weighted = bases[:, None] * by_latent(precision)[:, :, None]
    identity = torch.eye(bases.shape[1], dtype=bases.dtype, device=bases.device)
    return identity + (weighted.flatten(1, 2) @ bases.mT).unflatten(1, weighted.shape[1:3])


def by_latent(x: Tensor) -> Tensor:
    """Permute (trial, time, latent) to (latent, trial, time), contiguous in memory."""
    return x.permute(2, 0, 1).contiguous()
