"""Baselines against scikit-learn and against what they must not see."""

from dataclasses import replace
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.decomposition import FactorAnalysis
from sklearn.linear_model import PoissonRegressor, Ridge
from sklearn.model_selection import GridSearchCV, GroupKFold, KFold

from colatent.config import ConditionMeanSettings, MLPLagsSettings, RidgeLagsSettings, SmoothedFASettings
from colatent.config.models.baselines import LAGS
from colatent.data import metrics
from colatent.data.scaling import Standardizer
from colatent.data.tasks import NOTHING_WITHHELD, Task, Withheld
from colatent.data.trials import Layout, Trials
from colatent.models.base import FitRun
from colatent.models.baselines import lag_regression
from colatent.models.baselines.condition_mean import Choice, ConditionMean, _Means
from colatent.models.baselines.lag_regression import lagged
from colatent.models.baselines.mlp_lags import MLPLags
from colatent.models.baselines.ridge_lags import RidgeLags
from colatent.models.baselines.smoothed_fa import SmoothedFA
from colatent.models.readout.ridge import fit_ridge

MEAN = ConditionMeanSettings(kind="condition-mean")
RIDGE = RidgeLagsSettings(kind="ridge-lags", lags=5)


def mean_of(training: Trials) -> ConditionMean:
    return ConditionMean(MEAN, training.layout).fit(training, FitRun())


def factor_analysis(training: Trials, withheld: Withheld = NOTHING_WITHHELD) -> SmoothedFA:
    smoothing = 2 * training.bin_width
    settings = SmoothedFASettings(kind="smoothed-fa", latents={"spikes": 3}, smoothing=smoothing)
    return SmoothedFA(settings, training.layout).fit(training, FitRun(withheld=withheld))


def layout(time_locked: bool) -> Layout:
    return Layout({"a": ("0",), "b": ("0",)}, {"a": "continuous", "b": "continuous"}, 0.02, 5, time_locked)


@pytest.fixture
def halves(simulated_trials: Trials) -> tuple[Trials, Trials]:
    return simulated_trials.select(np.arange(40)), simulated_trials.select(np.arange(40, 48))


def test_condition_means_are_the_training_trials_means(halves):
    training, test = halves
    conditions, choice = np.unique(training.condition), Choice(0.0, 2.0)
    assert set(test.condition) <= set(conditions)
    for name in ("spikes", "emg"):
        values, overall = training.values[name], training.values[name].mean(axis=(0, 1))
        means = _Means(training, name)
        of_conditions, left_out = means.of_conditions(conditions, choice), means.left_out(choice)
        np.testing.assert_allclose(of_conditions[-1], np.broadcast_to(overall, of_conditions[-1].shape))
        predicted = of_conditions[np.searchsorted(conditions, test.condition)]
        for i, label in enumerate(test.condition):
            same = training.condition == label
            expected = (values[same].sum(axis=0) + 2 * overall) / (same.sum() + 2)
            np.testing.assert_allclose(predicted[i], expected)
        same = (training.condition == training.condition[3]) & (np.arange(40) != 3)
        expected = (values[same].sum(axis=0) + 2 * overall) / (same.sum() + 2)
        np.testing.assert_allclose(left_out[3], expected)
    flat = mean_of(replace(training, time_locked=False)).predict(test, (), "spikes")
    mean = training.values["spikes"].mean(axis=(0, 1))
    np.testing.assert_allclose(flat.mean, np.broadcast_to(mean, flat.mean.shape))


@pytest.mark.parametrize("noise", [0.02, None])
def test_the_plain_mean_and_the_mean_over_all_can_be_chosen(noise):
    rng, label = np.random.default_rng(0), np.arange(48) % 3
    values = (noise or 1) * rng.standard_normal((48, 20, 20))
    if noise:
        values += np.sin(np.arange(20) / 1.5 + 2.0 * label[:, None])[..., None]
    names = tuple(map(str, range(20)))
    seen = np.ones(values.shape, dtype=bool)
    trials = Trials({"a": values}, {"a": seen}, {"a": names}, {"a": "continuous"}, 0.1, label.astype(str))
    training, test = trials.select(np.arange(24)), trials.select(np.arange(24, 48))
    expected = np.broadcast_to(values[:24].mean(axis=(0, 1)), test.values["a"].shape)
    if noise:
        expected = np.stack([values[:24][label[:24] == k].mean(axis=0) for k in label[24:]])
    np.testing.assert_allclose(mean_of(training).predict(test, (), "a").mean, expected, atol=1e-7)


def test_the_plain_mean_of_counts_keeps_every_spike_possible(halves):
    training = halves[0]
    means = _Means(training, "spikes")
    found = means.of_conditions(np.unique(training.condition), Choice(0.0, 0.0))
    plain = np.stack([training.values["spikes"][training.condition == c].mean(axis=0) for c in "12345678"])
    assert not plain.all()
    least = 0.5 / (40 * training.n_bins)
    np.testing.assert_allclose(found[:-1], np.maximum(plain, least))
    overall = training.values["spikes"].mean(axis=(0, 1))
    np.testing.assert_allclose(found[-1], np.broadcast_to(overall, found[-1].shape))


def test_the_psth_chosen_on_training_trials_beats_the_mean_rate(halves):
    training, test = halves
    model = mean_of(training)
    count, rate = test.values["spikes"], model.predict(test, (), "spikes").mean
    assert metrics.bits_per_spike(count, rate, test.observed["spikes"]).pooled > 0


def test_a_condition_without_training_trials_gets_the_mean_over_all(halves):
    training, test = halves
    seen = replace(training, condition=np.where(training.condition == "1", "étrange", training.condition))
    model = ConditionMean.from_state(MEAN, training.layout, mean_of(seen).state())
    for name in ("spikes", "emg"):
        got = model.predict(replace(test, condition=np.full(test.n_trials, "1")), (), name).mean
        overall = training.values[name].mean(axis=(0, 1))
        np.testing.assert_allclose(got, np.broadcast_to(overall, got.shape))
        kept = model.predict(replace(test, condition=np.full(test.n_trials, "étrange")), (), name).mean
        same = mean_of(training).predict(replace(test, condition=np.full(test.n_trials, "1")), (), name).mean
        np.testing.assert_allclose(kept, same)


def test_lags_are_the_neighbours_and_stay_within_the_trial():
    values = np.arange(2 * 5 * 2, dtype=float).reshape(2, 5, 2) + 1
    x = lagged(values, 3).reshape(2, 5, 3, 2)
    np.testing.assert_array_equal(x[:, :, 1], values)
    np.testing.assert_array_equal(x[:, 1:, 0], values[:, :-1])
    np.testing.assert_array_equal(x[:, :-1, 2], values[:, 1:])
    assert (x[:, 0, 0] == 0).all()
    assert (x[:, -1, 2] == 0).all()


def test_ridge_is_scikit_learns_at_the_chosen_penalty(halves):
    training, test = halves
    model = RidgeLags(RIDGE, training.layout).fit(training, FitRun())
    predicted = model.predict(test.only(("spikes",)), ("spikes",), "emg").mean
    values = training.values | {"spikes": np.sqrt(training.values["spikes"])}
    scales = {m: Standardizer.fit(values[m], training.observed[m]) for m in ("spikes", "emg")}

    def design(trials: Trials) -> np.ndarray:
        x = lagged(scales["spikes"].apply(np.sqrt(trials.values["spikes"]), trials.observed["spikes"]), 5)
        return x.reshape(-1, x.shape[-1])

    y = scales["emg"].apply(training.values["emg"], training.observed["emg"]).reshape(-1, 8)
    candidates = [
        Ridge(a).fit(design(training), y).predict(design(test)).reshape(predicted.shape)
        * scales["emg"].deviation
        + scales["emg"].mean
        for a in np.array([1e-3, *np.logspace(0, 5, 6), 1e9]) * design(training).var(axis=0).mean()
    ]
    assert min(np.abs(c - predicted).max() for c in candidates) < 1e-8


@pytest.mark.parametrize("time_locked", [True, False])
def test_ridge_takes_the_best_penalty_of_folds_that_are_apart(time_locked):
    rng = np.random.default_rng(4)
    drift = np.cumsum(rng.normal(size=(36 * 5, 6)), axis=0).reshape(36, 5, 6)  # windows are like neighbours
    x, y = drift + rng.normal(size=drift.shape), rng.normal(size=(36, 5, 2)) + 0.3 * drift[..., :2]
    seen = np.ones(y.shape, dtype=bool)
    settings = RidgeLagsSettings(kind="ridge-lags", lags=1)
    fitted = RidgeLags(settings, layout(time_locked))._regress(x, y, seen, False, 0)

    def error(penalty: float, fit: np.ndarray, held: np.ndarray) -> np.ndarray:
        flat = [a.reshape(-1, a.shape[-1]) for a in (x[fit], y[fit], x[held], y[held])]
        return ((Ridge(penalty).fit(flat[0], flat[1]).predict(flat[2]) - flat[3]) ** 2).sum(axis=0)

    i = np.arange(36)
    if time_locked:
        folds = list(KFold(3, shuffle=True, random_state=0).split(i))
    else:
        folds = [(i[(i < k - 1) | (i > k + 12)], i[k : k + 12]) for k in (0, 12, 24)]
    penalties = np.array([1e-3, *np.logspace(0, 5, 6), 1e9]) * x.reshape(-1, 6).var(axis=0).mean()
    errors = {p: sum(error(p, *fold) for fold in folds) for p in penalties}
    best = min(errors, key=lambda p: errors[p].sum())
    assert errors[best].sum() < 0.9 * max(e.sum() for e in errors.values())
    peer = Ridge(best).fit(x.reshape(-1, 6), y.reshape(-1, 2))
    np.testing.assert_allclose(fitted["weight"].T, peer.coef_, rtol=1e-8)
    np.testing.assert_allclose(fitted["residual"], np.sqrt(errors[best] / (36 * 5)), rtol=1e-8)


@given(scale=st.floats(-12, 12).map(lambda e: 10.0**e), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_ridge_does_not_depend_on_the_unit_of_its_predictors(scale, seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(2.0, [1.0, 0.1, 3.0], size=(12, 10, 3))
    y = x @ rng.normal(size=(3, 2)) + rng.uniform(0.1, 30.0) * rng.normal(size=(12, 10, 2))
    seen = np.ones(y.shape, dtype=bool)
    seen[3:5, :, 1] = False
    one, other = fit_ridge(x, y, seen, True), fit_ridge(scale * x, y, seen, True)
    np.testing.assert_allclose(scale * other.weight, one.weight, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(other.intercept, one.intercept, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(other.residual, one.residual, rtol=1e-6)


def test_small_latents_are_not_shrunk_away():
    rng = np.random.default_rng(0)
    x = 0.01 * rng.normal(size=(60, 30, 2))
    y = 100 * x @ np.array([[1.0], [0.5]]) + 0.27 * rng.normal(size=(60, 30, 1))
    fitted = fit_ridge(x[:40], y[:40], np.ones((40, 30, 1), dtype=bool), True)
    error = y[40:] - (x[40:] @ fitted.weight + fitted.intercept)
    assert 1 - error.var() / y[40:].var() > 0.93


def test_least_squares_and_the_mean_can_be_chosen():
    rng = np.random.default_rng(0)
    x, noise = rng.normal(size=(30, 40, 30)), rng.normal(size=(30, 40, 1))
    seen = np.ones(noise.shape, dtype=bool)
    weight = rng.normal(size=(30, 1))
    np.testing.assert_allclose(fit_ridge(x, x @ weight, seen, True).weight, weight, atol=1e-5)
    unrelated = fit_ridge(x, noise, seen, True)
    assert np.abs(unrelated.weight).max() < 1e-6
    np.testing.assert_allclose(unrelated.intercept, noise.mean(), atol=1e-6)


@pytest.mark.parametrize("constant", [0.0, 0.1])
def test_predictors_that_never_vary_predict_the_mean(constant):
    y = np.random.default_rng(1).normal(size=(12, 10, 1))
    fitted = fit_ridge(np.full((12, 10, 2), constant), y, np.ones(y.shape, dtype=bool), True)
    assert np.abs(fitted.weight).max() < 1e-9
    np.testing.assert_allclose(fitted.intercept, y.mean(), rtol=1e-9)


def test_standardised_predictors_have_about_the_penalties_themselves(halves):
    training, test = halves
    model = RidgeLags(RIDGE, training.layout).fit(training, FitRun())
    got = model.predict(test, ("spikes",), "emg").mean
    x, x_test = (model._predictors(t, ("spikes",), 5).reshape(-1, 150) for t in halves)
    scale = Standardizer.fit(training.values["emg"], training.observed["emg"])
    y = scale.apply(training.values["emg"], training.observed["emg"]).reshape(-1, 8)
    trial = GroupKFold(3).split(x, y, np.repeat(np.arange(40), training.n_bins))
    absolute = GridSearchCV(Ridge(), {"alpha": np.logspace(0, 5, 6)}, cv=list(trial)).fit(x, y)
    plain = absolute.predict(x_test).reshape(got.shape) * scale.deviation + scale.mean
    r2 = [
        metrics.r2(test.values["emg"], p, test.observed["emg"], scale.deviation).pooled for p in (got, plain)
    ]
    assert r2[0] == pytest.approx(r2[1], abs=0.005)


def test_ridge_takes_the_number_of_lags_that_predicts_best(halves):
    training = halves[0]
    far = np.roll(training.values["spikes"][..., :3], 8, axis=1)  # beyond 5 and 11 centred bins
    delayed = replace(training, values=training.values | {"emg": np.tile(far, 3)[..., :8].astype(float)})
    chosen = RidgeLags(RidgeLagsSettings(kind="ridge-lags"), training.layout).fit(delayed, FitRun())
    lags = {task: int(fitted["lags"]) for task, fitted in chosen._fitted.items()}
    assert lags[Task("modality", ("spikes",), "emg")] == 21
    own = {n: RidgeLags(RidgeLagsSettings(kind="ridge-lags", lags=n), training.layout).fit(delayed, FitRun())
           for n in LAGS}  # fmt: skip
    for task, n in lags.items():
        error = {k: np.square(m._fitted[task]["residual"]).sum() for k, m in own.items()}
        assert error[n] == min(error.values())
        np.testing.assert_array_equal(chosen._fitted[task]["weight"], own[n]._fitted[task]["weight"])
    with patch.object(lag_regression, "MOST_PREDICTORS", 6 * 30):
        assert chosen._lag_choices(Task("modality", ("spikes",), "emg")) == [5]


class WatchedMLP(MLPLags):
    """Keeps what it was trained and stopped on, and the network it kept."""

    def _descend(self, network, inner, outer, counts):
        super()._descend(network, inner, outer, counts)
        self.watched = network, inner, outer


@pytest.mark.parametrize("time_locked", [True, False])
def test_mlp_stops_at_the_best_of_trials_it_is_not_trained_on(time_locked):
    rng = np.random.default_rng(5)
    shape = (20, 4, 1)
    x, y = rng.normal(size=(20, 4, 3)), rng.normal(size=shape)  # nothing to learn but noise
    x[..., 0] = np.arange(20)[:, None] / 20  # says which trial it is
    settings = MLPLagsSettings(kind="mlp-lags", lags=1, hidden=[64], dropout=0.0, epochs=60)
    model = WatchedMLP(settings, layout(time_locked))
    fitted = model._regress(x, y, np.ones(shape, dtype=bool), False, 3)
    network, inner, outer = model.watched
    fit, held = (np.unique((part[0][:, 0] * 20).round().numpy()) for part in (inner, outer))
    assert len(held) == 2
    assert np.abs(held[:, None] - fit[None]).min() >= (1 if time_locked else 2)
    assert len(fit) >= (18 if time_locked else 16)
    network.eval()
    error = {k: float(((network(part[0]) - part[1]) ** 2).detach().mean()) for k, part in
             (("inner", inner), ("outer", outer))}  # fmt: skip
    history = [row["validation_loss"] for row in model.history]
    assert error["outer"] == pytest.approx(min(history), rel=1e-5)
    assert error["outer"] < history[-1] - 1e-3  # to stop on the training loss would be to go on to the end
    assert fitted["residual"][0] ** 2 == pytest.approx(error["outer"], rel=1e-5)


@pytest.mark.parametrize(
    ("cls", "settings"),
    [
        (RidgeLags, RIDGE),
        (MLPLags, MLPLagsSettings(kind="mlp-lags", lags=5, hidden=[32], dropout=0.2, epochs=30)),
    ],
    ids=["ridge", "mlp"],
)
@pytest.mark.parametrize(("given", "predicted"), [("spikes", "emg"), ("emg", "spikes")])
def test_regressions_do_not_see_their_target_and_beat_the_mean(halves, cls, settings, given, predicted):
    training, test = halves
    model = cls(settings, training.layout).fit(training, FitRun(seed=1))
    shown = model.predict(test, (given,), predicted)
    hidden = model.predict(test.only((given,)), (given,), predicted)
    np.testing.assert_array_equal(shown.mean, hidden.mean)
    truth, average = test.values[predicted], training.values[predicted].mean(axis=(0, 1))
    assert ((truth - shown.mean) ** 2).mean() < ((truth - average) ** 2).mean()
    assert (shown.mean > 0).all() or predicted == "emg"


def test_smoothed_fa_infers_scikit_learns_latents(halves):
    training, test = halves
    model = factor_analysis(training)
    mean, variance = model.latents(test, ("spikes",))
    smooth = [model._smooth(t).reshape(-1, 30) for t in (training, test)]
    peer = FactorAnalysis(3, svd_method="lapack").fit(smooth[0])
    np.testing.assert_allclose(mean.reshape(-1, 3), peer.transform(smooth[1]), atol=1e-6)
    assert (variance > 0).all()
    assert (variance < 1).all()


def test_co_smoothing_does_not_see_the_hidden_channels(halves):
    training, test = halves
    hidden = np.arange(30) < 5
    model = factor_analysis(training, Withheld({"spikes": hidden}))
    seen = test.hide({"spikes": hidden})
    one = model.predict(seen, ("spikes",), "spikes").mean
    # values where nothing was observed mean nothing
    changed = replace(seen, values={**seen.values, "spikes": seen.values["spikes"] + 7 * hidden})
    np.testing.assert_array_equal(model.predict(changed, ("spikes",), "spikes").mean, one)
    # the read-out is fitted on training latents that were inferred without the hidden channels, too
    z_train, z_test = (model._infer(t)[0].reshape(-1, 3) for t in (
        training.hide({"spikes": hidden}), seen
    ))  # fmt: skip
    for c in np.flatnonzero(hidden):
        peer = PoissonRegressor(alpha=1e-4, solver="newton-cholesky")
        expected = peer.fit(z_train, training.values["spikes"][..., c].ravel()).predict(z_test)
        np.testing.assert_allclose(one[..., c].ravel(), expected, rtol=1e-9)
    with pytest.raises(ValueError, match="knows only"):
        model.predict(test, ("emg",), "spikes")


def test_a_unit_silent_in_training_does_not_make_its_spikes_impossible(halves):
    training, test = halves
    counts = training.values["spikes"].copy()
    counts[..., 0] = 0.0
    observed = training.observed["spikes"].copy()
    observed[..., 1] = False
    silent = replace(
        training,
        values={**training.values, "spikes": np.where(observed, counts, 0.0)},
        observed={**training.observed, "spikes": observed},
    )
    model = factor_analysis(silent)
    rate = model.predict(test, ("spikes",), "spikes").mean
    assert (rate > 0).all()
    score = metrics.bits_per_spike(test.values["spikes"], rate, test.observed["spikes"])
    assert np.isfinite(score.pooled)
