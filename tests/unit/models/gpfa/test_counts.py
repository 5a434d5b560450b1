"""GPFA of counts against sampling, numerical integration and Gaussian GPFA."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.special import logsumexp

from colatent.data.likelihoods import LIKELIHOODS as ALL
from colatent.models.gpfa import counts as gpfa_counts
from colatent.models.gpfa.counts import LIKELIHOODS, CountGPFA, _NegativeBound, cut
from colatent.models.gpfa.gaussian import GPFA
from colatent.models.gpfa.padded_trials import as_padded_trials, kinds_of
from colatent.models.gpfa.sites import SiteInference

BIN_WIDTH = 0.02
TIME_SCALE = np.array([0.06, 0.16])


def simulate(n_trials: int, n_bins: int, n_channels: int, seed: int = 0) -> tuple:
    """Latents, rates per bin and Poisson counts."""
    rng = np.random.default_rng(seed)
    lag = np.subtract.outer(np.arange(n_bins), np.arange(n_bins)) * BIN_WIDTH
    roots = [np.linalg.cholesky(np.exp(-0.5 * (lag / s) ** 2) + 1e-7 * np.eye(n_bins)) for s in TIME_SCALE]
    z = np.stack([rng.standard_normal((n_trials, n_bins)) @ r.T for r in roots], axis=-1)
    loading = 0.6 * rng.standard_normal((n_channels, 2))
    rate = np.exp(z @ loading.T + np.log(0.4))
    return loading, rate, rng.poisson(rate).astype(float)


LOADING, RATE, COUNTS = simulate(40, 40, 20)
TRAIN, TEST = COUNTS[:30], COUNTS[30:]


@pytest.fixture(scope="module")
def fit() -> CountGPFA:
    return CountGPFA(2, BIN_WIDTH).fit(TRAIN)


def true_model(likelihood: str = "poisson") -> CountGPFA:
    return CountGPFA.from_state(
        {
            "loading": LOADING,
            "offset": np.full(20, np.log(0.4)),
            "dispersion": np.full(20, 4.0),
            "time_scale": TIME_SCALE,
            "bin_width": np.array(BIN_WIDTH),
            "tolerance": np.array(1e-6),
            "kernel": np.array(0),
            "likelihood": np.array(list(ALL).index(likelihood)),
        }
    )


def bits_per_spike(rate: np.ndarray, counts: np.ndarray) -> float:
    null = counts.mean(axis=(0, 1))
    gain = counts * np.log(rate / null) - rate + null
    return float(gain.sum() / (counts.sum() * np.log(2)))


def log_pmf(likelihood: str, y: np.ndarray, eta: np.ndarray, r: float) -> np.ndarray:
    if likelihood == "negative-binomial":
        return stats.nbinom.logpmf(y, r, r / (r + np.exp(eta)))
    return stats.poisson.logpmf(y, np.exp(eta) if likelihood == "poisson" else np.logaddexp(0, eta))


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_gradient_agrees_with_finite_differences(likelihood: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpfa_counts, "_SITE_TOLERANCE", 1e-13)
    y = COUNTS[:4, :25].copy()
    y[0, 20:] = np.nan
    y[1, :, 3] = np.nan
    model = CountGPFA(2, BIN_WIDTH, likelihood=likelihood)
    bound = _NegativeBound(model, as_padded_trials(y))
    at = model._initial_parameters(as_padded_trials(y))[0]
    _, gradient = bound(at)
    rng = np.random.default_rng(1)
    for name, value in at._asdict().items():
        direction = torch.as_tensor(rng.standard_normal(value.shape))
        ends = [bound(at._replace(**{name: value + sign * 1e-4 * direction}))[0] for sign in (1, -1)]
        expected = (ends[0] - ends[1]) / 2e-4
        assert float((getattr(gradient, name) * direction).sum()) == pytest.approx(
            expected, rel=1e-4, abs=1e-8
        )


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_bound_is_below_the_importance_sampled_log_likelihood_and_close(likelihood: str) -> None:
    """Importance sampling from the prior; few bins and units, so that it works."""
    y = COUNTS[:1, :6, :3]
    model = true_model(likelihood)
    for name in ("loading_", "offset_", "dispersion_"):
        setattr(model, name, getattr(model, name)[:3])
    rng = np.random.default_rng(0)
    lag = np.subtract.outer(np.arange(6), np.arange(6)) * BIN_WIDTH
    roots = [np.linalg.cholesky(np.exp(-0.5 * (lag / s) ** 2) + 1e-10 * np.eye(6)) for s in TIME_SCALE]
    z = np.stack([rng.standard_normal((200_000, 6)) @ root.T for root in roots], axis=-1)
    log_p = log_pmf(likelihood, y, z @ model.loading_.T + model.offset_, 4.0).sum((1, 2))
    log_marginal = logsumexp(log_p) - np.log(len(z))
    weight = np.exp(log_p - log_p.max())
    error = weight.std() / weight.mean() / np.sqrt(len(z))
    elbo = float(model.elbo(y)[0])
    assert elbo < log_marginal + 3 * error
    assert elbo > log_marginal - 0.1


def test_no_other_gaussian_has_a_larger_bound() -> None:
    """The bound at the optimum does not rise when the mean or the sites' precisions are perturbed."""
    model = true_model()
    inference, best = model._infer(as_padded_trials(COUNTS[:2]))
    rng = np.random.default_rng(0)
    for scale in (0.05, 0.3):
        u = best.u + scale * torch.as_tensor(rng.normal(size=best.u.shape))
        precision = [p * (scale * torch.as_tensor(rng.normal(size=p.shape))).exp() for p in best.precision]
        for other in (inference.at(u, best.precision), inference.at(best.u, precision)):
            assert (other.elbo < best.elbo).all()


def test_trials_with_one_covariance_have_a_slightly_lower_bound() -> None:
    """A fit infers them so; each trial's own covariance is the best."""
    model = true_model()
    data = as_padded_trials(COUNTS[:8])
    inference, own = model._infer(data)
    together = SiteInference(model._observations(data, kinds_of(data.observed)), *inference_of(inference))
    common = together.optimum(together.start(None), 1e-9)
    assert len(common.spread.inverse) == 1
    loss = (own.elbo - common.elbo).numpy()
    assert loss.sum() > 0 and loss.mean() < 0.5  # nats a trial, of some 600
    np.testing.assert_allclose(common.mean[0], own.mean[0], atol=0.1)


def test_trials_observed_alike_can_be_given_one_covariance(fit: CountGPFA) -> None:
    """As in fits, whose bound is that of the training trials."""
    beside = TEST[:6].copy()
    beside[3:, :, ::4] = np.nan
    model = true_model()
    own, common = model.posterior(beside), model.posterior(beside, alike=True)
    for kind in (slice(0, 3), slice(3, 6)):
        np.testing.assert_array_equal(np.ptp(common.variance[kind], axis=0), 0.0)
    assert np.ptp(common.variance, axis=0).max() > 0.01
    np.testing.assert_allclose(common.mean, own.mean, atol=0.15)
    bound = fit.elbo(TRAIN, alike=True).sum() / TRAIN[..., 0].size
    assert bound == pytest.approx(fit.history_[-1]["elbo"], rel=1e-5)
    assert bound < fit.elbo(TRAIN).mean() / TRAIN.shape[1]


def inference_of(inference: SiteInference) -> tuple:
    return inference.parameters, inference.basis


def test_trials_of_far_more_counts_do_not_overflow() -> None:
    """The covariance that they share with others would send the first step of their means far off."""
    model = true_model()
    busy = TRAIN.copy()
    busy[0] = np.random.default_rng(0).poisson(RATE[0] * np.exp(2 * LOADING[:, 0]))
    data = as_padded_trials(busy)
    known = inference_of(model._infer(data)[0])
    shared = SiteInference(model._observations(data, kinds_of(data.observed)), *known)
    bound, start = model.elbo(busy), shared.start(None)
    assert (start.elbo.numpy() > 10 * bound).all()
    np.testing.assert_allclose(shared.optimum(start, 1e-7).elbo, bound, rtol=0.1)


def test_a_trial_is_inferred_as_beside_others() -> None:
    """Inference starts from a covariance that trials observed alike share, and ends where it would alone."""
    beside = TEST.copy()
    beside[2:, :, ::4] = np.nan
    model = true_model()
    together, found = model.posterior(beside), [model.posterior(beside[[i]]) for i in (0, 1, 3)]
    for i, alone in zip((0, 1, 3), found, strict=True):
        np.testing.assert_allclose(together.mean[i], alone.mean[0], atol=1e-6)
        np.testing.assert_allclose(together.variance[i], alone.variance[0], atol=1e-6)


def test_recovers_the_truth_and_comes_close_to_it_in_co_smoothing(fit: CountGPFA) -> None:
    np.testing.assert_allclose(np.sort(fit.time_scale_), TIME_SCALE, rtol=0.2)
    held_out = np.arange(20) % 4 == 0
    seen = TEST.copy()
    seen[:, :, held_out] = np.nan
    ours, truth = (
        bits_per_spike(m.predict(seen).mean[..., held_out], TEST[..., held_out]) for m in (fit, true_model())
    )
    roots = GPFA(2, BIN_WIDTH).fit(np.sqrt(TRAIN)).predict(np.sqrt(seen))
    second_moment = np.maximum(roots.mean**2 + roots.variance, 1e-3)
    gaussian = bits_per_spike(second_moment[..., held_out], TEST[..., held_out])
    assert ours > 0.97 * truth
    assert ours > gaussian


def test_missing_and_ragged_counts(fit: CountGPFA) -> None:
    ragged = [TEST[0], TEST[1, :22]]
    latents = fit.transform(ragged)
    assert latents[1].shape == (22, 2)
    np.testing.assert_allclose(latents[1], np.asarray(fit.transform(TEST[1:2, :22]))[0], atol=1e-4)
    nothing = np.full((1, 30, 20), np.nan)
    posterior = fit.posterior(nothing)
    np.testing.assert_allclose(posterior.mean, 0.0, atol=1e-9)
    np.testing.assert_allclose(posterior.variance, 1.0, rtol=1e-4)


def test_overdispersed_counts_are_recognised() -> None:
    rng = np.random.default_rng(3)
    r = 2.0
    y = rng.negative_binomial(r, r / (r + 4 * RATE[:20, :, :10])).astype(float)
    fits = [CountGPFA(2, BIN_WIDTH, likelihood=k).fit(y) for k in ("poisson", "negative-binomial")]
    assert fits[1].elbo(y).sum() > fits[0].elbo(y).sum() + 100
    assert np.median(fits[1].dispersion_) == pytest.approx(r, rel=0.3)


def test_silent_units_stay_finite_and_fits_repeat() -> None:
    y = TRAIN[:6].copy()
    y[..., 5] = 0
    fits = [CountGPFA(2, BIN_WIDTH).fit(y) for _ in range(2)]
    prediction = fits[0].predict(y)
    assert all(np.isfinite(a).all() for a in (*prediction, *fits[0].state().values()))
    assert prediction.mean[..., 5].max() < 0.05
    for name, value in fits[0].state().items():
        np.testing.assert_array_equal(value, fits[1].state()[name])


def test_long_trials_are_cut_without_losing_bins() -> None:
    data = as_padded_trials(np.arange(2 * 250 * 3, dtype=float).reshape(2, 250, 3))
    pieces = cut(data, 100)
    assert pieces.value.shape == (6, 84, 3)
    np.testing.assert_array_equal(np.sort(pieces.value[pieces.observed]), np.sort(data.value.ravel()))


def test_save_and_load(fit: CountGPFA, tmp_path: Path) -> None:
    fit.save(tmp_path / "fit.safetensors")
    np.testing.assert_array_equal(
        CountGPFA.load(tmp_path / "fit.safetensors").transform(TEST), fit.transform(TEST)
    )


def test_wrong_use_is_refused() -> None:
    with pytest.raises(ValueError, match="whole numbers"):
        CountGPFA(2).fit(TRAIN + 0.5)
    with pytest.raises(ValueError, match="binomial"):
        CountGPFA(2, likelihood="gamma")
