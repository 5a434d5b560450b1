"""Posterior over the latents' Fourier coefficients when only whole bins, or whole channels, are missing.

Given the natural parameters of the observations, h = sum_t b_t (x) C' R^-1 (y_t - d), the
coefficients x have the posterior precision S^-1 + sum_t b_t b_t' (x) M_t, where b_t is the Fourier
basis at bin t, S the diagonal prior covariance and M_t = C' diag(observed_t / R) C. With
D = S^(1/2), A = I + D (sum_t b_t b_t' (x) M_t) D:

    mean = D A^-1 D h,   covariance = D A^-1 D,   log p(y) = (h' mean - log|A|) / 2 + ...

There are two exact solvers for an M_t that is the same M in every observed bin (if it changes within
trials, see `scattered`). ``DenseSolver`` factorises A for each observation pattern. ``CirculantSolver``
starts from a fully observed circle, where A is block-diagonal, and then corrects for the unobserved
bins, at a cost that is linear in trial length.

Shapes: F coefficients, N trials, q latents, J channel masks, U unobserved bins, P bins in the circle.
"""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from colatent.models.gp import fourier_basis
from colatent.models.gpfa.padded_trials import Pattern

# Matrix-product operations that take as long as one operation of a strided FFT (measured).
_FFT_PAYS = 20


class Moments(NamedTuple):
    """Posterior moments for the marginal likelihood and its gradient.

    Attributes:
        mean: posterior mean of the coefficients (F, q, N).
        log_det: sum over trials of log|A|.
        scatter: sum over trials and over the bins with each channel mask of E[z z'] (J, q, q).
        relevance: sum over trials of E[x^2] / S for each coefficient (q, F).
    """

    mean: Tensor
    log_det: Tensor
    scatter: Tensor
    relevance: Tensor


Kept = tuple[Tensor, Tensor, Tensor]  # latent, frequency index, prior s.d. of each kept coefficient


class Solver(Protocol):
    """Posterior of the coefficients for the trials of one chain of patterns."""

    def moments(self, h: Tensor, precision: Tensor, variances: Tensor) -> Moments:
        """Return the moments for h (F, q, N), precisions M (J, q, q) and S (q, F)."""
        ...

    def mean(self, h: Tensor, precision: Tensor, variances: Tensor) -> Tensor:
        """Return the posterior mean of the coefficients (F, q, N)."""
        ...

    def bin_covariance(self, precision: Tensor, variances: Tensor, bins: Tensor) -> Tensor:
        """Return the posterior covariance between latents at each of ``bins``, (pattern, bin, q, q)."""
        ...


def to_coefficients(values: Tensor, n_circle: int) -> Tensor:
    """Project time series (T, ...) onto the real Fourier basis, (n_circle, ...)."""
    spectrum = torch.fft.rfft(values, n=n_circle, dim=0)
    out = values.new_empty((n_circle, *values.shape[1:]))
    torch.mul(spectrum.real[0], math.sqrt(1 / n_circle), out=out[0])
    torch.mul(spectrum.real[1:], math.sqrt(2 / n_circle), out=out[1::2])
    torch.mul(spectrum.imag[1:], -math.sqrt(2 / n_circle), out=out[2::2])
    return out


def to_leading_coefficients(values: Tensor, n_circle: int, n_coef: int) -> Tensor:
    """Project trials (N, T, p) onto the first rows of the real Fourier basis, (N, n_coef, p)."""
    n_bins = values.shape[1]
    if n_coef * n_bins > _FFT_PAYS * n_circle * math.log2(n_circle):
        return to_coefficients(values.transpose(0, 1), n_circle)[:n_coef].transpose(0, 1)
    basis = torch.as_tensor(fourier_basis(n_circle, n_bins, n_coef), device=values.device)
    return basis @ values


def to_bins(coefficients: Tensor, n_circle: int) -> Tensor:
    """Return the time series on the circle (n_circle, ...) for leading coefficients (F, ...)."""
    real = torch.cat([coefficients[:1] * math.sqrt(2), coefficients[1::2]])
    imag = torch.cat([torch.zeros_like(coefficients[:1]), -coefficients[2::2]])
    return torch.fft.irfft(torch.complex(real, imag), n=n_circle, dim=0) * math.sqrt(n_circle / 2)


class DenseSolver:
    """Cholesky factorisation of the full precision for each pattern."""

    def __init__(self, patterns: Sequence[Pattern], n_circle: int, device: torch.device):
        self.n_circle = n_circle
        self.device = device
        self.columns = _columns(patterns, device)
        self._grams = _GramCache(patterns, n_circle, device)

    def moments(self, h: Tensor, precision: Tensor, variances: Tensor) -> Moments:
        kept = kept_coefficients(variances)
        latent, coef, root = kept
        n_latents, n_coef = variances.shape
        member = torch.nn.functional.one_hot(latent, n_latents).to(h.dtype)
        natural = root[:, None] * h[coef, latent]
        whitened = torch.empty_like(natural)
        scatter = torch.zeros_like(precision)
        relevance = h.new_zeros(len(root))
        log_det = h.new_zeros(())
        for gram, column in zip(self._grams(n_coef), self.columns, strict=True):
            factor = _factor(gram, precision[0], kept)
            inverse = torch.cholesky_inverse(factor)
            u = inverse @ natural[:, column]
            whitened[:, column] = u
            second = inverse.mul_(u.shape[1]).addmm_(u, u.T)
            relevance += second.diagonal()
            second *= root[:, None] * root
            scatter[0] += member.T @ (gram[coef[:, None], coef] * second) @ member
            log_det += 2 * u.shape[1] * factor.diagonal().log().sum()
        mean = torch.zeros_like(h)
        mean[coef, latent] = root[:, None] * whitened
        full = h.new_full((n_latents, n_coef), h.shape[2])
        full[latent, coef] = relevance
        return Moments(mean, log_det, scatter, full)

    def mean(self, h: Tensor, precision: Tensor, variances: Tensor) -> Tensor:
        kept = kept_coefficients(variances)
        latent, coef, root = kept
        mean = torch.zeros_like(h)
        natural = root[:, None] * h[coef, latent]
        for gram, column in zip(self._grams(variances.shape[1]), self.columns, strict=True):
            natural[:, column] = torch.cholesky_solve(natural[:, column], _factor(gram, precision[0], kept))
        mean[coef, latent] = root[:, None] * natural
        return mean

    def bin_covariance(self, precision: Tensor, variances: Tensor, bins: Tensor) -> Tensor:
        kept = kept_coefficients(variances)
        latent, coef, root = kept
        basis = fourier_basis(self.n_circle, bins.cpu().numpy(), variances.shape[1])
        right = root[:, None] * torch.as_tensor(basis, device=self.device)[coef]
        per_latent = [right * (latent == k)[:, None] for k in range(len(variances))]
        right = torch.stack(per_latent, dim=-1).flatten(1)  # columns (bin, latent)
        out = []
        for gram in self._grams(variances.shape[1]):
            factor = _factor(gram, precision[0], kept)
            half = torch.linalg.solve_triangular(factor, right, upper=False)
            half = half.view(len(root), len(bins), -1)
            out.append(torch.einsum("itk,itl->tkl", half, half))
        return torch.stack(out)


class _GramCache:
    """Gram matrices sum_t b_t b_t' (F, F) over the observed bins of each pattern.

    Cached if they fit in ``BYTES``, otherwise recomputed at each use.
    """

    BYTES = 2**28

    def __init__(self, patterns: Sequence[Pattern], n_circle: int, device: torch.device):
        self.patterns, self.n_circle, self.device = patterns, n_circle, device
        self.n_coef = 0
        self.grams: list[Tensor] = []

    def __call__(self, n_coef: int) -> Iterator[Tensor]:
        """Yield the Gram matrix of each pattern."""
        if 8 * n_coef**2 * len(self.patterns) > self.BYTES:
            yield from (self._of_pattern(i, n_coef) for i in range(len(self.patterns)))
            return
        if n_coef > self.n_coef:
            self.n_coef = min(self.n_circle, n_coef + n_coef // 4)  # room for shorter time scales
            self.grams = [self._of_pattern(i, self.n_coef) for i in range(len(self.patterns))]
        yield from self.grams

    def _of_pattern(self, i: int, n_coef: int) -> Tensor:
        bins = self.patterns[i].bins
        basis = torch.as_tensor(fourier_basis(self.n_circle, bins, n_coef), device=self.device)
        return basis @ basis.T


def _columns(patterns: Sequence[Pattern], device: torch.device) -> list[Tensor]:
    """Return the positions of each pattern's trials in the concatenation of all patterns."""
    ends = np.cumsum([len(p.trial) for p in patterns])
    return [
        torch.arange(end - len(p.trial), end, device=device)
        for p, end in zip(patterns, ends.tolist(), strict=True)
    ]


def kept_coefficients(variances: Tensor) -> Kept:
    """Return latent index, frequency index and prior s.d. of all coefficients with non-zero variance."""
    latent, coef = variances.nonzero(as_tuple=True)
    return latent, coef, variances[latent, coef].sqrt()


def _factor(gram: Tensor, precision: Tensor, kept: Kept) -> Tensor:
    """Return the Cholesky factor of A = I + D (gram (x) M) D."""
    latent, coef, root = kept
    a = gram[coef[:, None], coef] * precision[latent[:, None], latent]
    a *= root[:, None] * root
    a.diagonal().add_(1.0)
    return torch.linalg.cholesky(a)


class CirculantSolver:
    """Block-diagonal precision of the full circle, corrected for the bins without observations.

    If every bin of the circle were observed, the posterior covariance would be one q x q block
    K_f = (S_f^-1 + M)^-1 per frequency, and the covariance in time kappa(lag) its inverse FFT.
    The correction for the unobserved bins U needs W = I - L' kappa(u - u') L over U, with M = L L'.

    ``unobserved`` is ordered so that the unobserved bins of every pattern in the chain come first.
    Their matrices are then leading blocks of one W, so that one Cholesky factor serves all lengths.
    """

    def __init__(self, patterns: Sequence[Pattern], n_circle: int, device: torch.device):
        shortest = np.zeros(n_circle, dtype=bool)
        shortest[patterns[-1].bins] = True
        unobserved = np.flatnonzero(~shortest)[::-1].copy()
        self.n_circle = n_circle
        self.unobserved = torch.as_tensor(unobserved, device=device)
        self.lag = (self.unobserved[:, None] - self.unobserved) % n_circle
        missing = [n_circle - len(p.bins) for p in patterns]
        sizes = [len(p.trial) for p in patterns]
        rank = torch.arange(len(unobserved), device=device)
        self.is_missing = torch.stack([rank < m for m in missing])  # (pattern, U)
        self.is_missing_in_trial = self.is_missing.repeat_interleave(
            torch.as_tensor(sizes, device=device), dim=0
        ).T  # (U, N)
        self.n_missing = self.is_missing_in_trial.sum(1).to(torch.float64)  # (U,) trials

    def moments(self, h: Tensor, precision: Tensor, variances: Tensor) -> Moments:
        q, n_trials = h.shape[1:]
        k, log_det_n = _blocks(variances, precision[0])
        half = _half(precision[0])
        factor = self._correction(k, half)
        gap, mean = self._mean(h, k, half, factor)
        w_inv_half = _inverse(factor)

        weight = self.n_missing.repeat_interleave(q)
        # sum over patterns of W^-1, whose factors are leading blocks of w_inv_half
        w_inv = (w_inv_half.T * weight) @ w_inv_half
        blocks = w_inv.view(-1, q, len(self.lag), q).transpose(1, 2)
        lag_sum = h.new_zeros(self.n_circle, q, q)
        lag_sum.index_add_(0, self.lag.reshape(-1), blocks.reshape(-1, q, q))
        spectrum = torch.fft.rfft(lag_sum, dim=0).real[: len(k)] / self.n_circle
        spectrum = half @ spectrum @ half.T
        covariance = n_trials * k + k @ spectrum @ k

        square = (mean**2).sum(2)
        relevance = _per_coefficient(covariance.diagonal(dim1=1, dim2=2)) + square
        relevance = torch.where(variances > 0, relevance.T / variances, n_trials)
        everywhere = 2 * covariance.sum(0) - covariance[0] + _outer_sum(mean)
        at_missing = blocks.diagonal(dim1=0, dim2=1).sum(-1) + _outer_sum(gap)
        at_missing.diagonal().sub_(self.n_missing.sum())
        # half' (sum of E[z z'] over U) half = W^-1 - I + the outer product of W^-1 r
        left = torch.linalg.solve_triangular(half.T, at_missing, upper=True)
        at_missing = torch.linalg.solve_triangular(half.T, left.T, upper=True)
        log_det = n_trials * log_det_n + 2 * (weight * factor.diagonal().log()).sum()
        return Moments(mean, log_det, (everywhere - at_missing)[None], relevance)

    def mean(self, h: Tensor, precision: Tensor, variances: Tensor) -> Tensor:
        k, _ = _blocks(variances, precision[0])
        half = _half(precision[0])
        return self._mean(h, k, half, self._correction(k, half))[1]

    def bin_covariance(self, precision: Tensor, variances: Tensor, bins: Tensor) -> Tensor:
        k, _ = _blocks(variances, precision[0])
        half = _half(precision[0])
        w_inv_half = _inverse(self._correction(k, half))
        kappa = torch.fft.irfft(k, n=self.n_circle, dim=0)
        q = len(half)
        out = kappa[0].expand(len(self.is_missing), len(bins), q, q).clone()
        weight = self.is_missing.repeat_interleave(q, dim=1).to(kappa.dtype)
        step = max(1, 2**22 // (q * q * len(self.unobserved)))  # bounds the memory
        for start in range(0, len(bins), step):
            lag = (self.unobserved[:, None] - bins[start : start + step]) % self.n_circle
            cross = (half.T @ kappa[lag]).permute(0, 2, 1, 3).reshape(len(w_inv_half), -1)
            y = (w_inv_half @ cross).view(len(w_inv_half), -1, q)
            out[:, start : start + step] += torch.einsum("gi,itk,itl->gtkl", weight, y, y)
        return out

    def _correction(self, k: Tensor, half: Tensor) -> Tensor:
        """Return the Cholesky factor of W."""
        kappa = half.T @ torch.fft.irfft(k, n=self.n_circle, dim=0) @ half
        size = len(self.lag) * len(half)
        w = kappa[self.lag].transpose(1, 2).reshape(size, size).neg_()
        w.diagonal().add_(1.0)
        return torch.linalg.cholesky(w)

    def _mean(self, h: Tensor, k: Tensor, half: Tensor, factor: Tensor) -> tuple[Tensor, Tensor]:
        """Return half' z at the unobserved bins (U, q, N) and the mean of the coefficients."""
        q = len(half)
        block = _per_coefficient(k)
        full_circle = to_bins(block @ h, self.n_circle)[self.unobserved]
        residual = (half.T @ full_circle).view(len(factor), -1)
        # zeros past a trial's own unobserved bins restrict the solve to its leading block of W
        gap = torch.linalg.solve_triangular(factor, residual, upper=False)
        gap *= self.is_missing_in_trial.repeat_interleave(q, dim=0)
        gap = torch.linalg.solve_triangular(factor.T, gap, upper=True)
        gap = gap.view(-1, *h.shape[1:])
        filled = h.new_zeros(self.n_circle, *h.shape[1:])
        filled[self.unobserved] = half @ gap
        return gap, block @ (h + to_coefficients(filled, self.n_circle)[: len(h)])


def _per_coefficient(per_frequency: Tensor) -> Tensor:
    """Repeat the values of each frequency (frequency, ...) for its cosine and sine, (F, ...)."""
    return torch.cat([per_frequency[:1], per_frequency[1:].repeat_interleave(2, dim=0)])


def _outer_sum(values: Tensor) -> Tensor:
    """Sum outer products z z' over the first axis and trials, for values (..., latent, trial)."""
    return (values @ values.transpose(1, 2)).sum(0)


def _half(precision: Tensor) -> Tensor:
    """Return the Cholesky factor of M, with jitter for latents whose loadings have shrunk to zero."""
    jitter = 1e-12 * precision.diagonal().mean() + 1e-30
    return torch.linalg.cholesky(precision + jitter * torch.eye(len(precision)).to(precision))


def _inverse(factor: Tensor) -> Tensor:
    """Return the inverse of a lower triangular matrix."""
    identity = torch.eye(len(factor), dtype=factor.dtype, device=factor.device)
    return torch.linalg.solve_triangular(factor, identity, upper=False)


def _blocks(variances: Tensor, precision: Tensor) -> tuple[Tensor, Tensor]:
    """Return each frequency's posterior covariance K_f on the full circle, and log|A| there."""
    per_frequency = torch.cat([variances[:, :1], variances[:, 1::2]], dim=1).T
    root = per_frequency.sqrt()
    n = root[:, :, None] * precision * root[:, None, :]
    n.diagonal(dim1=1, dim2=2).add_(1.0)
    factor = torch.linalg.cholesky(n)
    k = root[:, :, None] * torch.cholesky_inverse(factor) * root[:, None, :]
    log_det = 2 * factor.diagonal(dim1=1, dim2=2).log().sum(1)
    return k, 2 * log_det.sum() - log_det[0]


def operations(patterns: Sequence[Pattern], n_circle: int, counts: Sequence[int]) -> tuple[float, float]:
    """Return the floating-point operations per evaluation of the dense and the circulant solver.

    Args:
        patterns: chain of patterns.
        n_circle: bins in the circle.
        counts: Fourier coefficients kept for each latent.
    """
    n_trials = sum(len(p.trial) for p in patterns)
    size, q = float(sum(counts)), len(counts)
    dense = len(patterns) * (1.6 * size**3 + 8 * size**2) + 2 * n_trials * size**2
    gap = float(q * (n_circle - len(patterns[-1].bins)))
    transforms = 20.0 * n_trials * q * n_circle * math.log2(n_circle)
    circulant = 1.7 * gap**3 + 20 * gap**2 + 4 * n_trials * gap**2 + transforms + 20.0 * n_circle * q**3
    return dense, circulant
