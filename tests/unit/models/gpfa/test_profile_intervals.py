"""Intervals of time scales and delays: against profiles of dense Gaussians, their coverage, open ends."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.stats import binom

from colatent.models.gpfa import profile_intervals as gpfa_profile
from colatent.models.gpfa.fit import NEGLIGIBLE_COLUMN
from colatent.models.gpfa.gaussian import GPFA
from colatent.models.gpfa.options import FitOptions

Array = np.ndarray
WIDTH = 0.02
DROP = 1.9207  # chi2(1) has 95 % of its mass below twice this (any table)


def covariances(log_tau: Array, n_bins: int) -> Array:
    """Squared-exponential covariances of the latents (latent, time, time)."""
    lag = np.subtract.outer(np.arange(n_bins), np.arange(n_bins))
    return np.exp(-0.5 * (lag / np.exp(log_tau)[:, None, None]) ** 2)


def simulate(tau: Array, shape: tuple[int, int, int], seed: int) -> Array:
    """Draw from the model with time scales in bins, (trial, time, channel)."""
    rng = np.random.default_rng(seed)
    n_trials, n_bins, n_channels = shape
    roots = [np.linalg.cholesky(k + 1e-9 * np.eye(n_bins)) for k in covariances(np.log(tau), n_bins)]
    z = np.stack([rng.standard_normal((n_trials, n_bins)) @ r.T for r in roots], axis=-1)
    loading = rng.uniform(0.6, 1.4, (n_channels, len(tau))) * rng.choice([-1, 1], (n_channels, len(tau)))
    return z @ loading.T + 2 + 0.7 * rng.standard_normal(shape)


def simulate_delayed(tau: float, delay: float, shape: tuple[int, int, int], seed: int) -> dict[str, Array]:
    """Draw two modalities of one latent, the second ``delay`` bins later."""
    rng = np.random.default_rng(seed)
    n_trials, n_bins, n_channels = shape
    time = np.concatenate([np.arange(n_bins), np.arange(n_bins) - delay])
    covariance = np.exp(-0.5 * (np.subtract.outer(time, time) / tau) ** 2) + 1e-9 * np.eye(2 * n_bins)
    z = rng.standard_normal((n_trials, 2 * n_bins)) @ np.linalg.cholesky(covariance).T
    found = {}
    for name, own in (("a", z[:, :n_bins]), ("b", z[:, n_bins:])):
        signal = own[..., None] * rng.uniform(0.6, 1.4, n_channels)
        found[name] = signal + 0.7 * rng.standard_normal(shape)
    return found


class DenseProfile:
    """Profile of the (penalised) likelihood by one covariance matrix of all bins and channels."""

    def __init__(self, y: Array, n_latents: int, penalty: float):
        self.y, self.q, self.penalty = (y - y.mean((0, 1))) / y.std((0, 1)), n_latents, penalty

    def negative(self, x: Array, log_tau: Array) -> float:
        n_trials, n_bins, p = self.y.shape
        loading, log_noise, offset = x[: p * self.q].reshape(p, self.q), x[p * self.q : -p], x[-p:]
        total = np.kron(np.eye(n_bins), np.diag(np.exp(log_noise)))
        for k, c in zip(covariances(log_tau, n_bins), loading.T, strict=True):
            total += np.kron(k, np.outer(c, c))
        residual = (self.y - offset).reshape(n_trials, -1)
        square = np.einsum("ni,in->", residual, np.linalg.solve(total, residual.T))
        size = (loading**2 / np.exp(log_noise)[:, None]).sum(0) + NEGLIGIBLE_COLUMN
        return 0.5 * (n_trials * np.linalg.slogdet(total)[1] + square + self.penalty * p * np.log(size).sum())

    def fit(self, start: Array, k: int | None = None) -> tuple[float, Array]:
        """Minimise over everything, or everything but log tau_k; time scales come last in ``start``."""
        free = np.ones(len(start), dtype=bool)
        if k is not None:
            free[len(start) - self.q + k] = False

        def objective(x: Array) -> float:
            full = start.copy()
            full[free] = x
            return self.negative(full[: -self.q], full[-self.q :])

        result = minimize(objective, start[free], method="BFGS", options={"gtol": 1e-3})
        full = start.copy()
        full[free] = result.x
        return float(result.fun), full

    def drop(self, best: tuple[float, Array], k: int, log_tau: float) -> float:
        start = best[1].copy()
        start[len(start) - self.q + k] = log_tau
        return self.fit(start, k)[0] - best[0]


class DelayedDenseProfile:
    """Profile over the delay of the second of two modalities that share one latent."""

    def __init__(self, trials: dict[str, Array]):
        y = np.concatenate(list(trials.values()), axis=2)
        self.y = (y - y.mean((0, 1))) / y.std((0, 1))
        self.first = trials["a"].shape[2]

    def negative(self, x: Array, delay: float) -> float:
        n_trials, n_bins, p = self.y.shape
        loading, log_noise, offset, tau = x[:p], x[p : 2 * p], x[2 * p : 3 * p], np.exp(x[-1])
        seen_at = np.arange(n_bins)[:, None] - np.where(np.arange(p) < self.first, 0.0, delay)
        lag = np.subtract.outer(seen_at.ravel(), seen_at.ravel())
        weight = np.tile(loading, n_bins)
        total = np.exp(-0.5 * (lag / tau) ** 2) * np.outer(weight, weight)
        total += np.diag(np.tile(np.exp(log_noise), n_bins))
        residual = (self.y - offset).reshape(n_trials, -1)
        square = np.einsum("ni,in->", residual, np.linalg.solve(total, residual.T))
        return 0.5 * float(n_trials * np.linalg.slogdet(total)[1] + square)

    def fit(self, x: Array, delay: float) -> float:
        return float(minimize(self.negative, x, delay, method="BFGS", options={"gtol": 1e-2}).fun)


def vector(model: GPFA, y: Array) -> Array:
    """Parameters of a fit as ``DenseProfile`` has them: of standardised data, time scales in bins."""
    mean, scale = y.mean((0, 1)), y.std((0, 1))
    return np.concatenate(
        [
            (model.loading_ / scale[:, None]).ravel(),
            np.log(model.noise_variance_ / scale**2),
            (model.offset_ - mean) / scale,
            np.log(model.time_scale_ / WIDTH),
        ]
    )


@pytest.mark.parametrize(
    ("tau", "shape", "penalty"),
    [([2.5], (5, 12, 4), 0.0), ([1.8, 4.0], (8, 10, 4), 0.0), ([2.5], (5, 12, 4), 0.5)],
)
def test_ends_are_those_of_a_dense_profile(tau: list[float], shape: tuple, penalty: float) -> None:
    """Ends agree within 2 % in tau, where an interval spans a factor of about two."""
    y = simulate(np.array(tau), shape, seed=3)
    model = GPFA(len(tau), WIDTH, automatic_relevance=penalty).fit(y)
    interval = model.time_scale_interval(y)
    dense = DenseProfile(y, len(tau), penalty)
    best = dense.fit(vector(model, y))
    np.testing.assert_allclose(interval.maximum / WIDTH, np.exp(best[1][-len(tau) :]), rtol=0.02)
    for k, (low, high) in enumerate(zip(*interval[:2], strict=True)):
        for end in (low, high):
            assert 0 < end < np.inf
            at = np.log(end / WIDTH)
            inside, outside = (-1, 1) if end == high else (1, -1)
            assert dense.drop(best, k, at + 0.02 * inside) < DROP < dense.drop(best, k, at + 0.02 * outside)


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    """Of 40 recordings: counts that a binomial with the level exceeds or misses once in 100 each way."""
    tau, n = np.array([2.5]), 40
    recordings = [simulate(tau, (5, 16, 4), seed) for seed in range(n)]
    models = [GPFA(1, WIDTH).fit(y) for y in recordings]
    for level in (0.5, 0.95):
        intervals = [m.time_scale_interval(y, level) for m, y in zip(models, recordings, strict=True)]
        covered = sum(i.low[0] <= tau[0] * WIDTH <= i.high[0] for i in intervals)
        assert binom.ppf(0.01, n, level) <= covered <= binom.ppf(0.99, n, level)
        assert all(i.low[0] < i.maximum[0] < i.high[0] for i in intervals)


@pytest.fixture(scope="module")
def recording() -> Array:
    return simulate(np.array([2.5]), (10, 20, 5), seed=0)


def test_estimate_lies_inside_and_a_higher_level_is_wider(recording: Array) -> None:
    model = GPFA(1, WIDTH, fitting=FitOptions(convergence=1e-10)).fit(recording)
    narrow, wide = (model.time_scale_interval(recording, level) for level in (0.5, 0.95))
    assert wide.low < narrow.low < model.time_scale_ < narrow.high < wide.high
    np.testing.assert_allclose(wide.maximum, model.time_scale_, rtol=0.01)
    with pytest.raises(ValueError, match="level"):
        model.time_scale_interval(recording, 95)


def open_ends(low: float, high: float) -> Callable[[Array], tuple[bool, bool]]:
    def ends(y: Array) -> tuple[bool, bool]:
        bounds = FitOptions(time_scale_bounds=(low * WIDTH, high * WIDTH))
        model = GPFA(1, WIDTH, fitting=bounds).fit(y)
        interval = GPFA.from_state(model.state()).time_scale_interval(y)  # a saved fit knows its bounds
        return interval.low[0] == 0, interval.high[0] == np.inf

    return ends


def test_ends_beyond_the_bounds_of_the_fit_are_open(recording: Array) -> None:
    assert open_ends(1, 20)(recording) == (False, False)
    assert open_ends(2.45, 20)(recording) == (True, False)
    assert open_ends(1, 2.55)(recording) == (False, True)
    assert open_ends(4, 20)(recording) == (True, False)  # the fit itself lies at the bound


def test_a_latent_without_loadings_has_no_ends(recording: Array) -> None:
    model = GPFA(2, WIDTH, automatic_relevance=1.0).fit(recording)
    assert model.n_relevant_ == 1
    interval = model.time_scale_interval(recording)
    assert 0 < interval.low[0] < model.time_scale_[0] < interval.high[0] < np.inf
    assert (interval.low[1], interval.high[1]) == (0, np.inf)


def test_missing_values_leave_the_ends_finite(recording: Array) -> None:
    """Trials of two lengths, and bins without a channel: wider than with all values, and not by much."""
    missing = recording.copy()
    missing[:3, 15:] = np.nan
    missing[5, 3:9, 2] = np.nan
    model = GPFA(1, WIDTH).fit(missing)
    some, every = (model.time_scale_interval(y) for y in (missing, recording))
    width, full = (float(np.log(i.high / i.low)[0]) for i in (some, every))
    assert full < width < 1.5 * full


@pytest.mark.parametrize("every", [2, 5])
def test_steps_where_rounding_leaves_no_likelihood_are_taken_back(
    recording: Array, monkeypatch: pytest.MonkeyPatch, every: int
) -> None:
    """Of the evaluations on profiles, one in so many fails."""
    model = GPFA(1, WIDTH, fitting=FitOptions(convergence=1e-10)).fit(recording)
    undisturbed = model.time_scale_interval(recording)
    profile, real = gpfa_profile._Search.profile, gpfa_profile.evaluate
    on_profile, asked = False, 0

    def noted(*arguments: object) -> tuple[float, Array]:
        nonlocal on_profile
        on_profile = True
        found = profile(*arguments)  # type: ignore[arg-type]
        on_profile = False
        return found

    def failing(blocks: list, parameters: object) -> tuple:
        nonlocal asked
        asked += on_profile
        if on_profile and asked % every == 0:
            raise torch.linalg.LinAlgError("not positive-definite")
        return real(blocks, parameters)

    monkeypatch.setattr(gpfa_profile._Search, "profile", noted)
    monkeypatch.setattr(gpfa_profile, "evaluate", failing)
    disturbed = model.time_scale_interval(recording)
    assert asked > every
    np.testing.assert_allclose(disturbed.low, undisturbed.low, rtol=0.01)
    np.testing.assert_allclose(disturbed.high, undisturbed.high, rtol=0.01)


def test_an_end_nearer_than_rounding_tells_apart_is_given_up(
    recording: Array, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpfa_profile._Search, "standard_error", lambda *_: 0.0)
    interval = GPFA(1, WIDTH).fit(recording).time_scale_interval(recording)
    assert np.isnan([interval.low, interval.high]).all()


@pytest.fixture(scope="module")
def delayed() -> dict[str, Array]:
    return simulate_delayed(3.0, 2.3, (8, 12, 3), seed=1)


def joint(trials: dict[str, Array]) -> GPFA:
    return GPFA(latents={"a+b": 1}, bin_width=WIDTH, likelihood={"a": "gaussian"}, delays=True).fit(trials)


def test_ends_of_a_delay_are_those_of_a_dense_profile(delayed: dict[str, Array]) -> None:
    """Ends agree within .03 bins, where the interval spans about one."""
    model = joint(delayed)
    of_time_scale, of_delay = model.intervals(delayed)
    assert np.isnan([end[0, 0] for end in of_delay]).all()  # the first modality is never delayed
    low, high, best = (float(end[1, 0]) / WIDTH for end in of_delay)
    dense = DelayedDenseProfile(delayed)
    x = vector(model, np.concatenate(list(delayed.values()), axis=2))
    lowest = min(dense.fit(x, best + step) for step in (-0.02, 0.0, 0.02))
    for end, outward in ((low, -0.03), (high, 0.03)):
        assert dense.fit(x, end - outward) - lowest < DROP < dense.fit(x, end + outward) - lowest
    assert low < 2.3 < high
    assert 0 < of_time_scale.low[0] < of_time_scale.maximum[0] < of_time_scale.high[0] < np.inf


def test_intervals_of_delays_cover_the_truth_as_often_as_they_say() -> None:
    n, level, width = 30, 0.8, []
    for seed in range(n):
        trials = simulate_delayed(3.0, -1.6, (8, 16, 3), seed + 100)
        of_delay = joint(trials).intervals(trials, level)[1]
        width.append((of_delay.low[1, 0] / WIDTH, of_delay.high[1, 0] / WIDTH))
    covered = sum(low <= -1.6 <= high for low, high in width)
    assert binom.ppf(0.01, n, level) <= covered <= binom.ppf(0.99, n, level)


def test_without_a_common_signal_a_delay_has_no_two_ends() -> None:
    """Past some delay the loadings of one modality vanish, and the profile falls no further."""
    rng = np.random.default_rng(4)
    trials = {"a": simulate(np.array([3.0]), (8, 16, 3), seed=5), "b": rng.standard_normal((8, 16, 3))}
    of_delay = joint(trials).intervals(trials)[1]
    assert of_delay.low[1, 0] == -np.inf or of_delay.high[1, 0] == np.inf
