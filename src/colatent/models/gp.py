"""Gaussian-process priors in the real Fourier basis of a circle.

A stationary GP on equally spaced bins is embedded in a circle of ``n_circle`` bins, enough longer than
the trial that its ends are uncorrelated across the wrap. On the circle the covariance is diagonal in
the real Fourier basis: coefficient ``f`` has variance ``S(w_f)``, the kernel's spectral density
(Wilson & Nickisch 2015; Keeley et al. 2020; Gondur et al. 2024, section 3). Time is measured in bins.

Order of the coefficients: constant, cos 1, sin 1, cos 2, sin 2, ... Circles have an odd number
of bins, which avoids an unpaired Nyquist coefficient.
"""

import math
from functools import cache

import numpy as np
import torch
from scipy.fft import next_fast_len
from torch import Tensor

KERNELS = ("squared-exponential", "matern-3/2", "matern-5/2")


def correlation(kernel: str, lag: Tensor, time_scale: Tensor) -> Tensor:
    """Return the unit-variance kernel at ``lag`` (in the unit of ``time_scale``).

    squared exponential: exp(-r^2/2); Matern 3/2: (1+a) exp(-a), a = sqrt(3) r;
    Matern 5/2: (1+a+a^2/3) exp(-a), a = sqrt(5) r, with r = |lag| / time_scale
    (Rasmussen & Williams 2006, eqs 4.9, 4.17).
    """
    r = lag.abs() / time_scale
    if kernel == "squared-exponential":
        return torch.exp(-0.5 * r**2)
    if kernel == "matern-3/2":
        a = math.sqrt(3) * r
        return (1 + a) * torch.exp(-a)
    if kernel == "matern-5/2":
        a = math.sqrt(5) * r
        return (1 + a + a**2 / 3) * torch.exp(-a)
    raise ValueError(f"unknown kernel {kernel!r}; choose one of {', '.join(KERNELS)}")


@cache
def reach(kernel: str, tolerance: float) -> float:
    """Return the lag, in time scales, at which the correlation has fallen to ``tolerance``."""
    lags = torch.linspace(0.0, 60.0, 6001, dtype=torch.float64)
    beyond = correlation(kernel, lags, torch.tensor(1.0, dtype=torch.float64)) < tolerance
    return float(lags[beyond][0]) if beyond.any() else float(lags[-1])


def circle_bins(
    n_bins: int, longest_time_scale: float, kernel: str = "squared-exponential", tolerance: float = 1e-6
) -> int:
    """Return an odd, FFT-friendly circle size whose wrap-around correlation is below ``tolerance``."""
    n_circle = n_bins + math.ceil(reach(kernel, tolerance) * longest_time_scale)
    while (n_circle := next_fast_len(n_circle)) % 2 == 0:
        n_circle += 1
    return n_circle


def coefficient_variances(kernel: str, time_scale: Tensor, n_circle: int) -> Tensor:
    """Return the prior variances of the Fourier coefficients, shape (latent, n_circle).

    They are the discrete Fourier transform of the kernel wrapped round the circle, that is the spectral
    density including aliases, so that the covariance on the bins is exactly the kernel, however rough.
    Differentiable in ``time_scale`` (bins, shape (latent,)).
    """
    lag = torch.arange(n_circle, dtype=time_scale.dtype, device=time_scale.device)
    scale = time_scale[:, None]
    wrapped = sum(correlation(kernel, lag + turn * n_circle, scale) for turn in (-1, 0, 1))
    spectrum = torch.fft.rfft(wrapped, dim=-1).real.clamp_min(0.0)
    pairs = spectrum[:, 1:].repeat_interleave(2, dim=-1)
    return torch.cat([spectrum[:, :1], pairs], dim=-1)


def n_coefficients(variances: np.ndarray | Tensor, tolerance: float = 1e-5) -> int:
    """Return how many leading coefficients to keep so that none above the threshold is lost.

    The threshold is ``tolerance`` times the largest variance. The number is odd: the constant and whole
    cosine-sine pairs.
    """
    v = variances.detach().cpu().numpy() if isinstance(variances, Tensor) else np.asarray(variances)
    kept = np.flatnonzero((v > tolerance * v.max(axis=-1, keepdims=True)).any(axis=tuple(range(v.ndim - 1))))
    last = int(kept[-1])
    return last + 1 + (last % 2)


def fourier_basis(n_circle: int, bins: np.ndarray | int, n_coef: int | None = None) -> np.ndarray:
    """Return the orthonormal real Fourier rows at ``bins``, shape (coefficient, bin), float64.

    ``bins`` is an array of bin indices on the circle, or a count for ``0 .. bins-1``.
    """
    if n_circle % 2 == 0:
        raise ValueError(f"n_circle must be odd, not {n_circle}")
    n_coef = n_circle if n_coef is None else min(n_coef, n_circle)
    t = np.arange(bins) if isinstance(bins, int) else np.asarray(bins)
    index = np.arange(n_coef)
    frequency = (index + 1) // 2
    phase = (2 * np.pi / n_circle) * ((frequency[:, None] * t[None, :]) % n_circle)
    rows = np.where((index % 2 == 1)[:, None], np.cos(phase), np.sin(phase)) * math.sqrt(2 / n_circle)
    rows[0] = math.sqrt(1 / n_circle)
    return rows


def shifted_basis(n_circle: int, n_bins: int, coef: Tensor, delay: Tensor) -> tuple[Tensor, Tensor]:
    """Return b(t - D) at the bins ``0 .. n_bins - 1`` and its derivative by D, both (bin, column).

    Args:
        coef: index of the Fourier coefficient of each column (column,).
        delay: D in bins, any real number (column,), or one for all.
    """
    frequency = (2 * math.pi / n_circle) * torch.div(coef + 1, 2, rounding_mode="floor")
    time = torch.arange(n_bins, dtype=torch.float64, device=coef.device)
    phase = frequency * (time[:, None] - delay)
    cosine, sine = torch.cos(phase), torch.sin(phase)
    is_cosine = coef % 2 == 1
    scale = math.sqrt(2 / n_circle)
    basis = torch.where(is_cosine, cosine, sine) * scale
    basis[:, coef == 0] = math.sqrt(1 / n_circle)
    slope = torch.where(is_cosine, sine, -cosine) * frequency * scale
    slope[:, coef == 0] = 0.0
    return basis, slope
