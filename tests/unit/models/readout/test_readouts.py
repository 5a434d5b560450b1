"""Read-outs under what is hidden: whole channels of a trial, and the end of trials."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.linear_model import LinearRegression, PoissonRegressor

from colatent.config import GPFASettings, SmoothedFASettings
from colatent.data import metrics
from colatent.data.tasks import NOTHING_WITHHELD, Task, Withheld
from colatent.data.trials import Trials
from colatent.errors import InputError
from colatent.models.base import FitRun
from colatent.models.baselines.smoothed_fa import SmoothedFA
from colatent.models.gpfa.model import GPFAModel
from colatent.models.readout.readouts import MAX_PATTERNS
from colatent.models.readout.time_course import TimeCourse
from colatent.scoring.answers import answer

N_BINS, Q = 20, 2
FORWARD, SHARE = Task("time", ("m",), "m"), 0.2
FUTURE = Withheld({}, SHARE)


def simulate(seed: int = 0, kind: str = "spikes", n_trials: int = 60, n_channels: int = 12) -> Trials:
    """Smooth stationary latents, and counts or values of them."""
    rng = np.random.default_rng(seed)
    lag = np.subtract.outer(np.arange(N_BINS), np.arange(N_BINS))
    prior = np.exp(-0.5 * (lag / 4.0) ** 2) + 1e-9 * np.eye(N_BINS)
    z = rng.multivariate_normal(np.zeros(N_BINS), prior, (n_trials, Q)).transpose(0, 2, 1)
    drive = z @ rng.normal(0, 0.5, (Q, n_channels))
    value = rng.poisson(np.exp(-0.5 + drive)) if kind == "spikes" else drive + rng.normal(0, 0.3, drive.shape)
    names = tuple(f"c{i}" for i in range(n_channels))
    seen = np.ones(drive.shape, dtype=bool)
    return Trials({"m": value.astype(float)}, {"m": seen}, {"m": names}, {"m": kind}, 0.02)


def without(trials: Trials, missing: np.ndarray) -> Trials:
    """Trials of a recording that lacks channels (trial, channel)."""
    seen = trials.observed["m"] & ~missing[:, None]
    return replace(trials, values={"m": np.where(seen, trials.values["m"], 0.0)}, observed={"m": seen})


def halves(trials: Trials) -> tuple[Trials, Trials]:
    return trials.select(np.arange(40)), trials.select(np.arange(40, trials.n_trials))


def smoothed_fa(training: Trials, withheld: Withheld = FUTURE) -> SmoothedFA:
    settings = SmoothedFASettings(kind="smoothed-fa", latents={"m": Q}, smoothing=2 * 0.02)
    return SmoothedFA(settings, training.layout).fit(training, FitRun(withheld=withheld))


def gpfa(training: Trials, withheld: Withheld = FUTURE, mean: str = "constant") -> GPFAModel:
    settings = GPFASettings(kind="gpfa", latents={"m": Q}, mean=mean)
    return GPFAModel(settings, training.layout).fit(training, FitRun(withheld=withheld, intervals=False))


def latents(model, trials: Trials, bins) -> np.ndarray:
    return model.latents(trials, ("m",))[0][bins]


@pytest.mark.parametrize(("make", "tolerance"), [(smoothed_fa, 1e-10), (gpfa, 1e-4)], ids=["fa", "gpfa"])
def test_what_is_predicted_of_a_trial_depends_on_no_other_trial(make, tolerance):
    training, test = halves(simulate())
    missing = np.zeros((20, 12), dtype=bool)
    missing[3, 4:] = missing[4:9, :2] = missing[7, 5:7] = missing[12] = True
    test = without(test, missing)
    hidden = {"m": np.arange(12) < 3}
    model = make(training, Withheld.of(test, hidden, SHARE))
    for seen in (test, test.hide_end(SHARE), test.hide(hidden)):
        together = model.predict(seen, ("m",), "m").mean
        assert np.isfinite(together).all()
        for chosen in (np.array([3]), np.array([4, 7]), np.arange(10, 15)):
            alone = model.predict(seen.select(chosen), ("m",), "m").mean
            np.testing.assert_allclose(alone, together[chosen], rtol=tolerance)


def test_a_channel_missing_in_one_trial_is_read_out_as_a_hidden_one():
    training, test = halves(simulate())
    missing = np.zeros((20, 12), dtype=bool)
    missing[3, 4:] = True
    test = without(test, missing)
    model = smoothed_fa(training, Withheld.of(test, {}, None))
    predicted = model.predict(test, ("m",), "m").mean
    peer = PoissonRegressor(alpha=1e-4, solver="newton-cholesky")
    for i, seen in ((2, training), (3, training.hide({"m": missing[3]}))):
        peer.fit(latents(model, seen, ...).reshape(-1, Q), training.values["m"][..., 8].ravel())
        expected = peer.predict(latents(model, test, i))
        np.testing.assert_allclose(predicted[i, :, 8], expected, rtol=1e-9)


def penalised(rate: np.ndarray, latent: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Weights of log f at the maximum of log Poisson(count | rate · f) - 32 · |weights|²."""
    x = np.column_stack([np.ones(len(latent)), latent])

    def loss(w: np.ndarray) -> tuple[float, np.ndarray]:
        mean = rate * np.exp(x @ w)
        return (mean - count * (x @ w)).sum() + 32 * w @ w, x.T @ (mean - count) + 64 * w

    return minimize(loss, np.zeros(x.shape[1]), jac=True, tol=1e-12).x


@pytest.mark.parametrize("make", [smoothed_fa, gpfa])
def test_the_future_of_counts_is_read_out_as_that_of_training_trials_under_the_same_hiding(make):
    training, test = halves(simulate())
    model = make(training)
    answered = answer(model, FORWARD, test, FUTURE)
    end = np.arange(N_BINS) >= 16
    z_all, z, z_test = (
        latents(model, training, ...).reshape(-1, Q),
        latents(model, training.hide_end(SHARE), np.s_[:, end]).reshape(-1, Q),
        latents(model, test.hide_end(SHARE), ...).reshape(-1, Q),
    )
    for c in range(12):
        count = training.values["m"][..., c]
        ordinary = PoissonRegressor(alpha=1e-4, solver="newton-cholesky").fit(z_all, count.ravel())
        weight = penalised(ordinary.predict(z), z, count[:, end].ravel())
        most = ordinary.predict(z_all).max()  # neither is extrapolated beyond it
        seen = np.minimum(ordinary.predict(z_test), most).reshape(-1, N_BINS)
        unseen = np.minimum(seen * np.exp(weight[0] + z_test @ weight[1:]).reshape(seen.shape), most)
        np.testing.assert_allclose(answered.mean[:, ~end, c], seen[:, ~end], rtol=1e-8)
        np.testing.assert_allclose(answered.mean[:, end, c], unseen[:, end], rtol=1e-3)


def test_with_many_trials_the_future_is_read_out_by_a_regression_on_futures_alone():
    trials = simulate(n_trials=3000, n_channels=6)
    training, test = trials.select(np.arange(2960)), trials.select(np.arange(2960, 3000))
    model = smoothed_fa(training)
    predicted = answer(model, FORWARD, test, FUTURE).mean[:, 16:]
    z, z_test = (latents(model, t.hide_end(SHARE), np.s_[:, 16:]).reshape(-1, Q) for t in (training, test))
    for c in range(6):
        peer = PoissonRegressor(alpha=1e-4).fit(z, training.values["m"][:, 16:, c].ravel())
        np.testing.assert_allclose(predicted[..., c].ravel(), peer.predict(z_test), rtol=0.05)


def test_the_future_of_values_has_the_noise_of_predicted_futures():
    training, test = halves(simulate(kind="continuous"))
    model = smoothed_fa(training)
    predictive = answer(model, FORWARD, test, FUTURE).predictive
    z_all = latents(model, training, ...).reshape(-1, Q)
    z, z_test = (latents(model, t.hide_end(SHARE), np.s_[:, 16:]).reshape(-1, Q) for t in (training, test))
    x, x_test = (np.column_stack([np.ones(len(a)), a]) for a in (z, z_test))
    for c in range(12):
        value = training.values["m"][..., c]
        ordinary = LinearRegression().fit(z_all, value.ravel())
        rest = value[:, 16:].ravel() - ordinary.predict(z)
        weight = np.linalg.solve(x.T @ x + 64 * np.eye(Q + 1), x.T @ rest)
        expected = ordinary.predict(z_test) + x_test @ weight
        np.testing.assert_allclose(predictive.mean[:, 16:, c].ravel(), expected, rtol=1e-8, atol=1e-10)
        np.testing.assert_allclose(predictive.scale[:, 16:, c], np.sqrt(np.mean((rest - x @ weight) ** 2)))
        error = value.ravel() - ordinary.predict(z_all)
        np.testing.assert_allclose(predictive.scale[:, :16, c], np.sqrt((error**2).sum() / (len(error) - 3)))
    z_score = ((test.values["m"] - predictive.mean) / predictive.scale)[:, 16:]
    assert 0.8 < z_score.std() < 1.25


@pytest.mark.parametrize("make", [smoothed_fa, gpfa])
def test_a_predicted_future_beats_the_training_mean(make):
    gain, share = [], Withheld({}, 0.4)
    for seed in range(4):
        training, test = halves(simulate(seed, n_trials=100))
        answered = answer(make(training, share), FORWARD, test, share)
        mean = np.broadcast_to(training.values["m"].mean(axis=(0, 1)), answered.mean.shape)
        model, flat = (
            metrics.bits_per_spike(answered.observation, rate, answered.scored).pooled
            for rate in (answered.mean, mean)
        )
        gain.append(model - flat)
    assert np.mean(gain) > 0


@pytest.mark.parametrize("make", [smoothed_fa, gpfa])
@pytest.mark.parametrize("kind", ["spikes", "continuous"])
def test_what_was_recorded_in_a_hidden_future_changes_no_bit_of_its_prediction(make, kind):
    training, test = halves(simulate(kind=kind))
    model = make(training)
    noise = np.random.default_rng(1).poisson(9.0, test.values["m"].shape).astype(float)
    spoiled = replace(test, values={"m": np.where(test.last_part(SHARE)[..., None], noise, test.values["m"])})
    one, two = (answer(model, FORWARD, t, FUTURE) for t in (test, spoiled))
    assert (one.observation != two.observation).any()
    np.testing.assert_array_equal(one.mean, two.mean)


def test_a_unit_silent_in_all_training_futures_may_still_fire():
    training, test = halves(simulate())
    counts = training.values["m"].copy()
    counts[:, 16:, 0] = 0.0
    counts[..., 1] = 0.0
    model = smoothed_fa(replace(training, values={"m": counts}))
    rate = answer(model, FORWARD, test, FUTURE).mean
    assert rate.min() > 1e-4


def test_scattered_gaps_do_not_cost_a_fit_each():
    training, test = halves(simulate())
    rng = np.random.default_rng(2)
    lacking = rng.random((40, 12)) < 0.2
    assert len(np.unique(lacking, axis=0)) > MAX_PATTERNS
    seen, hidden = without(test, rng.random((20, 12)) < 0.2), np.arange(12) < 3
    model = smoothed_fa(without(training, lacking), Withheld.of(seen, {"m": hidden}, None))
    np.testing.assert_array_equal(model._readouts.missing, [np.zeros(12, dtype=bool), hidden])
    for asked in (seen, seen.hide({"m": hidden})):
        assert np.isfinite(model.predict(asked, ("m",), "m").mean).all()


def test_a_pattern_that_was_not_foreseen_is_read_out_as_the_one_that_differs_least():
    training, test = halves(simulate())
    missing = np.zeros((20, 12), dtype=bool)
    missing[3, 4:] = missing[5, :2] = True
    model = smoothed_fa(training, Withheld.of(without(test, missing), {}, None))
    missing[3, 4] = False
    got = model.predict(without(test, missing), ("m",), "m").mean
    peer = PoissonRegressor(alpha=1e-4, solver="newton-cholesky")
    z = latents(model, training.hide({"m": np.arange(12) >= 4}), ...).reshape(-1, Q)
    expected = peer.fit(z, training.values["m"][..., 8].ravel()).predict(
        latents(model, without(test, missing), 3)
    )
    np.testing.assert_allclose(got[3, :, 8], expected, rtol=1e-9)


def test_an_end_that_was_not_foreseen_is_refused():
    training, test = halves(simulate())
    model = smoothed_fa(training, NOTHING_WITHHELD)
    with pytest.raises(ValueError, match="no read-out of 'm' was fitted to the end of trials"):
        answer(model, FORWARD, test, FUTURE)


def with_course(n_trials: int = 60, seed: int = 3) -> Trials:
    """Counts of latents and of a time course that all trials share, each channel its own."""
    rng = np.random.default_rng(seed)
    trials = simulate(seed, n_trials=n_trials)
    course = 1.5 * np.sin(np.linspace(0, 2 * np.pi, N_BINS)[:, None] + rng.uniform(0, 6, 12))
    counts = rng.poisson(np.exp(course - 0.5) * (0.5 + trials.values["m"]) / 2).astype(float)
    return replace(trials, values={"m": counts})


def bits(rate: np.ndarray, counts: np.ndarray, training: Trials) -> float:
    null = np.broadcast_to(training.values["m"].mean(axis=(0, 1)), training.values["m"][:1].shape)
    null = null[..., : counts.shape[-1]]
    return float((counts * np.log(rate / null) - rate + null).sum() / counts.sum() / np.log(2))


def test_a_time_course_helps_hidden_channels_that_have_one():
    trials = with_course()
    training, test = halves(trials)
    hidden = {"m": np.arange(12) < 3}
    found = {}
    for mean in ("constant", "time"):
        model = gpfa(training, Withheld.of(trials, hidden, SHARE), mean=mean)
        settings = GPFASettings(kind="gpfa", latents={"m": Q}, mean=mean)
        read = GPFAModel.from_state(settings, training.layout, model.state())
        seen = test.hide(hidden)
        rate = model.predict(seen, ("m",), "m").mean
        np.testing.assert_array_equal(rate, read.predict(seen, ("m",), "m").mean)
        assert np.isfinite(model.predict(test.hide_end(SHARE), ("m",), "m").mean).all()
        found[mean] = bits(rate[..., :3], test.values["m"][..., :3], training)
    assert found["time"] > found["constant"] + 0.1


def test_a_time_course_of_noise_is_given_no_weight():
    """Fitted on the trials that it has seen, it would predict them too well, and others worse."""
    training, test = halves(simulate(4, n_trials=60))
    training = training.select(np.arange(10))
    hidden = {"m": np.arange(12) < 3}
    found = {}
    for mean in ("constant", "time"):
        model = gpfa(training, Withheld.of(test, hidden, None), mean=mean)
        rate = model.predict(test.hide(hidden), ("m",), "m").mean[..., :3]
        found[mean] = bits(rate, test.values["m"][..., :3], training)
    assert found["time"] > found["constant"] - 0.02


def test_windows_of_a_continuous_recording_have_no_time_course():
    training = replace(simulate(), time_locked=False)
    settings = GPFASettings(kind="gpfa", latents={"m": Q}, mean="time")
    with pytest.raises(InputError, match="needs trials aligned in time"):
        GPFAModel(settings, training.layout)


def test_the_time_course_of_a_left_out_trial_is_that_of_the_others():
    trials = with_course(20)
    for left in (0, 7):
        others = trials.select(np.arange(20) != left)
        found, of_others = TimeCourse.fit(trials, "m"), TimeCourse.fit(others, "m")
        assert found.width == of_others.width
        np.testing.assert_allclose(found.left_out[left], of_others.courses.value[0], atol=1e-9)
    assert np.abs(found.courses.value.mean(axis=1)).max() < 1e-12


def test_where_channels_drift_from_trial_to_trial_the_time_course_is_not_turned_round():
    rng = np.random.default_rng(6)
    training, test = halves(simulate(5, kind="continuous"))
    training = training.select(np.arange(10))
    hidden = {"m": np.arange(12) < 3}
    drifting = [
        replace(t, values={"m": t.values["m"] + rng.normal(0, 1, (t.n_trials, 1, 12))})
        for t in (training, test)
    ]
    error = {}
    for mean in ("constant", "time"):
        model = gpfa(drifting[0], Withheld.of(drifting[1], hidden, None), mean=mean)
        readouts = next(iter(model.readouts.values()))
        assert mean == "constant" or (readouts.readout.weight[..., -1] >= 0).all()
        found = model.predict(drifting[1].hide(hidden), ("m",), "m").mean[..., :3]
        error[mean] = ((found - drifting[1].values["m"][..., :3]) ** 2).mean()
    assert error["time"] < 1.1 * error["constant"]
