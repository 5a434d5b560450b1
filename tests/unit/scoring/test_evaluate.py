"""The accounting of what a model saw: the worst bug would be here."""

import warnings
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
from scipy import stats

from colatent.analyses.recovery import latent_recovery
from colatent.data.predictive import Predictive
from colatent.data.splits import GUARD, TEST, TRAINING
from colatent.data.tasks import Task, Withheld, tasks_of_latent_model
from colatent.data.trials import Trials
from colatent.models.fitting import FittedModel
from colatent.scoring.answers import answer
from colatent.scoring.evaluate import evaluate


class Spy:
    """A latent model that remembers what it was shown."""

    def __init__(self) -> None:
        self.shown: list[tuple[tuple[str, ...], str, Trials]] = []

    def tasks(self, withheld: Withheld) -> list[Task]:
        return tasks_of_latent_model(("spikes", "emg"), withheld)

    def predict(self, trials: Trials, given: tuple[str, ...], predicted: str) -> Predictive:
        self.shown.append((given, predicted, trials))
        shape = (1, *trials.values[predicted].shape)
        return (
            Predictive("poisson", np.full(shape, 0.3))
            if trials.kinds[predicted] == "spikes"
            else Predictive("gaussian", np.zeros(shape), np.ones(1))
        )


HIDDEN = {"spikes": np.arange(30) < 5}
WITHHELD = Withheld(HIDDEN, time=0.25)


def test_a_model_is_shown_the_given_modalities_and_held_in_channels_only(simulated_trials):
    spy: Any = Spy()
    for task in spy.tasks(WITHHELD):
        scored = answer(spy, task, simulated_trials, WITHHELD).scored
        given, predicted, shown = spy.shown[-1]
        assert given == task.given
        for m in ("spikes", "emg"):
            if m not in given:
                assert not shown.observed[m].any()
                assert (shown.values[m] == 0).all()
        if task.heldout == "channels":
            assert not shown.observed["spikes"][..., HIDDEN["spikes"]].any()
            assert (shown.values["spikes"][..., HIDDEN["spikes"]] == 0).all()
            assert shown.observed["spikes"][..., ~HIDDEN["spikes"]].all()
            assert not scored[..., ~HIDDEN["spikes"]].any()
        elif task.heldout == "time":
            future = slice(round(0.75 * simulated_trials.n_bins), None)
            for m in given:
                assert not shown.observed[m][:, future].any()
                assert (shown.values[m][:, future] == 0).all()
                assert shown.observed[m][:, : future.start].all()
            assert not scored[:, : future.start].any() and scored[:, future].all()
        else:
            assert (task.heldout == "modality") == (predicted not in given)
            np.testing.assert_array_equal(scored, simulated_trials.observed[predicted])


def test_every_question_is_scored_on_every_channel(simulated_trials):
    test, training = simulated_trials.select(np.arange(8)), simulated_trials.select(np.arange(8, 48))
    spy: Any = Spy()
    scores, calibration, errors = evaluate(FittedModel(spy), training, test, WITHHELD)
    questions = scores.groupby(["heldout", "given", "predicted"])
    assert set(questions.groups) == {
        ("trials", "spikes", "spikes"), ("trials", "spikes+emg", "spikes"), ("modality", "emg", "spikes"),
        ("channels", "spikes", "spikes"), ("channels", "spikes+emg", "spikes"),
        ("trials", "emg", "emg"), ("trials", "spikes+emg", "emg"), ("modality", "spikes", "emg"),
        ("time", "spikes", "spikes"), ("time", "spikes+emg", "spikes"), ("time", "emg", "emg"),
        ("time", "spikes+emg", "emg"),
    }  # fmt: skip
    for (heldout, _, predicted), rows in questions:
        n_channels = 5 if heldout == "channels" else len(test.channels[predicted])
        for metric, one in rows.groupby("metric"):
            assert len(one) == n_channels + 1, metric
            assert one.query("channel == 'pooled'")["n"].item() > 0
    pooled = scores.query("channel == 'pooled' and metric == 'log_density'")
    both = {"trials/spikes", "trials/emg", "channels/spikes", "time/spikes", "time/emg"}
    assert set(errors) == both | {"modality/spikes", "modality/emg"}
    assert {name for name, d in errors.items() if d.attrs["given"] == "spikes+emg"} == both
    asked = list(zip(*(calibration[key].values for key in ("heldout", "given", "predicted")), strict=True))
    assert asked == list(zip(pooled["heldout"], pooled["given"], pooled["predicted"], strict=True))
    np.testing.assert_array_equal(calibration["n"], pooled["n"])
    spikes = set(scores.query("predicted == 'spikes'")["metric"])
    assert spikes == {"bits_per_spike", "psth_r2", "log_density", "coverage_50", "coverage_95"}
    emg = set(scores.query("predicted == 'emg'")["metric"])
    assert emg == {"r2", "nrmse", "log_density", "coverage_50", "coverage_95"}


def test_errors_by_trial_and_by_bin_are_those_of_what_is_scored(simulated_trials):
    test, training = simulated_trials.select(np.arange(8)), simulated_trials.select(np.arange(8, 48))
    seen = np.random.default_rng(0).random(test.observed["emg"].shape) < 0.6
    seen[2] = False  # a trial of which nothing is known
    test = replace(test, observed={**test.observed, "emg": seen})
    training.values["emg"][..., 3] = 7.0  # a channel without a scale
    spy: Any = Spy()
    found = evaluate(FittedModel(spy), training, test, Withheld({})).diagnostics["modality/emg"]
    seen[..., 3] = False
    y, before = (np.where(seen, test.values["emg"], np.nan), training.values["emg"].reshape(-1, 8))
    y /= before.std(axis=0) + (np.arange(8) == 3)
    with np.errstate(invalid="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of empty slices
        expected = {
            "nrmse": np.sqrt(np.nanmean(y**2, axis=(1, 2))),
            "residual_mean": np.nanmean(y, axis=(0, 2)),
            "residual_rms": np.sqrt(np.nanmean(y**2, axis=(0, 2))),
            "log_density": np.nanmean(
                np.where(seen, stats.norm.logpdf(test.values["emg"]), np.nan), axis=(1, 2)
            ),
            "n": seen.sum(axis=(1, 2)),
        }
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, err_msg=name)
    assert np.isnan(found["nrmse"][2]) and found["n"][2] == 0


def test_hiding_leaves_the_original_untouched(simulated_trials):
    before = simulated_trials.values["spikes"].copy()
    simulated_trials.hide(HIDDEN).only(("emg",))
    np.testing.assert_array_equal(simulated_trials.values["spikes"], before)


def test_latents_are_aligned_on_training_trials_only():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(30, 10, 2))
    mixing = np.array([[2.0, 1.0], [-1.0, 0.5]])
    inferred = np.concatenate([truth[..., :1] * 3 + 1, rng.normal(size=(30, 10, 1))], axis=-1)
    role = np.select([np.arange(30) < 20, np.arange(30) >= 22], [TRAINING, TEST], GUARD)
    training, test = role == TRAINING, role == TEST
    seen = np.ones_like(truth, dtype=bool)
    groups = ("a+b", "a")
    rows = latent_recovery(inferred, groups, truth, seen, groups, role)["r2"]
    assert rows[0] == pytest.approx(1.0)
    assert rows[1] < 0.1  # its own group holds noise; the other group's latent must not help
    both = latent_recovery(truth @ mixing, ("a", "a"), truth, seen, ("a", "a"), role)
    assert both["r2"].to_numpy() == pytest.approx(1.0)
    spoiled = inferred.copy()
    spoiled[~training] *= -1  # an alignment that looked at the test trials would not notice
    z = truth[test][..., 0]
    expected = 1 - ((2 * z + 2 / 3) ** 2).sum() / ((z - z.mean()) ** 2).sum()  # (-(3 z + 1) - 1) / 3
    got = latent_recovery(spoiled, groups, truth, seen, groups, role)["r2"][0]
    assert got == pytest.approx(expected)


def test_the_scale_of_scores_is_that_of_training_trials(simulated_trials):
    test, training = simulated_trials.select(np.arange(8)), simulated_trials.select(np.arange(8, 48))
    unit = np.array([1.0, 5.0, 1.0, 20.0, 1.0, 1.0, 0.1, 1.0])  # channels vary otherwise than in training
    test = replace(test, values={**test.values, "emg": test.values["emg"] * unit})
    spy: Any = Spy()
    found = evaluate(FittedModel(spy), training, test, Withheld({}))
    scores = found.scores.query("heldout == 'modality'")
    y = test.values["emg"].reshape(-1, 8)  # predicted as zero
    deviation = training.values["emg"].reshape(-1, 8).std(axis=0)
    rows = scores.query("predicted == 'emg'").set_index(["metric", "channel"])["value"]
    nrmse = np.sqrt((y**2).mean(axis=0)) / deviation
    for name, value in zip(test.channels["emg"], nrmse, strict=True):
        assert rows["nrmse", name] == pytest.approx(value)
    assert rows["nrmse", "pooled"] == pytest.approx(np.sqrt((nrmse**2).mean()))
    spread = ((y - y.mean(axis=0)) ** 2 / deviation**2).sum()
    assert rows["r2", "pooled"] == pytest.approx(1 - (y**2 / deviation**2).sum() / spread)


def test_the_last_part_of_a_trial_ends_where_its_last_observation_is(simulated_trials):
    n = simulated_trials.n_bins
    seen = {m: o[:4].copy() for m, o in simulated_trials.observed.items()}
    for m in seen:
        seen[m][1, n // 2 :] = False  # a short trial
        seen[m][3] = False  # an empty one
    seen["emg"][2, -3:] = False  # of one modality only: the trial goes on
    trials = replace(simulated_trials.select(np.arange(4)), observed=seen)
    future = trials.last_part(0.2)
    expected = [round(0.8 * n), round(0.8 * (n // 2)), round(0.8 * n)]
    np.testing.assert_array_equal(future[:3].argmax(axis=1), expected)
    assert (np.diff(future[:3].astype(int), axis=1) >= 0).all()
    assert trials.last_part(1e-9).sum(axis=1).min() >= 1  # at least a bin
    task, model = Task("time", ("spikes", "emg"), "emg"), cast(Any, Spy())
    scored = answer(model, task, trials, Withheld({}, time=0.2)).scored
    np.testing.assert_array_equal(scored, seen["emg"] & future[..., None])
    assert not scored[3].any()
