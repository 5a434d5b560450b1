"""The refitted prior against the truth and against the most likely one of dense Gaussian algebra."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from colatent import gp
from colatent.models.mmgpvae import MMGPVAE
from colatent.models.prior_refit import refit_prior
from colatent.posterior import Sites

KERNEL, N_TRIALS, N_BINS = "squared-exponential", 60, 30
TIME_SCALES, SDS, NOISE = (4.0, 7.0), (2.0, 0.5), 0.1


def covariance(time_scale: float, sd: float) -> np.ndarray:
    t = torch.arange(N_BINS, dtype=torch.float64)
    scale = torch.tensor(time_scale, dtype=torch.float64)
    return sd**2 * gp.correlation(KERNEL, t[:, None] - t, scale).numpy()


def most_likely(values: np.ndarray) -> np.ndarray:
    """Time scale and s.d. of noisy values (trial, time), by dense algebra."""

    def cost(logs: np.ndarray) -> float:
        dense = covariance(*np.exp(logs)) + NOISE * np.eye(N_BINS)
        white = np.linalg.solve(np.linalg.cholesky(dense), values.T)
        return float(0.5 * (white**2).sum() + 0.5 * len(values) * np.linalg.slogdet(dense)[1])

    return np.exp(minimize(cost, np.log([3.0, 1.0]), method="Nelder-Mead", options={"xatol": 1e-5}).x)


def test_prior_is_the_most_likely_one(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(0)
    latents = [
        rng.multivariate_normal(np.zeros(N_BINS), covariance(*prior), size=N_TRIALS)
        for prior in zip(TIME_SCALES, SDS, strict=True)
    ]
    values = np.stack(latents, axis=-1)
    values += np.sqrt(NOISE) * rng.standard_normal(values.shape)
    options = {"likelihood": {"m": "gaussian"}, "decoder": {"m": "mlp"}, "hidden": 4, "time_scale": 0.04}
    model = MMGPVAE(latents={"m": 2}, **options)
    model._build({"m": 3}, 0.02, N_BINS, 0, torch.Generator())
    precision = torch.full(values.shape, 1 / NOISE, dtype=torch.float64)
    sites = Sites(precision, precision * torch.from_numpy(values))
    network = model.network
    monkeypatch.setattr(network, "calibrated_sites", lambda _: {"m": sites})
    empty = Sites(torch.zeros_like(precision), torch.zeros_like(precision))
    refit_prior(network, {"m": None}, empty, {})  # type: ignore[dict-item]
    found = np.stack([network.time_scale().detach().numpy(), network.prior_sd().detach().numpy()], axis=-1)
    for k in range(2):
        assert found[k] == pytest.approx(most_likely(values[..., k]), rel=5e-3)
        assert found[k] == pytest.approx([TIME_SCALES[k], SDS[k]], rel=0.1)
