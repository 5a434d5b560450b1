"""The joint posterior mean of latents coupled by observations, by preconditioned conjugate gradients.

In a posterior that factorises over latents, variances are separate, but channels that depend on several
latents couple the means. If the log likelihood of a bin is quadratic with precision matrix P between latents,
the joint mean solves

    (I + G P G') u = G b,

where u are the whitened coefficients of all latents (`colatent.models.mmgpvae.posterior`). Updating one
latent at a time, as if P were diagonal, would oscillate between latents with similar loadings; the factorised
posterior is a good preconditioner instead (Golub & Van Loan 2013, section 11.5.2).
"""

from collections.abc import Callable

import torch
from torch import Tensor

from colatent.models.mmgpvae.posterior import LatentBlock, Posterior, by_latent, in_order

ITERATIONS = 20
TOLERANCE = 0.1  # of the residual relative to its initial value, sufficient for a Newton step

Coefficients = list[Tensor]  # one per block, (latent, trial, coefficient)


def coupled_mean(q: Posterior, precision: Tensor, linear: Tensor) -> Tensor:
    """Return the mean of the latents, (trial, time, latent).

    Args:
        q: a posterior that approximates P by its diagonal: initial value and preconditioner.
        precision: P, between latents in each bin, (trial, time, latent, latent), positive semi-definite.
        linear: b, (trial, time, latent).
    """
    blocks = q.blocks

    def times_system(u: Coefficients) -> Coefficients:
        coupled = times(precision, _over_time(blocks, u))
        return [own + other for own, other in zip(u, _coefficients(blocks, coupled), strict=True)]

    def precondition(residual: Coefficients) -> Coefficients:
        return [_solve(block, r) for block, r in zip(blocks, residual, strict=True)]

    start = [block.coefficient_mean for block in blocks]
    return _over_time(
        blocks, _conjugate_gradients(times_system, precondition, _coefficients(blocks, linear), start)
    )


def times(matrix: Tensor, vector: Tensor) -> Tensor:
    """Return products of small matrices (..., i, j) with vectors (..., j), faster than `matmul`."""
    return (matrix * vector[..., None, :]).sum(dim=-1)


def _conjugate_gradients(
    times_system: Callable[[Coefficients], Coefficients],
    precondition: Callable[[Coefficients], Coefficients],
    right: Coefficients,
    u: Coefficients,
) -> Coefficients:
    """Solve for each trial separately, stopping trials that have converged."""
    residual = _plus(right, times_system(u), -1.0)
    direction = z = precondition(residual)
    rho = _dot(residual, z)
    target = TOLERANCE**2 * rho
    for _ in range(ITERATIONS):
        active = rho > target
        if not active.any():
            break
        image = times_system(direction)
        step = torch.where(active, rho / _dot(direction, image), 0.0)
        u, residual = _plus(u, direction, step), _plus(residual, image, -step)
        z = precondition(residual)
        before, rho = rho, torch.where(active, _dot(residual, z), rho)
        direction = _plus(z, direction, torch.where(active, rho / before, 0.0))
    return u


def _solve(block: LatentBlock, right: Tensor) -> Tensor:
    """Return A^-1 r for each latent and trial."""
    return (block.whitener.mT @ (block.whitener @ right[..., None]))[..., 0]


def _over_time(blocks: tuple[LatentBlock, ...], u: Coefficients) -> Tensor:
    """Return G' u, (trial, time, latent)."""
    parts = [own @ block.basis for own, block in zip(u, blocks, strict=True)]
    return in_order([block.latent for block in blocks], parts).permute(1, 2, 0)


def _coefficients(blocks: tuple[LatentBlock, ...], x: Tensor) -> Coefficients:
    """Return G x for each block."""
    return [by_latent(x[..., block.latent]) @ block.basis.mT for block in blocks]


def _dot(a: Coefficients, b: Coefficients) -> Tensor:
    """Return the inner product for each trial, (trial,)."""
    return torch.stack([(x * y).sum(dim=(0, 2)) for x, y in zip(a, b, strict=True)]).sum(dim=0)


def _plus(a: Coefficients, b: Coefficients, factor: Tensor | float) -> Coefficients:
    """Return a + factor b, with a single factor or one per trial."""
    each = factor[:, None] if isinstance(factor, Tensor) else factor
    return [x + each * y for x, y in zip(a, b, strict=True)]
