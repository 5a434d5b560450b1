"""The posteriors that are there to compare with, each against dense Gaussian algebra on the bins."""

from typing import get_args

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from support import BOTH, OPTIONS, fit_vae, simulate, unfitted_vae

from colatent.config import MMGPVAESettings
from colatent.models import gp
from colatent.models.mmgpvae.inference import INFERENCES, JITTER, average
from colatent.models.mmgpvae.methods import POSTERIOR
from colatent.models.mmgpvae.posterior import Sites

N_BINS = 12
TIME_SCALE = torch.tensor([3.0], dtype=torch.float64)


def random_sites(seed: int) -> Sites:
    rng = np.random.default_rng(seed)
    precision = rng.gamma(1.0, 2.0, (2, N_BINS, 1))
    linear = 2 * rng.standard_normal(precision.shape)
    precision[1, 4:7], linear[1, 4:7] = 0.0, 0.0  # a gap
    return Sites(torch.from_numpy(precision), torch.from_numpy(linear))


def covariance(name: str) -> np.ndarray:
    lag = torch.arange(N_BINS, dtype=torch.float64)
    k = gp.correlation("squared-exponential", lag[:, None] - lag, TIME_SCALE).numpy()
    return {
        "sites": k,
        "mean-field": k,
        "averaged": k,
        "time-domain": k + JITTER * np.eye(N_BINS),
        "independent": np.eye(N_BINS),
    }[name]


@pytest.mark.parametrize("name", INFERENCES)
def test_mean_is_exact(name: str) -> None:
    inference, sites = INFERENCES[name], random_sites(0)
    mean = inference.posterior(
        inference.basis("squared-exponential", TIME_SCALE, N_BINS), sites
    ).marginals.mean
    for n in range(2):
        p, h = (x[n, :, 0].numpy() for x in sites)
        expected = np.linalg.solve(np.eye(N_BINS) + covariance(name) * p, covariance(name) @ h)
        np.testing.assert_allclose(mean[n, :, 0], expected, atol=3e-3)


def gaussian_kl(mean: np.ndarray, cov: np.ndarray, other_mean: np.ndarray, precision: np.ndarray) -> float:
    error = mean - other_mean
    return 0.5 * float(
        np.trace(precision @ cov)
        + error @ precision @ error
        - len(mean)
        - np.linalg.slogdet(precision)[1]
        - np.linalg.slogdet(cov)[1]
    )


@pytest.mark.parametrize("name", ["mean-field", "time-domain"])
def test_diagonal_posterior_is_the_best_of_its_kind(name: str) -> None:
    """A numerical optimiser over diagonal Gaussians finds the same variances."""
    inference, sites = INFERENCES[name], random_sites(1)
    basis = inference.basis("squared-exponential", TIME_SCALE, N_BINS)
    q = inference.posterior(basis, sites)
    g, p, h = basis[0].numpy(), sites.precision[0, :, 0].numpy(), sites.linear[0, :, 0].numpy()
    precision = np.eye(len(g)) + (g * p) @ g.T
    mean = np.linalg.solve(precision, g @ h)
    # in the coordinates in which the variant is diagonal: coefficients, or bins (z = G' u)
    root = np.eye(len(g)) if name == "mean-field" else np.linalg.inv(g).T
    posterior_precision = root.T @ precision @ root

    def kl(log_variance: np.ndarray) -> float:
        cov = np.diag(np.exp(log_variance))
        return gaussian_kl(np.zeros(len(g)), cov, np.zeros(len(g)), posterior_precision)

    best = minimize(kl, np.full(len(g), -3.0), method="L-BFGS-B", options={"maxiter": 2000, "ftol": 1e-14})
    w = q.blocks[0].whitener[0, 0].numpy()
    got = np.linalg.solve(root, (w.T @ w) @ np.linalg.inv(root).T)
    np.testing.assert_allclose(np.diag(got), np.exp(best.x), rtol=1e-2)
    np.testing.assert_allclose(got - np.diag(np.diag(got)), 0.0, atol=1e-8)
    expected = gaussian_kl(mean, w.T @ w, np.zeros(len(g)), np.eye(len(g)))
    assert float(q.kl()[0]) == pytest.approx(expected, rel=1e-8)


def test_average_counts_only_who_saw_something() -> None:
    a, b, nothing = random_sites(2), random_sites(3), Sites(*torch.zeros(2, 2, N_BINS, 1).double())
    for together in (average([a, b]), average([nothing, a, b])):
        torch.testing.assert_close(together.precision[0], (a.precision[0] + b.precision[0]) / 2)
        torch.testing.assert_close(together.linear[0], (a.linear[0] + b.linear[0]) / 2)
    only_a = average([a, nothing])
    torch.testing.assert_close(only_a.linear, a.linear)
    assert not only_a.linear[1, 4:7].any()


@pytest.mark.parametrize("name", [n for n in INFERENCES if n != "sites"])
def test_every_variant_trains_and_predicts_from_any_subset(name: str) -> None:
    trials = simulate(12)[0]
    options = OPTIONS | {"posterior": name, "epochs": 5}
    model = fit_vae(trials, **options)
    assert model.history[-1]["loss"] < model.history[0]["loss"]
    for given in (BOTH, ("spikes",), ("emg",)):
        assert np.isfinite(model.predict(trials, given, "emg").mean).all()
    rebuilt = unfitted_vae(trials.layout, **options).restore(model.state())
    np.testing.assert_array_equal(rebuilt.elbo(trials), model.elbo(trials))


def test_config_and_report_know_every_variant() -> None:
    assert get_args(MMGPVAESettings.model_fields["posterior"].annotation) == tuple(INFERENCES)
    assert set(POSTERIOR) == set(INFERENCES)
