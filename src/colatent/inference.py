"""How the posterior is made from the modalities' sites: this project's way, and others to compare with.

An `Inference` is three choices: the basis that the prior is written in, the posterior that its
coefficients get, and how modalities that see the same latent are put together. `INFERENCES` names
the combinations: ``sites`` is exact; ``mean-field`` and ``averaged`` are what Gondur et al. (2024)
do (a diagonal Gaussian over Fourier coefficients; shared latents averaged over the encoders);
``time-domain`` is the GP-VAE with a Gaussian that is diagonal over bins (Casale et al. 2018, Pearce
2020); ``independent`` is the plain VAE, without a prior over time.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from colatent import gp
from colatent.posterior import (
    LatentPosterior,
    Posterior,
    Sites,
    coefficient_precision,
    posterior,
    prior_basis,
)

Bases = list[Tensor]

# Without it the covariance of a slow latent over the bins has no Cholesky factor.
JITTER = 1e-4


@dataclass(frozen=True)
class Inference:
    """What is fitted to the sites.

    Attributes:
        basis: (kernel, time scales in bins, number of bins) -> G of each latent, (coefficient, time).
        posterior: (bases, sites) -> posterior.
        combine: the modalities' sites -> those of the posterior.
    """

    basis: Callable[[str, Tensor, int], Bases]
    posterior: Callable[[Bases, Sites], Posterior]
    combine: Callable[[list[Sites]], Sites]


def product(sites: list[Sites]) -> Sites:
    """Return the product of the sites: natural parameters add up."""
    return Sites(*(torch.stack(parts).sum(dim=0) for parts in zip(*sites, strict=True)))


def average(sites: list[Sites]) -> Sites:
    """Return the mean of the sites over the modalities that have one on the bin and latent."""
    n = torch.stack([s.precision > 0 for s in sites]).sum(dim=0).clamp_min(1)
    return Sites(*(x / n for x in product(sites)))


def cholesky_basis(kernel: str, time_scale: Tensor, n_bins: int) -> Bases:
    """Return the transposed Cholesky factor of each latent's covariance over the bins."""
    lag = torch.arange(n_bins, dtype=time_scale.dtype, device=time_scale.device)
    jitter = JITTER * torch.eye(n_bins, dtype=time_scale.dtype, device=time_scale.device)
    covariance = gp.correlation(kernel, lag[:, None] - lag, time_scale[:, None, None])
    return list(torch.linalg.cholesky(covariance + jitter).mT)


def white_basis(kernel: str, time_scale: Tensor, n_bins: int) -> Bases:
    """Return the prior without correlation over time, whatever the kernel."""
    return [torch.eye(n_bins, dtype=time_scale.dtype, device=time_scale.device) for _ in time_scale]


def diagonal_over_coefficients(bases: Bases, sites: Sites) -> Posterior:
    """Return the best posterior (least KL to the exact one) with independent coefficients.

    It has the exact mean and the inverse of the diagonal of the exact precision.
    """
    precision = [1 + p @ g.square().T for g, p in zip(bases, sites.precision.unbind(dim=-1), strict=True)]
    return _with_whiteners(bases, sites, [torch.diag_embed(p.rsqrt()) for p in precision])


def diagonal_over_bins(bases: Bases, sites: Sites) -> Posterior:
    """Return the best posterior with independent bins; the bases must be square (`cholesky_basis`)."""
    whiteners = []
    for g, p in zip(bases, sites.precision.unbind(dim=-1), strict=True):
        identity = torch.eye(len(g), dtype=g.dtype, device=g.device)
        inverse = torch.linalg.solve_triangular(g, identity, upper=True)  # z = G' u, K = G' G
        variance = 1 / (inverse.square().sum(dim=1) + p)  # K^-1 = G^-1 G'^-1
        whiteners.append(variance.sqrt()[..., None] * inverse.expand(len(p), -1, -1))
    return _with_whiteners(bases, sites, whiteners)


def _with_whiteners(bases: Bases, sites: Sites, whiteners: list[Tensor]) -> Posterior:
    latents = []
    for g, p, h, w in zip(bases, *(x.unbind(dim=-1) for x in sites), whiteners, strict=True):
        mean = torch.linalg.solve(coefficient_precision(g, p), h @ g.T)
        latents.append(LatentPosterior(g, mean, w))
    return Posterior(tuple(latents))


INFERENCES = {
    "sites": Inference(prior_basis, posterior, product),
    "mean-field": Inference(prior_basis, diagonal_over_coefficients, product),
    "averaged": Inference(prior_basis, diagonal_over_coefficients, average),
    "time-domain": Inference(cholesky_basis, diagonal_over_bins, product),
    "independent": Inference(white_basis, posterior, product),
}
