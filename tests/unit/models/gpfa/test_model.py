"""GPFA as the workflow asks it: predictive distributions of counts, hidden channels, what a summary says."""

import numpy as np
import pytest
from scipy import stats

from colatent.config import GPFASettings
from colatent.data.tasks import Withheld
from colatent.data.trials import Trials
from colatent.models.base import FitRun
from colatent.models.gpfa.gaussian import GPFA
from colatent.models.gpfa.model import LEVEL, GPFAModel


def fit(trials: Trials, **options) -> GPFAModel:
    settings = GPFASettings(kind="gpfa", latents={"spikes": 2}, **options)
    return GPFAModel(settings, trials.layout).fit(trials.select(np.arange(24)), FitRun())


@pytest.fixture(scope="module", params=["poisson", "negative-binomial"])
def fitted(request: pytest.FixtureRequest, simulated_trials: Trials) -> GPFAModel:
    return fit(simulated_trials, likelihood={"spikes": request.param})


def test_hidden_channels_are_predicted_from_the_others_only(fitted, simulated_trials):
    test = simulated_trials.select(np.arange(40, 44))
    hidden = np.arange(test.values["spikes"].shape[2]) % 4 == 0
    seen = test.hide({"spikes": hidden})
    changed = {**seen.values, "spikes": seen.values["spikes"] + 9.0 * hidden}
    other = Trials(changed, seen.observed, seen.channels, seen.kinds, seen.bin_width, seen.condition)
    one, two = (fitted.predict(t, ("spikes",), "spikes").mean for t in (seen, other))
    np.testing.assert_array_equal(one, two)
    training = simulated_trials.select(np.arange(24)).values["spikes"]
    counts, null = test.values["spikes"][..., hidden], training.mean(axis=(0, 1))[hidden]
    gain = stats.poisson.logpmf(counts, one[..., hidden]) - stats.poisson.logpmf(counts, null)
    assert gain.sum() > 0


def test_it_knows_one_modality(fitted, simulated_trials):
    assert [group.name for group in fitted.latent_groups] == ["spikes", "spikes"]
    with pytest.raises(ValueError, match="knows only 'spikes'"):
        fitted.latents(simulated_trials, ("emg",))
    summary = fitted.summary(np.zeros((1, 1, 2)))
    assert summary.unit == {"spikes": "log rate"} and np.isnan(summary.interval["low"]).all()


def test_intervals_of_time_scales_are_those_of_the_training_trials(simulated_trials):
    model = fit(simulated_trials, automatic_relevance=0.3, intervals=True)
    summary = model.summary(np.zeros((1, 1, 2)))
    gpfa = model.gpfa
    assert isinstance(gpfa, GPFA)
    roots = np.sqrt(simulated_trials.select(np.arange(24)).with_nan("spikes"))
    for name, value in gpfa.time_scale_interval(roots, LEVEL)._asdict().items():
        np.testing.assert_array_equal(summary.interval[name], value)
    assert (summary.interval["low"] < summary.time_scale).all()
    assert summary.interval_attrs["likelihood"] == "penalised"
    assert summary.unit == {"spikes": "√(spikes per bin)"}


def test_intervals_of_delays_are_stored_with_the_fit(simulated_trials):
    settings = GPFASettings(
        kind="gpfa",
        latents={"spikes+emg": 1},
        likelihood={"spikes": "gaussian-sqrt"},
        delays=True,
        intervals=True,
    )
    training = simulated_trials.select(np.arange(16))
    model = GPFAModel(settings, simulated_trials.layout).fit(training, FitRun())
    read = GPFAModel.from_state(settings, simulated_trials.layout, model.state())
    for one in (model, read):
        summary = one.summary(np.zeros((1, 1, 1)))
        low, high = (summary.delay_interval[end][1, 0] for end in ("low", "high"))
        assert low < summary.delay["emg"][0] < high
        assert summary.interval["low"][0] < summary.time_scale[0] < summary.interval["high"][0]


def test_intervals_are_made_only_if_they_are_asked_for(simulated_trials):
    summary = fit(simulated_trials).summary(np.zeros((1, 1, 2)))
    assert np.isnan(summary.interval["low"]).all()
    with pytest.raises(ValueError, match="intervals need a Gaussian model"):
        fit(simulated_trials, likelihood={"spikes": "poisson"}, intervals=True)


JOINT = {"spikes+emg": 2, "spikes": 1, "emg": 1}


@pytest.fixture(scope="module")
def joint(simulated_trials: Trials) -> GPFAModel:
    settings = GPFASettings(kind="gpfa", latents=JOINT, delays=True)
    hidden = {"spikes": np.arange(simulated_trials.layout.n_channels("spikes")) % 4 == 0}
    run = FitRun(withheld=Withheld.of(simulated_trials, hidden, 0.2))
    return GPFAModel(settings, simulated_trials.layout).fit(simulated_trials.select(np.arange(32)), run)


def test_of_several_modalities_each_is_predicted_from_each_subset(joint, simulated_trials):
    test = simulated_trials.select(np.arange(32, 48))
    hidden = {"spikes": np.arange(test.layout.n_channels("spikes")) % 4 == 0}
    asked = joint.tasks(Withheld.of(simulated_trials, hidden, 0.2))
    assert {task.heldout for task in asked} == {"trials", "channels", "time", "modality"}
    views = {"channels": lambda t: t.hide(hidden), "time": lambda t: t.hide_end(0.2)}
    for task in asked:
        seen = views.get(task.heldout, lambda t: t)(test.only(task.given))
        predictive = joint.predict(seen, task.given, task.predicted)
        assert predictive.family == ("poisson" if task.predicted == "spikes" else "gaussian")
        assert predictive.mean.shape == test.values[task.predicted].shape
    emg = test.values["emg"]
    null = simulated_trials.values["emg"][:32].mean(axis=(0, 1))
    from_spikes = joint.predict(test.only(("spikes",)), ("spikes",), "emg").mean
    assert ((emg - from_spikes) ** 2).sum() < 0.8 * ((emg - null) ** 2).sum()


def test_a_cross_prediction_does_not_see_what_it_predicts(joint, simulated_trials):
    test = simulated_trials.select(np.arange(32, 48))
    seen = test.only(("spikes",))
    changed = {**seen.values, "emg": seen.values["emg"] + 9.0}
    other = Trials(changed, seen.observed, seen.channels, seen.kinds, seen.bin_width, seen.condition)
    one, two = (joint.predict(t, ("spikes",), "emg").mean for t in (seen, other))
    np.testing.assert_array_equal(one, two)
    # what nobody informs is at its prior
    mean, variance = joint.latents(seen, ("spikes",))
    np.testing.assert_allclose(mean[..., 3], 0, atol=1e-9)
    np.testing.assert_allclose(variance[..., 3], 1, atol=1e-6)


def test_a_fit_of_several_modalities_that_is_read_back_answers_the_same(joint, simulated_trials):
    settings = GPFASettings(kind="gpfa", latents=JOINT, delays=True)
    read = GPFAModel.from_state(settings, simulated_trials.layout, joint.state())
    test = simulated_trials.select(np.arange(32, 48))
    for given in (("spikes",), ("emg",), ("spikes", "emg")):
        for predicted in ("spikes", "emg"):
            one, two = (m.predict(test.only(given), given, predicted).mean for m in (joint, read))
            np.testing.assert_array_equal(one, two)
    latents = joint.latents(test, ("spikes", "emg"))[0]
    for name in ("spikes", "emg"):
        np.testing.assert_array_equal(joint.decode(latents, name), read.decode(latents, name))
    summary = read.summary(latents)
    assert list(summary.delay) == ["spikes", "emg"] and np.isnan(summary.delay["emg"][2])
    assert (summary.loading["emg"][:, 2] == 0).all() and (summary.loading["spikes"][:, 3] == 0).all()
    damaged = joint.state() | {"delay": np.zeros((3, 4))}
    with pytest.raises(ValueError, match="delay has the shape"):
        GPFAModel.from_state(settings, simulated_trials.layout, damaged)


def test_the_order_of_latents_in_the_config_may_differ_from_that_of_the_session(simulated_trials):
    settings = GPFASettings(kind="gpfa", latents={"emg": 1, "emg+spikes": 2})
    training = simulated_trials.select(np.arange(24))
    model = GPFAModel(settings, simulated_trials.layout).fit(training, FitRun())
    assert model.modalities == ("spikes", "emg")
    assert [group.name for group in model.latent_groups] == ["emg", "emg+spikes", "emg+spikes"]
    loading = model.summary(np.zeros((1, 1, 3))).loading
    assert (loading["spikes"][:, 0] == 0).all() and loading["emg"].all() and loading["spikes"][:, 1:].all()
    predictive = model.predict(training, ("spikes", "emg"), "emg")
    assert np.corrcoef(predictive.mean.ravel(), training.values["emg"].ravel())[0, 1] > 0.8


def test_groups_that_a_fit_finds_are_stored_with_it(simulated_trials):
    settings = GPFASettings(kind="gpfa", latents={"emg+spikes": "auto"})
    training = simulated_trials.select(np.arange(24))
    model = GPFAModel(settings, simulated_trials.layout).fit(training, FitRun())
    groups = [group.name for group in model.latent_groups]
    assert groups and {m for name in groups for m in name.split("+")} == {"spikes", "emg"}
    named = GPFASettings(kind="gpfa", latents={name: groups.count(name) for name in groups})
    same = GPFAModel(named, simulated_trials.layout).fit(training, FitRun())
    read = GPFAModel.from_state(settings, simulated_trials.layout, model.state())
    assert read.latent_groups == model.latent_groups == same.latent_groups
    for given, predicted in ((("spikes",), "emg"), (("spikes", "emg"), "spikes")):
        one, *others = (m.predict(training, given, predicted).mean for m in (model, read, same))
        for other in others:
            np.testing.assert_array_equal(one, other)
    damaged = {name: array for name, array in model.state().items() if name != "groups"}
    with pytest.raises(KeyError, match="groups"):
        GPFAModel.from_state(settings, simulated_trials.layout, damaged)
