"""The prior of the latents in the Fourier basis of a circle that is long enough for it."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from colatent.models import gp

_LARGEST_FFT_FACTOR = 31
_CPU = torch.device("cpu")


@dataclass(frozen=True)
class Prior:
    """The kernel and its Fourier representation.

    Attributes:
        kernel: one of ``gp.KERNELS``.
        tolerance: coefficients below this share of the largest variance are dropped, and the circle is
            long enough for the wrap-around correlation to stay below it.
        device: device on which posteriors are computed.
    """

    kernel: str
    tolerance: float
    device: torch.device = _CPU

    def extension(self, longest_time_scale: float) -> int:
        """Return the number of bins beyond which latents are uncorrelated, up to the tolerance."""
        return math.ceil(gp.reach(self.kernel, self.tolerance) * longest_time_scale)

    def n_circle(self, n_bins: int, longest_time_scale: float) -> int:
        """Return the circle size for trials of ``n_bins``: odd, and without large prime factors.

        Products of only the smallest primes would give faster FFTs, but among odd numbers they are far
        apart, and every bin added to the circle is one more unobserved bin to correct for.
        """
        n_circle = n_bins + self.extension(longest_time_scale)
        n_circle += 1 - n_circle % 2
        while _largest_prime_factor(n_circle) > _LARGEST_FFT_FACTOR:
            n_circle += 2
        return n_circle

    def variances(self, log_time_scale: Tensor, n_circle: int) -> Tensor:
        """Return the coefficients' prior variances (latent, F), zero where dropped."""
        return self._drop(gp.coefficient_variances(self.kernel, log_time_scale.exp(), n_circle))

    def variances_and_slope(self, log_time_scale: Tensor, n_circle: int) -> tuple[Tensor, Tensor]:
        """Return the variances and their derivatives with respect to the log time scales, both (latent, F).

        Central differences are accurate to eight digits; on small problems, an autograd graph for this
        step alone would cost as much as the rest of an evaluation.
        """
        h = 1e-4
        scales = torch.cat([log_time_scale, log_time_scale + h, log_time_scale - h])
        at, above, below = gp.coefficient_variances(self.kernel, scales.exp(), n_circle).chunk(3)
        s = self._drop(at)
        return s, (above - below)[:, : s.shape[1]] / (2 * h)

    def _drop(self, variances: Tensor) -> Tensor:
        kept = variances > self.tolerance * variances.amax(dim=1, keepdim=True)
        return torch.where(kept, variances, 0.0)[:, : gp.n_coefficients(variances, self.tolerance)]

    def counts(self, time_scale: np.ndarray, n_circle: int) -> list[int]:
        """Return how many coefficients each latent keeps."""
        kept = self.variances(torch.as_tensor(np.log(time_scale)), n_circle) > 0
        return [int(n) for n in kept.sum(1)]


def _largest_prime_factor(n: int) -> int:
    factor = 2
    while factor * factor <= n:
        if n % factor:
            factor += 1
        else:
            n //= factor
    return n
