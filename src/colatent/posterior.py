"""The sites posterior: what Gaussian sites per bin and a GP prior say about the latents.

Latent k is ``z_k(t) = sum_f G_k[f, t] u_kf`` with whitened coefficients ``u_k ~ N(0, I)`` and
``G_k = S_k^(1/2) B``, the real Fourier basis scaled by the root of the prior's spectral variances.
A site is a Gaussian factor ``exp(h z - p z^2 / 2)`` on one latent in one bin. The posterior of each
latent and trial is then exact (Rasmussen & Williams 2006, eq. 2.8, in weight space):

    u | sites ~ N(A^-1 G h, A^-1),    A = I + G diag(p) G'.

A bin without a site has ``p = h = 0``: gaps, ragged ends and missing modalities need no case of
their own.
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from colatent import gp


class Sites(NamedTuple):
    """Gaussian factors per bin; the product of two sites is their sum.

    Attributes:
        precision: p >= 0, shape (trial, time, latent).
        linear: h = precision times location, shape (trial, time, latent).
    """

    precision: Tensor
    linear: Tensor

    def select(self, latent: Tensor) -> "Sites":
        return Sites(self.precision[..., latent], self.linear[..., latent])

    def times(self, factor: Tensor) -> "Sites":
        """Return sites at the same locations, ``factor`` (latent,) times as precise."""
        return Sites(factor * self.precision, factor * self.linear)


class Marginals(NamedTuple):
    """Mean and variance of each latent in each bin, each (trial, time, latent)."""

    mean: Tensor
    variance: Tensor

    def select(self, latent: Tensor) -> "Marginals":
        return Marginals(self.mean[..., latent], self.variance[..., latent])


def prior_basis(kernel: str, time_scale: Tensor, n_bins: int) -> list[Tensor]:
    """Return the scaled Fourier basis ``G`` of each latent, each (coefficient, time).

    Every latent has its own circle and keeps only the coefficients that carry prior variance: few
    for slow latents, and most of the speed comes from here.

    Args:
        kernel: one of ``gp.KERNELS``.
        time_scale: bins, shape (latent,); the result is differentiable in it.
        n_bins: number of bins of a trial.
    """
    circles = [gp.circle_bins(n_bins, float(scale), kernel) for scale in time_scale.detach()]
    bases: dict[int, Tensor] = {}
    for n_circle in set(circles):
        latents = [k for k, n in enumerate(circles) if n == n_circle]
        variances = gp.coefficient_variances(kernel, time_scale[latents], n_circle)
        for k, variance in zip(latents, variances.unbind(), strict=True):
            n_kept = gp.n_coefficients(variance)
            basis = _fourier_basis(n_circle, n_bins, n_kept).to(variance.device)
            bases[k] = variance[:n_kept, None].sqrt() * basis
    return [bases[k] for k in range(len(circles))]


@lru_cache(maxsize=256)
def _fourier_basis(n_circle: int, n_bins: int, n_coefficients: int) -> Tensor:
    return torch.from_numpy(gp.fourier_basis(n_circle, n_bins, n_coefficients))


@dataclass(frozen=True)
class LatentPosterior:
    """Gaussian posterior of one latent.

    Attributes:
        basis: G, shape (coefficient, time).
        coefficient_mean: E[u], shape (trial, coefficient).
        whitener: W with W' W = A^-1 (the inverse of A's Cholesky factor), triangular, shape
            (trial, coefficient, coefficient).
    """

    basis: Tensor
    coefficient_mean: Tensor
    whitener: Tensor

    def mean(self) -> Tensor:
        """Posterior mean, shape (trial, time)."""
        return self.coefficient_mean @ self.basis

    def variance(self) -> Tensor:
        """Posterior variance in each bin, shape (trial, time)."""
        return (self.whitener @ self.basis).square().sum(dim=-2)

    def kl(self) -> Tensor:
        """KL divergence (nats) from the prior: (tr A^-1 + |E u|^2 - F + log |A|) / 2, shape (trial,)."""
        trace = self.whitener.square().sum(dim=(-2, -1))
        log_det = -2 * self.whitener.diagonal(dim1=-2, dim2=-1).log().sum(dim=-1)
        return 0.5 * (trace + self.coefficient_mean.square().sum(dim=-1) - len(self.basis) + log_det)

    def sample(self, noise: Tensor) -> Tensor:
        """Map standard normal ``noise`` (sample, coefficient) to samples, (sample, trial, time).

        All trials get the same noise, so that a trial's samples do not depend on its neighbours.
        """
        deviation = torch.einsum("sg,ngf->snf", noise, self.whitener)
        return (self.coefficient_mean + deviation) @ self.basis


@dataclass(frozen=True)
class Posterior:
    """Posterior of all latents, independent over trials and latents."""

    latents: tuple[LatentPosterior, ...]

    @cached_property
    def marginals(self) -> Marginals:
        """Mean and variance of each latent in each bin."""
        mean = torch.stack([q.mean() for q in self.latents], dim=-1)
        return Marginals(mean, torch.stack([q.variance() for q in self.latents], dim=-1))

    def kl(self) -> Tensor:
        """KL divergence (nats) from the prior, shape (trial,)."""
        return torch.stack([q.kl() for q in self.latents]).sum(dim=0)

    def sample(self, n_samples: int, generator: torch.Generator) -> Tensor:
        """Return joint samples in antithetic pairs, shape (sample, trial, time, latent).

        The pairs' mean is the posterior mean itself.

        Args:
            n_samples: an even number.
            generator: on the CPU.
        """
        samples = []
        for q in self.latents:
            half = torch.randn((n_samples // 2, len(q.basis)), generator=generator, dtype=q.basis.dtype)
            samples.append(q.sample(torch.cat([half, -half]).to(q.basis.device)))
        return torch.stack(samples, dim=-1)


def posterior(bases: list[Tensor], sites: Sites) -> Posterior:
    """Return the exact posterior of every latent and trial.

    Args:
        bases: G of each latent, see `prior_basis`.
        sites: of all modalities together.
    """
    latents = []
    for basis, precision, linear in zip(bases, *(x.unbind(dim=-1) for x in sites), strict=True):
        a = coefficient_precision(basis, precision)
        identity = torch.eye(len(basis), dtype=basis.dtype, device=basis.device)
        whitener = torch.linalg.solve_triangular(torch.linalg.cholesky(a), identity, upper=False)
        projected = (linear @ basis.T)[..., None]
        mean = (whitener.mT @ (whitener @ projected))[..., 0]
        latents.append(LatentPosterior(basis, mean, whitener))
    return Posterior(tuple(latents))


def log_evidence(bases: list[Tensor], sites: Sites) -> Tensor:
    """Return the log of the integral of prior times sites over the latents, nats, shape (trial,).

    As the posterior q is exact it is E_q[log sites] - KL(q || prior).
    """
    q = posterior(bases, sites)
    return expected_log(sites, q.marginals) - q.kl()


def expected_log(sites: Sites, latents: Marginals) -> Tensor:
    """Return E[log sites] in nats, summed over bins and latents, shape (trial,)."""
    mean, variance = latents
    expected = sites.linear * mean - 0.5 * sites.precision * (mean.square() + variance)
    return expected.sum(dim=(1, 2))


def posterior_mean(bases: list[Tensor], sites: Sites) -> Tensor:
    """Return only the posterior mean of the latents, (trial, time, latent): less work, one solve."""
    means = []
    for basis, precision, linear in zip(bases, *(x.unbind(dim=-1) for x in sites), strict=True):
        coefficients = torch.linalg.solve(coefficient_precision(basis, precision), linear @ basis.T)
        means.append(coefficients @ basis)
    return torch.stack(means, dim=-1)


def coefficient_precision(basis: Tensor, precision: Tensor) -> Tensor:
    """A = I + G diag(p) G', shape (trial, coefficient, coefficient)."""
    identity = torch.eye(len(basis), dtype=basis.dtype, device=basis.device)
    return identity + (basis * precision[:, None, :]) @ basis.T
