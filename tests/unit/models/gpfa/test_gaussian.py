"""The estimator: shapes and kinds of trials, robustness, recovery, order and sign, saving."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from sklearn.decomposition import FactorAnalysis

from colatent.models.gpfa.gaussian import GPFA
from colatent.models.gpfa.options import FitOptions
from colatent.models.gpfa.selection import co_smoothing_r2, select_n_latents

BIN_WIDTH = 0.02
TIME_SCALE = np.array([0.05, 0.2])


def simulate(n_trials: int = 30, n_bins: int = 60, n_channels: int = 15, seed: int = 0) -> tuple:
    rng = np.random.default_rng(seed)
    lag = np.subtract.outer(np.arange(n_bins), np.arange(n_bins)) * BIN_WIDTH
    roots = [np.linalg.cholesky(np.exp(-0.5 * (lag / s) ** 2) + 1e-7 * np.eye(n_bins)) for s in TIME_SCALE]
    z = np.stack([rng.standard_normal((n_trials, n_bins)) @ r.T for r in roots], axis=-1)
    loading = rng.standard_normal((n_channels, 2)) * np.array([1.0, 0.7])
    y = z @ loading.T + 5 + 0.8 * rng.standard_normal((n_trials, n_bins, n_channels))
    return z, y


Z, Y = simulate()


@pytest.fixture(scope="module")
def fit() -> GPFA:
    return GPFA(n_latents=2, bin_width=BIN_WIDTH).fit(Y)


def test_recovers_time_scales_latents_and_noise(fit: GPFA) -> None:
    np.testing.assert_allclose(fit.time_scale_, TIME_SCALE, rtol=0.1)
    np.testing.assert_allclose(fit.noise_variance_, 0.64, rtol=0.15)
    z = np.asarray(fit.transform(Y))
    for k in range(2):
        assert abs(np.corrcoef(z[..., k].ravel(), Z[..., k].ravel())[0, 1]) > 0.95


def test_likelihood_rises_and_is_that_of_the_fit(fit: GPFA) -> None:
    values = [row["log_likelihood"] for row in fit.history_]
    assert fit.converged_ and all(np.diff(values) > -1e-9)
    assert values[-1] * Y.shape[0] * Y.shape[1] == pytest.approx(fit.log_marginal_likelihood(Y), rel=1e-5)


def test_fit_is_a_stationary_point() -> None:
    fit = GPFA(2, BIN_WIDTH, fitting=FitOptions(convergence=1e-12), tolerance=1e-6).fit(Y[:8])
    best = fit.log_marginal_likelihood(Y[:8])
    for name in ("loading", "offset", "noise_variance", "time_scale"):
        for factor in (0.98, 1.02):
            other = GPFA.from_state({**fit.state(), name: fit.state()[name] * factor})
            assert other.log_marginal_likelihood(Y[:8]) < best + 1e-3


def test_beats_factor_analysis_on_test_trials(fit: GPFA) -> None:
    _, y = simulate(seed=0)
    train, test = y[:20], y[20:]
    ours = GPFA(2, BIN_WIDTH).fit(train).log_marginal_likelihood(test) / test[..., 0].size
    theirs = FactorAnalysis(2).fit(train.reshape(-1, 15)).score(test.reshape(-1, 15))
    assert ours > theirs + 0.1


def test_forms_of_trials_give_the_same(fit: GPFA) -> None:
    expected = fit.transform(Y)
    array = xr.DataArray(Y.transpose(2, 0, 1), dims=("channel", "trial", "time"))
    np.testing.assert_array_equal(fit.transform(array), expected)
    ragged = [Y[0], Y[1, :40], Y[2, :40], Y[3, :25]]
    latents = fit.transform(ragged)
    assert [z.shape for z in latents] == [(60, 2), (40, 2), (40, 2), (25, 2)]
    for trial, z in zip(ragged, latents, strict=True):
        np.testing.assert_allclose(z, np.asarray(fit.transform(trial[None]))[0], atol=1e-6)
    padded = np.full((4, 60, 15), np.nan)
    for row, trial in zip(padded, ragged, strict=True):
        row[: len(trial)] = trial
    of_padded = np.asarray(fit.transform(padded))
    assert np.isnan(of_padded[3, 25:]).all() and np.isfinite(of_padded[3, :25]).all()
    assert np.isfinite(fit.posterior(padded).mean).all()


def test_ragged_and_missing_training_data_find_the_same_model(fit: GPFA) -> None:
    rng = np.random.default_rng(2)
    ragged = [trial[: int(n)] for trial, n in zip(Y, rng.integers(40, 61, len(Y)), strict=True)]
    missing = Y.copy()
    missing[:10, :, 4] = np.nan
    missing[5:15, 20:30] = np.nan
    for trials in (ragged, missing):
        other = GPFA(2, BIN_WIDTH).fit(trials)
        np.testing.assert_allclose(other.time_scale_, fit.time_scale_, rtol=0.1)
        signal, expected = (m.loading_ @ m.loading_.T for m in (other, fit))
        np.testing.assert_allclose(signal, expected, atol=0.1 * expected.max())


def test_orthonormal_latents_and_variance_explained(fit: GPFA) -> None:
    direction = fit.orthonormal_loading_
    np.testing.assert_allclose(direction.T @ direction, np.eye(2), atol=1e-12)
    raw, orthonormal = np.asarray(fit.transform(Y)), np.asarray(fit.transform(Y, orthonormal=True))
    np.testing.assert_allclose(orthonormal @ direction.T, raw @ fit.loading_.T, atol=1e-9)
    signal = fit.loading_ @ fit.loading_.T
    np.testing.assert_allclose(
        fit.variance_explained_.sum(1), signal.diagonal() / (signal.diagonal() + fit.noise_variance_)
    )
    assert (direction[np.abs(direction).argmax(0), range(2)] > 0).all()


def test_order_and_sign_are_deterministic(fit: GPFA) -> None:
    size = (fit.loading_**2 / fit.noise_variance_[:, None]).sum(0)
    assert size[0] > size[1]
    scaled = fit.loading_ / np.sqrt(fit.noise_variance_)[:, None]
    assert (scaled[np.abs(scaled).argmax(0), range(2)] > 0).all()
    again = GPFA(2, BIN_WIDTH).fit(Y)
    for name, value in fit.state().items():
        np.testing.assert_array_equal(again.state()[name], value)


def test_silent_channels_and_few_data_stay_finite() -> None:
    y = Y[:3, :12].copy()
    y[..., 3] = 0.0
    y[..., 7] = 2.5
    model = GPFA(4, BIN_WIDTH).fit(y)
    prediction = model.predict(y)
    for array in (*model.state().values(), *prediction, model.transform(y)):
        assert np.isfinite(array).all()
    np.testing.assert_allclose(prediction.mean[..., 3], 0.0, atol=1e-3)
    np.testing.assert_allclose(prediction.mean[..., 7], 2.5, atol=1e-3)
    one_bin = GPFA(1, BIN_WIDTH).fit(Y[:, :1])
    assert np.isfinite(one_bin.transform(Y[:, :1])).all()


def test_long_time_scales_extend_the_circle() -> None:
    """A latent slower than the start suggests still gets a circle with room for it."""
    rng = np.random.default_rng(0)
    drift = np.linspace(-1, 1, 80)[None, :, None] * rng.standard_normal((20, 1, 1))
    y = drift * np.ones(6) + 0.3 * rng.standard_normal((20, 80, 6))
    model = GPFA(1, BIN_WIDTH).fit(y)
    assert model.time_scale_[0] > 40 * BIN_WIDTH
    bounded = GPFA(1, BIN_WIDTH, fitting=FitOptions(time_scale_bounds=(0.02, 0.4))).fit(y)
    assert model.log_marginal_likelihood(y) > bounded.log_marginal_likelihood(y)


def test_save_and_load(fit: GPFA, tmp_path: Path) -> None:
    fit.save(tmp_path / "fit.safetensors")
    loaded = GPFA.load(tmp_path / "fit.safetensors")
    np.testing.assert_array_equal(loaded.transform(Y), fit.transform(Y))
    assert loaded.kernel == fit.kernel and loaded.bin_width == fit.bin_width


def test_matern_data_prefer_a_matern_kernel() -> None:
    rng = np.random.default_rng(0)
    z = np.zeros((20, 80))
    for t in range(1, 80):  # rough: an autoregressive process
        z[:, t] = 0.9 * z[:, t - 1] + np.sqrt(1 - 0.81) * rng.standard_normal(20)
    y = z[..., None] * np.ones(8) + 0.5 * rng.standard_normal((20, 80, 8))
    scores = [
        GPFA(1, BIN_WIDTH, kernel).fit(y).log_marginal_likelihood(y)
        for kernel in ("squared-exponential", "matern-3/2")
    ]
    assert scores[1] > scores[0]


def test_progress_is_reported() -> None:
    lines: list[str] = []
    GPFA(1, BIN_WIDTH).fit(Y[:5], progress=lines.append)
    assert lines and lines[0].startswith("iteration 1: log likelihood")


@pytest.mark.parametrize(
    ("options", "trials", "message"),
    [
        ({"n_latents": 20}, Y, "at least as many channels"),
        ({"n_latents": 2}, Y[0], r"\(trial, time, channel\)"),
        ({"n_latents": 2}, np.full((2, 5, 3), np.nan), "no observation"),
        ({"n_latents": 2}, np.full((2, 5, 3), np.inf), "infinite"),
        ({"n_latents": 2}, [Y[0], Y[1][:, :4]], "same channels"),
        ({"n_latents": 2, "kernel": "cosine"}, Y, "cosine"),
        ({"n_latents": 2, "fitting": FitOptions(time_scale_bounds=(0.2, 0.1))}, Y, "increasing"),
    ],
)
def test_wrong_use_is_refused(options: dict, trials: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GPFA(bin_width=BIN_WIDTH, **options).fit(trials)  # type: ignore[arg-type]


def test_unfitted_and_mismatched_channels_are_refused(fit: GPFA) -> None:
    with pytest.raises(ValueError, match="not fitted"):
        GPFA(2).transform(Y)
    with pytest.raises(ValueError, match="channels"):
        fit.transform(Y[..., :4])


def test_selection_finds_the_number_of_latents() -> None:
    selection = select_n_latents(GPFA, Y, [1, 2, 3, 4], n_folds=3, bin_width=BIN_WIDTH)
    assert selection.chosen == 2
    assert selection.mean[1] > selection.mean[0] + 0.05
    assert selection.r2.shape == (4, 3)
    with pytest.raises(ValueError, match="folds"):
        select_n_latents(GPFA, Y[:2], [1, 2], n_folds=3)


@pytest.mark.parametrize("n_latents", [3, 6])
def test_automatic_relevance_keeps_the_latents_that_are_there(fit: GPFA, n_latents: int) -> None:
    pruned = GPFA(n_latents, BIN_WIDTH, automatic_relevance=1.0).fit(Y)
    assert pruned.n_relevant_ == 2
    assert GPFA(n_latents, BIN_WIDTH).fit(Y).n_relevant_ > 2
    np.testing.assert_allclose(pruned.time_scale_[:2], fit.time_scale_, rtol=0.1)


def test_co_smoothing_r2_of_a_model_that_predicts_the_mean(fit: GPFA) -> None:
    state = fit.state()
    flat = GPFA.from_state({**state, "loading": 1e-9 * state["loading"], "offset": Y.mean((0, 1))})
    assert co_smoothing_r2(flat, Y, np.arange(15) % 3) == pytest.approx(0.0, abs=1e-6)
