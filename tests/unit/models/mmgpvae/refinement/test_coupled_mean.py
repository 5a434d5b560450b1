"""The mean of coupled latents against a dense solution."""

import numpy as np
import pytest
import torch

from colatent.models.mmgpvae.posterior import Sites, posterior, prior_basis
from colatent.models.mmgpvae.refinement import coupled_mean as module
from colatent.models.mmgpvae.refinement.coupled_mean import coupled_mean

TRIALS, BINS, LATENTS = 3, 30, 4


@pytest.fixture
def system() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Bases of time scales so different that they are in several blocks, P and b."""
    rng = torch.Generator().manual_seed(0)
    time_scales = torch.tensor([1.0, 3.0, 3.5, 12.0], dtype=torch.float64)
    bases = prior_basis("squared-exponential", time_scales, BINS)
    loading = torch.randn((TRIALS, BINS, 7, LATENTS), generator=rng, dtype=torch.float64)
    loading[:, :, :, 1] = loading[:, :, :, 0] + 0.1 * loading[:, :, :, 1]  # hard to tell apart
    loading[1, 10:20] = 0.0  # not observed
    b = torch.randn((TRIALS, BINS, LATENTS), generator=rng, dtype=torch.float64)
    return bases, loading.mT @ loading, b


def dense(bases: torch.Tensor, precision: torch.Tensor, linear: torch.Tensor) -> np.ndarray:
    joint = torch.block_diag(*bases.mT)  # (latent and time, latent and coefficient)
    mean = []
    for p, b in zip(precision, linear, strict=True):
        coupled = torch.zeros((LATENTS, BINS, LATENTS, BINS), dtype=torch.float64)
        t = torch.arange(BINS)
        coupled[:, t, :, t] = p
        system = torch.eye(joint.shape[1], dtype=torch.float64)
        system = system + joint.T @ coupled.reshape(LATENTS * BINS, -1) @ joint
        u = torch.linalg.solve(system, joint.T @ b.T.reshape(-1))
        mean.append((joint @ u).view(LATENTS, BINS).T)
    return torch.stack(mean).numpy()


def test_it_is_the_dense_solution(
    system: tuple[torch.Tensor, torch.Tensor, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    bases, precision, linear = system
    monkeypatch.setattr(module, "TOLERANCE", 1e-10)
    monkeypatch.setattr(module, "ITERATIONS", 200)
    diagonal = precision.diagonal(dim1=-2, dim2=-1)
    q = posterior(bases, Sites(diagonal, linear))
    np.testing.assert_allclose(coupled_mean(q, precision, linear), dense(bases, precision, linear), atol=1e-8)


def test_no_trial_depends_on_the_others(system: tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> None:
    bases, precision, linear = system
    diagonal = precision.diagonal(dim1=-2, dim2=-1)
    together = coupled_mean(posterior(bases, Sites(diagonal, linear)), precision, linear)
    for trial in range(TRIALS):
        own = slice(trial, trial + 1)
        q = posterior(bases, Sites(diagonal[own], linear[own]))
        alone = coupled_mean(q, precision[own], linear[own])
        np.testing.assert_allclose(alone, together[own], atol=1e-12)


def test_without_coupling_it_is_the_posterior_s_mean(
    system: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
) -> None:
    bases, precision, linear = system
    diagonal = precision.diagonal(dim1=-2, dim2=-1)
    q = posterior(bases, Sites(diagonal, linear))
    np.testing.assert_allclose(
        coupled_mean(q, torch.diag_embed(diagonal), linear), q.marginals.mean, atol=1e-10
    )
