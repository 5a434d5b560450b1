"""From the modalities' sites to a posterior: exact inference, and alternatives for comparison.

An `Inference` combines three choices: the basis of the prior, the form of the posterior over its
coefficients, and how sites of several modalities on the same latent are combined. `INFERENCES` lists
them by name: ``sites`` is exact; ``mean-field`` and ``averaged`` follow Gondur et al. (2024) (a
diagonal Gaussian over Fourier coefficients; shared latents averaged over encoders); ``time-domain`` is
the GP-VAE with a Gaussian that is diagonal over bins (Casale et al. 2018, Pearce 2020);
``independent`` is the plain VAE, without a prior over time.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from colatent.models import gp
from colatent.models.mmgpvae.posterior import (
    LatentBlock,
    Posterior,
    Sites,
    by_latent,
    coefficient_mean,
    posterior,
    prior_basis,
)

# The covariance of a slow latent over the bins is numerically singular without it.
JITTER = 1e-4


@dataclass(frozen=True)
class Inference:
    """A way of inferring the posterior from the sites.

    Attributes:
        basis: (kernel, time scales in bins, number of bins) -> G of each latent, (latent, coefficient, time).
        posterior: (bases, sites) -> posterior.
        combine: sites of each modality -> combined sites.
        joint: whether the latents of given trials are inferred together, from the decoders (`joint`).
    """

    basis: Callable[[str, Tensor, int], Tensor]
    posterior: Callable[[Tensor, Sites], Posterior]
    combine: Callable[[list[Sites]], Sites]
    joint: bool = False


def product(sites: list[Sites]) -> Sites:
    """Return the product of the sites, whose natural parameters add up."""
    return Sites(*(torch.stack(parts).sum(dim=0) for parts in zip(*sites, strict=True)))


def average(sites: list[Sites]) -> Sites:
    """Return the mean of the sites over the modalities with a site on that bin and latent."""
    n = torch.stack([s.precision > 0 for s in sites]).sum(dim=0).clamp_min(1)
    return Sites(*(x / n for x in product(sites)))


def cholesky_basis(kernel: str, time_scale: Tensor, n_bins: int) -> Tensor:
    """Return the transposed Cholesky factor of each latent's covariance over the bins."""
    lag = torch.arange(n_bins, dtype=time_scale.dtype, device=time_scale.device)
    jitter = JITTER * torch.eye(n_bins, dtype=time_scale.dtype, device=time_scale.device)
    covariance = gp.correlation(kernel, lag[:, None] - lag, time_scale[:, None, None])
    return torch.linalg.cholesky(covariance + jitter).mT


def white_basis(kernel: str, time_scale: Tensor, n_bins: int) -> Tensor:
    """Return the basis of a prior that is white in time; the kernel is ignored."""
    identity = torch.eye(n_bins, dtype=time_scale.dtype, device=time_scale.device)
    return identity.expand(len(time_scale), -1, -1)


def diagonal_over_coefficients(bases: Tensor, sites: Sites) -> Posterior:
    """Return the posterior with independent coefficients that minimises KL(q || exact posterior).

    Its mean is exact and its variances are the inverse of the diagonal of the exact precision.
    """
    precision = 1 + by_latent(sites.precision) @ bases.square().mT
    return _in_one_block(bases, sites, torch.diag_embed(precision.rsqrt()))


def diagonal_over_bins(bases: Tensor, sites: Sites) -> Posterior:
    """Return the same with independent bins; the bases must be square (`cholesky_basis`)."""
    identity = torch.eye(bases.shape[1], dtype=bases.dtype, device=bases.device)
    inverse = torch.linalg.solve_triangular(bases, identity, upper=True)  # z = G' u, K = G' G
    precision = inverse.square().sum(dim=2)[:, None] + by_latent(sites.precision)  # K^-1 = G^-1 G'^-1
    whitener = precision.rsqrt()[..., None] * inverse[:, None]
    return _in_one_block(bases, sites, whitener)


def _in_one_block(bases: Tensor, sites: Sites, whitener: Tensor) -> Posterior:
    every = torch.arange(len(bases), device=bases.device)
    return Posterior((LatentBlock(every, bases, coefficient_mean(bases, sites), whitener),))


INFERENCES = {
    "sites": Inference(prior_basis, posterior, product, joint=True),
    "mean-field": Inference(prior_basis, diagonal_over_coefficients, product),
    "averaged": Inference(prior_basis, diagonal_over_coefficients, average),
    "time-domain": Inference(cholesky_basis, diagonal_over_bins, product),
    "independent": Inference(white_basis, posterior, product),
}
