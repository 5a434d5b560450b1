"""Posterior over the latents' Fourier coefficients when the missing channels change within trials.

The posterior precision (see `solvers`) is then a sum over bins, each with its own M_t:

    A = I + sum_t x_t x_t' o M_t,   x_t = D b_t,

where ``o`` multiplies each entry by the entry of M_t for the latents of its row and column. Matrix products
and Cholesky factorisations are batched over patterns.

Shapes: G patterns, K kept coefficients of all latents, N trials, T bins, q latents, J channel masks.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from colatent.models.gp import fourier_basis
from colatent.models.gpfa.padded_trials import Pattern, channel_masks
from colatent.models.gpfa.solvers import Moments, kept_coefficients

_CHUNK = 2**23  # numbers in the largest array of a batch: limits memory


class ScatteredSolver:
    """Cholesky factorisation of the full precision, batched over patterns."""

    def __init__(self, patterns: Sequence[Pattern], n_circle: int, device: torch.device):
        self.n_circle = n_circle
        self.device = device
        self.mask_of_bin = torch.as_tensor(channel_masks(patterns)[1], device=device)  # (G, T)
        self.size = torch.tensor([len(p.trial) for p in patterns], device=device)
        self.column = trial_columns(self.size)

    def moments(self, h: Tensor, precision: Tensor, variances: Tensor) -> Moments:
        latent, coef, root = kept_coefficients(variances)
        bins = torch.arange(self.mask_of_bin.shape[1], device=self.device)
        x = self._scaled_basis(variances, bins)
        natural = self._natural(h, variances)
        whitened = torch.zeros_like(natural)
        at_bins = h.new_zeros(len(precision) + 1, *precision.shape[1:])  # the last: nothing observed
        relevance = torch.zeros_like(root)
        log_det = h.new_zeros(())
        for group in batches(len(self.size), *x.shape):
            factor = self._factor(group, x, precision, latent)
            column, size = self.column[group], self.size[group]
            u = torch.cholesky_solve(natural[:, column].transpose(0, 1), factor)  # (G, K, N of each)
            whitened[:, column] = u.transpose(0, 1)
            second = torch.cholesky_inverse(factor).mul_(size[:, None, None]).baddbmm_(u, u.mT)
            relevance += second.diagonal(dim1=1, dim2=2).sum(0)
            blocks = blocks_at(second, x, x, latent, precision.shape[1])
            at_bins.index_add_(0, self.mask_of_bin[group].flatten() % len(at_bins), blocks.flatten(0, 1))
            log_det += 2 * (size * factor.diagonal(dim1=1, dim2=2).log().sum(1)).sum()
        mean = torch.zeros_like(h)
        mean[coef, latent] = root[:, None] * whitened[:, :-1]
        full = h.new_full(variances.shape, h.shape[2])
        full[latent, coef] = relevance
        return Moments(mean, log_det, at_bins[:-1], full)

    def mean(self, h: Tensor, precision: Tensor, variances: Tensor) -> Tensor:
        latent, coef, root = kept_coefficients(variances)
        bins = torch.arange(self.mask_of_bin.shape[1], device=self.device)
        x = self._scaled_basis(variances, bins)
        natural = self._natural(h, variances)
        for group in batches(len(self.size), *x.shape):
            column, factor = self.column[group], self._factor(group, x, precision, latent)
            u = torch.cholesky_solve(natural[:, column].transpose(0, 1), factor)
            natural[:, column] = u.transpose(0, 1)
        mean = torch.zeros_like(h)
        mean[coef, latent] = root[:, None] * natural[:, :-1]
        return mean

    def bin_covariance(self, precision: Tensor, variances: Tensor, bins: Tensor) -> Tensor:
        latent = kept_coefficients(variances)[0]
        observed = torch.arange(self.mask_of_bin.shape[1], device=self.device)
        x, wanted = (self._scaled_basis(variances, b) for b in (observed, bins))
        n_patterns, q = len(self.size), precision.shape[1]
        out = precision.new_empty(n_patterns, len(bins), q, q)
        for group in batches(len(self.size), *x.shape):
            inverse = torch.cholesky_inverse(self._factor(group, x, precision, latent))
            out[group] = blocks_at(inverse, wanted, wanted, latent, q)
        return out

    def _scaled_basis(self, variances: Tensor, bins: Tensor) -> Tensor:
        """Rows x_t = D b_t (T, K)."""
        _, coef, root = kept_coefficients(variances)
        basis = fourier_basis(self.n_circle, bins.cpu().numpy(), variances.shape[1])
        return (root[:, None] * torch.as_tensor(basis, device=self.device)[coef]).T.contiguous()

    def _natural(self, h: Tensor, variances: Tensor) -> Tensor:
        """D h of the kept coefficients (K, N + 1), the last column zero."""
        latent, coef, root = kept_coefficients(variances)
        return torch.nn.functional.pad(root[:, None] * h[coef, latent], (0, 1))

    def _factor(self, group: slice, x: Tensor, precision: Tensor, latent: Tensor) -> Tensor:
        """Cholesky factors of A (G, K, K)."""
        nothing = torch.zeros_like(precision[:1])
        a = weighted_gram(x, torch.cat([precision, nothing])[self.mask_of_bin[group]], latent)
        a.diagonal(dim1=1, dim2=2).add_(1.0)
        return torch.linalg.cholesky(a)


def trial_columns(size: Tensor) -> Tensor:
    """Return the positions of each pattern's trials (G, most), padded with N (a column of zeros)."""
    place = torch.arange(int(size.max()), device=size.device)
    start = size.cumsum(0) - size
    return torch.where(place < size[:, None], start[:, None] + place, int(size.sum()))


def batches(n_patterns: int, n_bins: int, n_coef: int) -> Iterator[slice]:
    """Yield batches of patterns that fit in memory."""
    step = max(1, _CHUNK // (n_coef * max(n_bins, n_coef)))
    for start in range(0, n_patterns, step):
        yield slice(start, min(start + step, n_patterns))


def weighted_gram(x: Tensor, of_bin: Tensor, latent: Tensor) -> Tensor:
    """Return sum_t x_t x_t' o M_t (G, K, K) for M_t (G, T, q, q)."""
    rows = []
    for k in range(of_bin.shape[2]):  # one latent's rows at a time, as matrix products
        weight = of_bin[:, :, k][:, :, latent]
        rows.append(x[:, latent == k].T @ (weight.mul_(x)))
    return torch.cat(rows, dim=1)


def blocks_at(matrices: Tensor, left: Tensor, right: Tensor, latent: Tensor, n_latents: int) -> Tensor:
    """Return left_t' (matrix) right_t for each pair of latents (G, T, q, q), for matrices (G, K, K)."""
    member = torch.nn.functional.one_hot(latent, n_latents).to(left.dtype)
    rows = [
        ((left[:, latent == k] @ matrices[:, latent == k]).mul_(right)) @ member  # (G, T, q)
        for k in range(n_latents)
    ]
    return torch.stack(rows, dim=2)
