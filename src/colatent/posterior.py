"""The sites posterior: what Gaussian sites per bin and a GP prior say about the latents.

Latent k is ``z_k(t) = sum_f G_k[f, t] u_kf`` with whitened coefficients ``u_k ~ N(0, I)`` and
``G_k = S_k^(1/2) B``, the real Fourier basis scaled by the root of the prior's spectral variances.
A site is a Gaussian factor ``exp(h z - p z^2 / 2)`` on one latent in one bin. The posterior of each
latent and trial is then exact (Rasmussen & Williams 2006, eq. 2.8, in weight space):

    u | sites ~ N(A^-1 G h, A^-1),    A = I + G diag(p) G'.

A bin without a site has ``p = h = 0``: gaps, ragged ends and missing modalities need no case of
their own.
"""

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

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


class Marginals(NamedTuple):
    """Mean and variance of each latent in each bin, each (trial, time, latent)."""

    mean: Tensor
    variance: Tensor

    def select(self, latent: Tensor) -> "Marginals":
        return Marginals(self.mean[..., latent], self.variance[..., latent])


def prior_basis(kernel: str, time_scale: Tensor, n_bins: int) -> Tensor:
    """Return the scaled Fourier basis ``G`` of each latent, shape (latent, coefficient, time).

    Every latent has its own circle and keeps only the coefficients that carry prior variance;
    rows of zeros fill up the shorter ones, which leaves each posterior exact.

    Args:
        kernel: one of ``gp.KERNELS``.
        time_scale: bins, shape (latent,); the result is differentiable in it.
        n_bins: number of bins of a trial.
    """
    rows = []
    for scale in time_scale.unbind():
        n_circle = gp.circle_bins(n_bins, float(scale.detach()), kernel)
        variance = gp.coefficient_variances(kernel, scale[None], n_circle)[0]
        n_kept = gp.n_coefficients(variance)
        basis = _fourier_basis(n_circle, n_bins, n_kept).to(scale)
        rows.append(variance[:n_kept, None].sqrt() * basis)
    return pad_sequence(rows, batch_first=True)


@lru_cache(maxsize=256)
def _fourier_basis(n_circle: int, n_bins: int, n_coefficients: int) -> Tensor:
    return torch.from_numpy(gp.fourier_basis(n_circle, n_bins, n_coefficients))


class Posterior(NamedTuple):
    """Gaussian posterior of the latents, independent over trials and latents.

    Attributes:
        basis: G, shape (latent, coefficient, time).
        coefficient_mean: E[u], shape (trial, latent, coefficient).
        whitener: W with W' W = A^-1 (the inverse Cholesky factor of A), lower triangular,
            shape (trial, latent, coefficient, coefficient).
    """

    basis: Tensor
    coefficient_mean: Tensor
    whitener: Tensor

    def mean(self) -> Tensor:
        """Posterior mean of the latents, shape (trial, time, latent)."""
        return torch.einsum("nkf,kft->ntk", self.coefficient_mean, self.basis)

    def variance(self) -> Tensor:
        """Posterior marginal variance of the latents, shape (trial, time, latent)."""
        return (self.whitener @ self.basis).square().sum(dim=-2).transpose(1, 2)

    def marginals(self) -> Marginals:
        """Posterior of each latent in each bin."""
        return Marginals(self.mean(), self.variance())

    def kl(self) -> Tensor:
        """KL divergence (nats) of the posterior from the prior, shape (trial, latent).

        (tr A^-1 + |E u|^2 - F + log |A|) / 2.
        """
        n_coefficients = self.basis.shape[1]
        trace = self.whitener.square().sum(dim=(-2, -1))
        log_det = -2 * self.whitener.diagonal(dim1=-2, dim2=-1).log().sum(dim=-1)
        return 0.5 * (trace + self.coefficient_mean.square().sum(dim=-1) - n_coefficients + log_det)

    def sample(self, noise: Tensor) -> Tensor:
        """Map standard normal ``noise`` to joint samples of the latents.

        Args:
            noise: shape (sample, trial or 1, latent, coefficient).

        Returns:
            Shape (sample, trial, time, latent).
        """
        deviation = torch.einsum("snkg,nkgf->snkf", noise, self.whitener)
        return torch.einsum("snkf,kft->sntk", self.coefficient_mean + deviation, self.basis)


def posterior(basis: Tensor, sites: Sites) -> Posterior:
    """Return the exact posterior of every latent and trial.

    Args:
        basis: G, shape (latent, coefficient, time), see `prior_basis`.
        sites: of all modalities together.
    """
    precision, linear = (site.transpose(1, 2) for site in sites)
    identity = torch.eye(basis.shape[1], dtype=basis.dtype, device=basis.device)
    a = identity + (basis * precision[:, :, None, :]) @ basis.transpose(1, 2)
    whitener = torch.linalg.solve_triangular(torch.linalg.cholesky(a), identity, upper=False)
    projected = torch.einsum("kft,nkt->nkf", basis, linear)
    mean = torch.einsum("nkgf,nkg->nkf", whitener, torch.einsum("nkgf,nkf->nkg", whitener, projected))
    return Posterior(basis, mean, whitener)
