"""Counts beside other modalities in one posterior: against exact GPFA, finite differences and sampling."""

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.special import logsumexp

from colatent.models.gpfa import counts as gpfa_counts
from colatent.models.gpfa.counts import CountGPFA, _NegativeBound
from colatent.models.gpfa.gaussian import GPFA

LATENTS = {"spikes+emg": 1, "spikes": 1, "emg": 1}
BIN_WIDTH = 0.02
TIME_SCALE = np.array([0.08, 0.06, 0.12])
LATE = 3


def simulate(n_trials: int, n_bins: int, rate: float = 0.3, seed: int = 0) -> tuple[np.ndarray, dict]:
    """Return true latents as spikes see them, and spikes and EMG, which follows by ``LATE`` bins."""
    rng = np.random.default_rng(seed)
    lag = np.subtract.outer(np.arange(n_bins + LATE), np.arange(n_bins + LATE)) * BIN_WIDTH
    kernels = [np.exp(-0.5 * (lag / s) ** 2) + 1e-7 * np.eye(len(lag)) for s in TIME_SCALE]
    z = np.stack([rng.standard_normal((n_trials, len(lag))) @ np.linalg.cholesky(k).T for k in kernels], -1)
    early, late = z[:, LATE:], z[:, :n_bins]
    c = {"spikes": rng.normal(size=(24, 3)) * [0.7, 0.7, 0], "emg": rng.normal(size=(6, 3)) * [1, 0, 1]}
    spikes = rng.poisson(np.exp(early @ c["spikes"].T + np.log(rate))).astype(float)
    emg = late @ c["emg"].T + 0.7 * rng.normal(size=(n_trials, n_bins, 6)) + 3
    return early, {"spikes": spikes, "emg": emg}


Z, DATA = simulate(40, 40)
TRAIN, TEST = ({m: y[part] for m, y in DATA.items()} for part in (slice(30), slice(30, None)))


@pytest.fixture(scope="module")
def fit() -> CountGPFA:
    return CountGPFA(bin_width=BIN_WIDTH, latents=LATENTS, delays=True).fit(TRAIN)


def with_gaps(data: dict, seed: int = 1) -> dict:
    """Return trials with missing ends, channels and a missing modality."""
    data = {m: y.copy() for m, y in data.items()}
    data["spikes"][0, 30:] = np.nan
    data["emg"][1] = np.nan
    data["emg"][2, :, 3] = np.nan
    data["emg"][3, np.random.default_rng(seed).random((40, 6)) < 0.2] = np.nan
    return data


def test_all_gaussian_it_is_exact_gpfa() -> None:
    """Gaussian observations are their own sites: bound, posterior and predictions are those of `GPFA`."""
    data = with_gaps({m: np.sqrt(y) if m == "spikes" else y for m, y in TRAIN.items()})
    gaussian = dict.fromkeys(data, "gaussian")
    exact = GPFA(bin_width=BIN_WIDTH, latents=LATENTS, likelihood=gaussian, delays=True).fit(data)
    state = exact.state() | {"dispersion": np.sqrt(exact.noise_variance_), "tolerance": np.array(1e-8)}
    by_sites = CountGPFA.from_state(state)
    some = {m: y[:4] for m, y in data.items()}
    assert by_sites.elbo(some).sum() == pytest.approx(exact.log_marginal_likelihood(some), rel=1e-7)
    for a, b in zip(by_sites.posterior(some), exact.posterior(some), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    for given in (("spikes",), ("emg",), None):
        left, right = by_sites.predict(some, given), exact.predict(some, given)
        for m in data:
            np.testing.assert_allclose(left[m].mean, right[m].mean, atol=1e-5)
            np.testing.assert_allclose(left[m].variance, right[m].variance, atol=1e-5)


@pytest.mark.parametrize("likelihood", ["poisson", "negative-binomial"])
def test_gradient_agrees_with_finite_differences(likelihood: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpfa_counts, "_SITE_TOLERANCE", 1e-13)
    data = with_gaps({m: y[:5, :40] for m, y in TRAIN.items()})
    model = CountGPFA(bin_width=BIN_WIDTH, latents=LATENTS, delays=True, likelihood={"spikes": likelihood})
    joined = model._training(data)
    at = model._initial_parameters(joined)[0]
    delay = torch.tensor([[0.0, 0.0, 0.0], [1.3, 0.0, 0.0]], dtype=torch.float64)
    at = at._replace(delay=delay)
    bound = _NegativeBound(model, joined)
    _, gradient = bound(at)
    rng = np.random.default_rng(1)
    for name, value in at._asdict().items():
        direction = torch.as_tensor(rng.standard_normal(value.shape))
        if name == "delay":
            direction *= delay > 0  # the only one that is learned
        ends = [bound(at._replace(**{name: value + sign * 1e-4 * direction}))[0] for sign in (1, -1)]
        expected = (ends[0] - ends[1]) / 2e-4
        found = float((getattr(gradient, name) * direction).sum())
        assert found == pytest.approx(expected, rel=2e-4, abs=1e-7), name


def test_bound_is_below_the_importance_sampled_log_likelihood_and_close() -> None:
    """Few bins and channels, so that samples of the prior are enough."""
    data = {"spikes": TRAIN["spikes"][:1, :5, :3], "emg": TRAIN["emg"][:1, :5, :2]}
    rng = np.random.default_rng(0)
    loading = np.zeros((5, 3))
    loading[:3, :2], loading[3:, [0, 2]] = rng.normal(size=(3, 2)) * 0.6, rng.normal(size=(2, 2))
    offset, noise = np.array([-1.0, -1.0, -0.5, 3.0, 3.0]), 1.5
    model = CountGPFA(bin_width=BIN_WIDTH, latents=LATENTS)
    model._training(data)
    model.loading_, model.offset_, model.time_scale_ = loading, offset, TIME_SCALE
    model.dispersion_, model.delay_ = np.full(5, noise), np.zeros((2, 3))
    lag = np.subtract.outer(np.arange(5), np.arange(5)) * BIN_WIDTH
    roots = [np.linalg.cholesky(np.exp(-0.5 * (lag / s) ** 2) + 1e-10 * np.eye(5)) for s in TIME_SCALE]
    z = np.stack([rng.standard_normal((200_000, 5)) @ root.T for root in roots], axis=-1)
    eta = z @ loading.T + offset
    log_p = stats.poisson.logpmf(data["spikes"], np.exp(eta[..., :3])).sum((1, 2))
    log_p += stats.norm.logpdf(data["emg"], eta[..., 3:], noise).sum((1, 2))
    log_marginal = logsumexp(log_p) - np.log(len(z))
    weight = np.exp(log_p - log_p.max())
    error = weight.std() / weight.mean() / np.sqrt(len(z))
    elbo = float(model.elbo(data)[0])
    assert log_marginal - 0.1 < elbo < log_marginal + 3 * error


def r2(truth: np.ndarray, found: np.ndarray) -> float:
    return float(np.corrcoef(truth.ravel(), found.ravel())[0, 1] ** 2)


def test_it_finds_latents_and_delay_better_than_square_roots_do(fit: CountGPFA) -> None:
    roots = GPFA(bin_width=BIN_WIDTH, latents=LATENTS, delays=True).fit(TRAIN)
    by_counts, by_roots = (
        [r2(Z[30:, :, k], m.transform(TEST)[..., k]) for k in (0, 1)] for m in (fit, roots)
    )
    assert by_counts[0] > max(0.95, by_roots[0] - 0.01)
    assert by_counts[1] > by_roots[1] + 0.02
    assert fit.delay_[1, 0] == pytest.approx(LATE * BIN_WIDTH, abs=BIN_WIDTH / 2)
    assert fit.converged_ and fit.modalities_ is not None
    assert fit.modalities_.likelihood == {"spikes": "poisson", "emg": "gaussian"}


def test_predictions_never_look_at_what_is_not_given(fit: CountGPFA) -> None:
    changed = TEST | {"emg": TEST["emg"] + 5}
    one, two = (fit.predict(trials, given=("spikes",))["emg"].mean for trials in (TEST, changed))
    np.testing.assert_array_equal(one, two)
    # each trial is inferred on its own
    alone = fit.predict({m: y[:1] for m, y in TEST.items()}, ("spikes",))["emg"].mean
    np.testing.assert_allclose(alone, one[:1], rtol=1e-6)
    error = ((one - TEST["emg"]) ** 2).sum()
    assert error < 0.85 * ((TEST["emg"] - TRAIN["emg"].mean((0, 1))) ** 2).sum()


def test_save_and_load(fit: CountGPFA, tmp_path) -> None:
    fit.save(tmp_path / "fit.safetensors")
    loaded = CountGPFA.load(tmp_path / "fit.safetensors")
    np.testing.assert_array_equal(loaded.transform(TEST), fit.transform(TEST))
    assert loaded.latent_groups_ == fit.latent_groups_ == tuple(LATENTS)


def test_what_are_no_counts_is_refused() -> None:
    half = TRAIN | {"spikes": TRAIN["spikes"] + 0.5}
    with pytest.raises(ValueError, match="whole numbers"):
        CountGPFA(latents=LATENTS, likelihood={"spikes": "poisson"}).fit(half)
    with pytest.raises(ValueError, match="unknown likelihood 'gamma' of spikes"):
        CountGPFA(latents=LATENTS, likelihood={"spikes": "gamma"}).fit(TRAIN)
    with pytest.raises(ValueError, match="unknown likelihood 'gamma'"):
        CountGPFA(3, likelihood="gamma")
