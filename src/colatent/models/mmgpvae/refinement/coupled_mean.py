"""The joint mean of latents that observations couple, by preconditioned conjugate gradients.

A posterior that is independent over latents gives the variance of each separately, but channels that see
several latents tie their means together. Where the log-likelihood of a bin is quadratic, with a precision
matrix P between latents, the means maximise it and the prior at

    (I + G P G') u = G b,

u being the whitened coefficients of all latents (`colatent.models.mmgpvae.posterior`). Latent by latent, as
if P were diagonal, one would go back and forth between latents of similar loadings; the posterior of each
makes a good preconditioner instead (Golub & Van Loan 2013, section 11.5.2).
"""

from collections.abc import Callable

import torch
from torch import Tensor

from colatent.models.mmgpvae.posterior import LatentBlock, Posterior, by_latent, in_order

ITERATIONS = 20
TOLERANCE = 0.1  # of the residual, relative to its start: enough for a Newton step

Coefficients = list[Tensor]  # of each block, (latent, trial, coefficient)


def coupled_mean(q: Posterior, precision: Tensor, linear: Tensor) -> Tensor:
    """Return the mean of the latents, (trial, time, latent).

    Args:
        q: a posterior with about the diagonal of the precision: the start and the preconditioner.
        precision: P, between latents in each bin, (trial, time, latent, latent), no negative eigenvalues.
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
    """Return the products of small matrices (..., i, j) with vectors (..., j), faster than `matmul`."""
    return (matrix * vector[..., None, :]).sum(dim=-1)


def _conjugate_gradients(
    times_system: Callable[[Coefficients], Coefficients],
    precondition: Callable[[Coefficients], Coefficients],
    right: Coefficients,
    u: Coefficients,
) -> Coefficients:
    """Solve for each trial separately; one that has converged is left alone."""
    residual = _plus(right, times_system(u), -1.0)
    direction = z = precondition(residual)
    rho = _dot(residual, z)
    enough = TOLERANCE**2 * rho
    for _ in range(ITERATIONS):
        going = rho > enough
        if not going.any():
            break
        image = times_system(direction)
        step = torch.where(going, rho / _dot(direction, image), 0.0)
        u, residual = _plus(u, direction, step), _plus(residual, image, -step)
        z = precondition(residual)
        before, rho = rho, torch.where(going, _dot(residual, z), rho)
        direction = _plus(z, direction, torch.where(going, rho / before, 0.0))
    return u


def _solve(block: LatentBlock, right: Tensor) -> Tensor:
    """Return A^-1 r of each latent and trial."""
    return (block.whitener.mT @ (block.whitener @ right[..., None]))[..., 0]


def _over_time(blocks: tuple[LatentBlock, ...], u: Coefficients) -> Tensor:
    """Return G' u, (trial, time, latent)."""
    parts = [own @ block.basis for own, block in zip(u, blocks, strict=True)]
    return in_order([block.latent for block in blocks], parts).permute(1, 2, 0)


def _coefficients(blocks: tuple[LatentBlock, ...], x: Tensor) -> Coefficients:
    """Return G x of each block."""
    return [by_latent(x[..., block.latent]) @ block.basis.mT for block in blocks]


def _dot(a: Coefficients, b: Coefficients) -> Tensor:
    """Return the inner product of each trial, (trial,)."""
    return torch.stack([(x * y).sum(dim=(0, 2)) for x, y in zip(a, b, strict=True)]).sum(dim=0)


def _plus(a: Coefficients, b: Coefficients, factor: Tensor | float) -> Coefficients:
    """Return a + factor b, with one factor or one per trial."""
    each = factor[:, None] if isinstance(factor, Tensor) else factor
    return [x + each * y for x, y in zip(a, b, strict=True)]
