"""The sites posterior against dense Gaussian algebra on the bins."""

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from torch.distributions import MultivariateNormal, kl_divergence

from colatent.models import gp
from colatent.models.mmgpvae.posterior import Sites, posterior, posterior_mean, prior_basis

N_TRIALS, N_BINS = 3, 30
TIME_SCALE = torch.tensor([2.5, 7.0], dtype=torch.float64)


def covariance(kernel: str, k: int) -> np.ndarray:
    lag = torch.arange(N_BINS, dtype=torch.float64)
    return gp.correlation(kernel, lag[:, None] - lag, TIME_SCALE[k]).numpy()


def random_sites(seed: int) -> Sites:
    rng = np.random.default_rng(seed)
    precision = rng.gamma(1.0, 2.0, (N_TRIALS, N_BINS, 2))
    linear = 2 * rng.standard_normal(precision.shape)
    precision[0, 10:17], linear[0, 10:17] = 0.0, 0.0  # a gap
    precision[1, 20:, 1], linear[1, 20:, 1] = 0.0, 0.0  # one latent loses its sites
    precision[2], linear[2] = 0.0, 0.0  # nothing observed
    return Sites(torch.from_numpy(precision), torch.from_numpy(linear))


def dense(prior: np.ndarray, precision: np.ndarray, linear: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of N(z; 0, K) prod exp(h z - p z^2 / 2), without inverting K."""
    covariance = np.linalg.solve(np.eye(len(prior)) + prior * precision, prior)
    return covariance @ linear, covariance


@pytest.mark.parametrize("kernel", gp.KERNELS)
def test_equals_dense_algebra(kernel: str) -> None:
    sites = random_sites(0)
    bases = prior_basis(kernel, TIME_SCALE, N_BINS)
    marginals = posterior(bases, sites).marginals
    for n in range(N_TRIALS):
        for k in range(2):
            mean, cov = dense(
                covariance(kernel, k), sites.precision[n, :, k].numpy(), sites.linear[n, :, k].numpy()
            )
            # frequencies below 1e-5 of the largest variance are dropped
            np.testing.assert_allclose(marginals.mean[n, :, k], mean, atol=3e-3)
            np.testing.assert_allclose(marginals.variance[n, :, k], np.diag(cov), atol=3e-3)
    torch.testing.assert_close(posterior_mean(bases, sites), marginals.mean, rtol=1e-9, atol=1e-9)


def test_latents_together_are_as_each_alone() -> None:
    """A slow latent keeps fewer coefficients than a fast one, in a block of its own or beside it."""
    time_scale = torch.tensor([7.0, 2.5, 2.8, 30.0, 6.5], dtype=torch.float64)
    pieces = [random_sites(5), random_sites(6), random_sites(7).select(torch.tensor([0]))]
    sites = Sites(*(torch.cat(x, dim=2) for x in zip(*pieces, strict=True)))
    together = prior_basis("squared-exponential", time_scale, N_BINS)
    q = posterior(together, sites)
    assert 1 < len(q.blocks) < 5
    samples = q.sample(2000, torch.Generator().manual_seed(0))
    torch.testing.assert_close(samples.mean(dim=0), q.marginals.mean)  # antithetic
    torch.testing.assert_close(samples.var(dim=0), q.marginals.variance, rtol=0.25, atol=1e-3)
    torch.testing.assert_close(posterior_mean(together, sites), q.marginals.mean)
    kl = torch.zeros(N_TRIALS, dtype=torch.float64)
    for k in range(5):
        alone = prior_basis("squared-exponential", time_scale[k : k + 1], N_BINS)
        n = alone.shape[1]
        torch.testing.assert_close(together[k, :n], alone[0])
        assert not together[k, n:].any()
        own = posterior(alone, sites.select(torch.tensor([k])))
        for whole, part in zip(q.marginals, own.marginals, strict=True):
            torch.testing.assert_close(whole[..., k], part[..., 0])
        kl += own.kl()
    torch.testing.assert_close(q.kl(), kl)


def test_samples_have_the_posterior_covariance() -> None:
    sites = random_sites(1)
    q = posterior(prior_basis("squared-exponential", TIME_SCALE, N_BINS), sites)
    samples = q.sample(20_000, torch.Generator().manual_seed(0))
    mean, cov = dense(
        covariance("squared-exponential", 1), sites.precision[0, :, 1].numpy(), sites.linear[0, :, 1].numpy()
    )
    np.testing.assert_allclose(samples[:, 0, :, 1].mean(dim=0), mean, atol=3e-3)  # antithetic: no noise
    np.testing.assert_allclose(np.cov(samples[:, 0, :, 1].numpy().T), cov, atol=0.04)


def test_kl_equals_torch_distributions() -> None:
    q = posterior(prior_basis("matern-3/2", TIME_SCALE, N_BINS), random_sites(2))
    expected = torch.zeros(N_TRIALS, dtype=torch.float64)
    parts = ((m, w) for b in q.blocks for m, w in zip(b.coefficient_mean, b.whitener, strict=True))
    for mean, whitener in parts:
        cov = whitener.mT @ whitener
        prior = MultivariateNormal(torch.zeros(len(cov[0])).double(), torch.eye(len(cov[0])).double())
        expected += kl_divergence(MultivariateNormal(mean, cov), prior)
    torch.testing.assert_close(q.kl(), expected)
    assert q.kl()[2] == pytest.approx(0.0, abs=1e-12)  # no sites: the posterior is the prior


def test_exact_sites_make_the_elbo_the_log_marginal_likelihood() -> None:
    """y(t) = c z(t) + noise: sites c' R^-1 c and c' R^-1 y are exact, so the bound is tight."""
    rng = np.random.default_rng(3)
    c, noise = rng.standard_normal(4), rng.uniform(0.3, 1.0, 4)
    prior = covariance("squared-exponential", 0)
    y = rng.multivariate_normal(np.zeros(N_BINS), prior)[:, None] * c + np.sqrt(noise) * rng.standard_normal(
        (N_BINS, 4)
    )
    sites = Sites(
        torch.full((1, N_BINS, 1), float((c**2 / noise).sum()), dtype=torch.float64),
        torch.from_numpy((y * c / noise).sum(axis=1)[None, :, None]),
    )
    q = posterior(prior_basis("squared-exponential", TIME_SCALE[:1], N_BINS), sites)
    mean, variance = (x[0, :, 0].numpy()[:, None] for x in q.marginals)
    expected = -0.5 * (np.log(2 * np.pi * noise) + ((y - c * mean) ** 2 + c**2 * variance) / noise).sum()
    exact = multivariate_normal(
        np.zeros(4 * N_BINS), np.kron(prior, np.outer(c, c)) + np.kron(np.eye(N_BINS), np.diag(noise))
    ).logpdf(y.ravel())
    assert expected - float(q.kl()) == pytest.approx(exact, abs=1e-2)


def test_gradient_in_time_scale() -> None:
    sites = random_sites(4)

    def kl(log_time_scale: torch.Tensor) -> torch.Tensor:
        return posterior(prior_basis("squared-exponential", log_time_scale.exp(), N_BINS), sites).kl()

    assert torch.autograd.gradcheck(kl, (TIME_SCALE.log().requires_grad_(),))
