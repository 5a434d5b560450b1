"""Observation models against SciPy and Monte Carlo."""

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.special import expit

from colatent.data.likelihoods import likelihoods_of
from colatent.models.mmgpvae.likelihoods import ChannelLikelihood, masked_sum

N_CHANNELS = 4
NAMES = likelihoods_of("mm-gpvae")


def make(name: str) -> ChannelLikelihood:
    likelihood = ChannelLikelihood(name, N_CHANNELS)
    rng = np.random.default_rng(0)
    with torch.no_grad():
        for parameter in likelihood.parameters():
            parameter.add_(torch.from_numpy(0.5 * rng.standard_normal(N_CHANNELS)))
    return likelihood.double()


def scipy_distribution(likelihood: ChannelLikelihood, eta: np.ndarray):
    scale = None if likelihood.scale() is None else likelihood.scale().detach().numpy()
    return {
        "gaussian": lambda: stats.norm(eta, scale),
        "poisson": lambda: stats.poisson(np.exp(eta)),
        "negative-binomial": lambda: stats.nbinom(scale, scale / (scale + np.exp(eta))),
        "bernoulli": lambda: stats.bernoulli(expit(eta)),
    }[likelihood.record.name]()


def log_density(likelihood: ChannelLikelihood, y: np.ndarray, eta: np.ndarray) -> np.ndarray:
    d = scipy_distribution(likelihood, eta)
    return d.logpmf(y) if likelihood.record.discrete else d.logpdf(y)


@pytest.mark.parametrize("name", NAMES)
def test_log_prob_equals_scipy(name: str) -> None:
    likelihood = make(name)
    rng = np.random.default_rng(1)
    eta = rng.standard_normal((5, 7, N_CHANNELS))
    y = scipy_distribution(likelihood, eta).rvs(random_state=rng).astype(float)
    got = likelihood.log_prob(torch.from_numpy(y), torch.from_numpy(eta)).detach()
    np.testing.assert_allclose(got, log_density(likelihood, y, eta), rtol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_expected_log_prob_equals_monte_carlo(name: str) -> None:
    likelihood = make(name)
    rng = np.random.default_rng(2)
    mean, variance = rng.standard_normal(N_CHANNELS), rng.uniform(0.1, 0.6, N_CHANNELS)
    y = scipy_distribution(likelihood, mean).rvs(random_state=rng).astype(float)
    # normal quantiles at equal steps: an integral without random error
    z = stats.norm.ppf((np.arange(20_000) + 0.5) / 20_000)[:, None]
    expected = log_density(likelihood, y, mean + np.sqrt(variance) * z).mean(axis=0)
    got = likelihood.expected_log_prob(*map(torch.from_numpy, (y, mean, variance))).detach()
    np.testing.assert_allclose(got, expected, atol=2e-3)


@pytest.mark.parametrize("name", NAMES)
def test_initial_eta_gives_the_mean(name: str) -> None:
    likelihood = make(name)
    mean = torch.tensor([0.02, 0.2, 0.5, 0.9], dtype=torch.float64)
    torch.testing.assert_close(likelihood.distribution(likelihood.record.initial_eta(mean)).mean, mean)


def test_masked_sum_ignores_what_was_not_observed() -> None:
    log_prob = torch.ones(2, 3, 4)
    observed = torch.ones(2, 3, 4, dtype=torch.bool)
    observed[0, 1], log_prob[0, 1] = False, float("nan")
    assert masked_sum(log_prob, observed).tolist() == [8.0, 12.0]
