"""GPFA's evidence, posterior and predictions against one dense joint Gaussian per trial."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from colatent.models import gp
from colatent.models.gpfa import evidence as gpfa_evidence
from colatent.models.gpfa.evidence import Parameters, Prior, evaluate, make_blocks
from colatent.models.gpfa.gaussian import GPFA
from colatent.models.gpfa.padded_trials import as_padded_trials
from colatent.models.gpfa.scattered import ScatteredSolver
from colatent.models.gpfa.solvers import CirculantSolver, DenseSolver

TRIALS, BINS, CHANNELS, LATENTS = 4, 36, 6, 2
BIN_WIDTH = 0.02
Array = np.ndarray

RNG = np.random.default_rng(5)
DATA = RNG.normal(size=(TRIALS, BINS, CHANNELS)) + 3
LOADING = RNG.normal(size=(CHANNELS, LATENTS))
NOISE = RNG.uniform(0.3, 1.0, CHANNELS)
OFFSET = RNG.normal(size=CHANNELS) + 3
TIME_SCALE = np.array([2.5, 6.0])


def scattered(y: Array) -> Array:
    return np.where(np.random.default_rng(1).random(y.shape) < 0.2, np.nan, y)


def alike(y: Array) -> Array:
    """Two trials miss the same, one of the others ends early."""
    missing = np.isnan(scattered(y))
    missing[1] = missing[0]
    missing[2, 28:] = True
    return np.where(missing, np.nan, y)


def tails(y: Array) -> Array:
    y = y.copy()
    for i in range(TRIALS):
        y[i, BINS - 3 * i :] = np.nan
    return y


def gap(y: Array) -> Array:
    y = y.copy()
    y[1:3, 10:15] = np.nan
    return y


def channels(y: Array) -> Array:
    y = y.copy()
    y[0, :, 2] = np.nan
    y[1, :, :3] = np.nan
    return y


MISSING: dict[str, Callable[[Array], Array]] = {
    "nothing": lambda y: y,
    "tails": tails,
    "gap": gap,
    "channels": channels,
    "scattered": scattered,
    "scattered alike": alike,
}
WHOLE_BINS = ("nothing", "tails", "gap", "channels")


def model(kernel: str = "squared-exponential") -> GPFA:
    return GPFA.from_state(
        {
            "loading": LOADING,
            "offset": OFFSET,
            "noise_variance": NOISE,
            "time_scale": TIME_SCALE * BIN_WIDTH,
            "bin_width": np.array(BIN_WIDTH),
            "tolerance": np.array(1e-8),
            "kernel": np.array(gp.KERNELS.index(kernel)),
        }
    )


def joint(kernel: str) -> tuple[Array, Array]:
    """Covariance of all latents (bin, latent), and of the signal C z in (bin, channel)."""
    lag = torch.arange(BINS, dtype=torch.float64)
    lag = lag[:, None] - lag
    prior = np.zeros((BINS, LATENTS, BINS, LATENTS))
    for k, tau in enumerate(TIME_SCALE):
        prior[:, k, :, k] = gp.correlation(kernel, lag, torch.tensor(tau)).numpy()
    return prior.reshape(BINS * LATENTS, -1), np.kron(np.eye(BINS), LOADING)


def dense(y: Array, kernel: str = "squared-exponential") -> tuple[float, Array, Array]:
    """Log marginal likelihood, and the posterior mean and covariance of the latents per trial."""
    prior, readout = joint(kernel)
    log_likelihood, means, covariances = 0.0, [], []
    for trial in y:
        residual = (trial - OFFSET).ravel()
        seen = ~np.isnan(residual)
        c, r = readout[seen], residual[seen]
        s = c @ prior @ c.T + np.diag(np.tile(NOISE, BINS)[seen])
        log_likelihood -= 0.5 * (
            r @ np.linalg.solve(s, r) + np.linalg.slogdet(s)[1] + len(r) * np.log(2 * np.pi)
        )
        gain = np.linalg.solve(s, c @ prior).T
        means.append((gain @ r).reshape(BINS, LATENTS))
        covariances.append(prior - gain @ c @ prior)
    return log_likelihood, np.array(means), np.array(covariances)


def bin_blocks(covariance: Array) -> Array:
    blocks = covariance.reshape(-1, BINS, LATENTS, BINS, LATENTS)
    return np.einsum("ntktl->ntkl", blocks)


@pytest.fixture(params=[DenseSolver, CirculantSolver, ScatteredSolver])
def solver(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> type:
    """Force one of the evaluations."""

    def choose(patterns: list, n_circle: int, counts: list[int], device: torch.device) -> object:
        return request.param(patterns, n_circle, device)

    monkeypatch.setattr(gpfa_evidence, "choose_solver", choose)
    return request.param


@pytest.mark.parametrize("missing", MISSING)
def test_agrees_with_dense_algebra(missing: str, solver: type) -> None:
    if missing not in WHOLE_BINS and solver is not ScatteredSolver:
        pytest.skip("this evaluation takes whole bins only")
    y = MISSING[missing](DATA)
    log_likelihood, mean, covariance = dense(y)
    assert model().log_marginal_likelihood(y) == pytest.approx(log_likelihood, rel=1e-6)
    posterior = model().posterior(y)
    np.testing.assert_allclose(posterior.mean, mean, atol=1e-6 * np.abs(mean).max())
    of_bin = bin_blocks(covariance)
    variance = of_bin.diagonal(axis1=2, axis2=3)
    np.testing.assert_allclose(posterior.variance, variance, atol=1e-6 * variance.max())
    prediction = model().predict(y)
    np.testing.assert_allclose(
        prediction.variance, np.einsum("ck,ntkl,cl->ntc", LOADING, of_bin, LOADING) + NOISE, rtol=1e-6
    )
    np.testing.assert_allclose(prediction.mean, mean @ LOADING.T + OFFSET, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("kernel", ["matern-3/2", "matern-5/2"])
@pytest.mark.parametrize("missing", ["nothing", "tails"])
def test_matern_kernels_agree_with_dense_algebra(kernel: str, missing: str, solver: type) -> None:
    y = MISSING[missing](DATA)
    log_likelihood, mean, _ = dense(y, kernel)
    assert model(kernel).log_marginal_likelihood(y) == pytest.approx(log_likelihood, rel=1e-6)
    np.testing.assert_allclose(model(kernel).posterior(y).mean, mean, atol=1e-6 * np.abs(mean).max())


@pytest.mark.parametrize("missing", MISSING)
def test_gradient_agrees_with_finite_differences(missing: str, solver: type) -> None:
    if missing not in WHOLE_BINS and solver is not ScatteredSolver:
        pytest.skip("this evaluation takes whole bins only")
    data = as_padded_trials(MISSING[missing](DATA))
    prior = Prior("squared-exponential", 1e-8)
    blocks = make_blocks(data, prior, TIME_SCALE, 6.5)
    arrays = LOADING / np.sqrt(NOISE)[:, None], np.log(NOISE), OFFSET, np.log(TIME_SCALE)
    parameters = Parameters(*(torch.as_tensor(a) for a in arrays))
    _, gradient = evaluate(blocks, parameters)
    rng = np.random.default_rng(0)
    for field in Parameters._fields:
        at = getattr(parameters, field)
        direction = torch.as_tensor(rng.normal(size=at.shape))
        step = 1e-5
        ends = [
            evaluate(blocks, parameters._replace(**{field: at + sign * step * direction}))[0]
            for sign in (1, -1)
        ]
        expected = (ends[0] - ends[1]) / (2 * step)
        assert float((getattr(gradient, field) * direction).sum()) == pytest.approx(expected, rel=1e-6)


def test_missing_channels_are_marginalised() -> None:
    """Hiding channels equals a model that never had them."""
    kept = np.arange(CHANNELS) >= 2
    y = DATA.copy()
    y[:, :, ~kept] = np.nan
    state = model().state()
    smaller = {k: v[kept] if v.ndim and len(v) == CHANNELS else v for k, v in state.items()}
    reduced = GPFA.from_state(smaller)
    assert model().log_marginal_likelihood(y) == pytest.approx(
        reduced.log_marginal_likelihood(DATA[:, :, kept]), rel=1e-10
    )
    np.testing.assert_allclose(model().transform(y), reduced.transform(DATA[:, :, kept]), atol=1e-9)


def test_forecast_past_the_end_and_unobserved_trial() -> None:
    y = DATA.copy()
    y[0, 20:] = np.nan
    y[1] = np.nan
    _, mean, covariance = dense(y)
    posterior = model().posterior(y)
    np.testing.assert_allclose(posterior.mean, mean, atol=1e-5)
    np.testing.assert_allclose(
        posterior.variance, bin_blocks(covariance).diagonal(axis1=2, axis2=3), atol=1e-5
    )
    assert np.isnan(model().transform(y)[0, 20:]).all()


def test_samples_have_the_posteriors_moments(solver: type) -> None:
    y = tails(DATA)[1:3]
    _, mean, covariance = dense(y)
    samples = model().sample(y, 1500, seed=3)
    flat = samples.reshape(len(samples), 2, -1)
    scale = np.sqrt(covariance.diagonal(axis1=1, axis2=2))
    z = (flat.mean(0) - mean.reshape(2, -1)) / scale * np.sqrt(len(flat))
    assert np.abs(z).max() < 5
    for trial in range(2):
        np.testing.assert_allclose(np.cov(flat[:, trial].T), covariance[trial], atol=0.12)
    np.testing.assert_array_equal(samples[:2], model().sample(y, 2, seed=3))
