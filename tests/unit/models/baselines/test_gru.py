"""The recurrent network: what it sees, what it is trained on, and that it predicts."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from support import fit_to, make_trials, simulate

from colatent.config.models import GRUSettings
from colatent.data.tasks import Task, Withheld
from colatent.errors import InputError
from colatent.models.base import FitRun
from colatent.models.baselines.gru import GRU

HIDDEN = Withheld({"spikes": np.arange(24) < 6, "emg": np.arange(5) < 1})


@pytest.fixture(scope="module")
def fitted():
    trials = simulate(60, seed=3)[0]
    training, test = trials.select(np.arange(45)), trials.select(np.arange(45, 60))
    settings = GRUSettings(kind="gru", units=32, epochs=60)
    return GRU(settings, training.layout).fit(training, FitRun(1, HIDDEN)), training, test


def test_its_questions_are_modalities_from_others_and_held_out_channels(fitted):
    model = fitted[0]
    both = ("spikes", "emg")
    assert set(model.tasks(HIDDEN)) == {
        Task("modality", ("emg",), "spikes"), Task("modality", ("spikes",), "emg"),
        *(Task("channels", given, "spikes") for given in (("spikes",), both)),
        *(Task("channels", given, "emg") for given in (("emg",), both)),
    }  # fmt: skip
    training = fitted[1]
    alone = make_trials({"emg": training.values["emg"]}, {"emg": training.observed["emg"]})
    settings = GRUSettings(kind="gru", units=4, epochs=1)
    with pytest.raises(InputError, match=r"kind gru has nothing to predict of emg; name another modality or"):
        fit_to(settings, alone)
    model = GRU(settings, alone.layout)
    of_emg = Withheld({"emg": HIDDEN.channels["emg"]})
    assert model.fit(alone, FitRun(0, of_emg)).tasks(of_emg) == [Task("channels", ("emg",), "emg")]


@pytest.mark.parametrize(("given", "predicted"), [("spikes", "emg"), ("emg", "spikes")])
def test_it_does_not_see_its_target_and_beats_the_mean(fitted, given, predicted):
    model, training, test = fitted
    shown = model.predict(test, (given,), predicted)
    hidden = model.predict(test.only((given,)), (given,), predicted)
    np.testing.assert_array_equal(shown.mean, hidden.mean)
    truth, seen = test.values[predicted], test.observed[predicted]
    average = training.values[predicted].mean(axis=(0, 1))
    assert ((truth - shown.mean) ** 2)[seen].sum() < 0.97 * ((truth - average) ** 2)[seen].sum()
    assert (shown.mean > 0).all() or predicted == "emg"


@pytest.mark.parametrize("name", ["spikes", "emg"])
def test_held_out_channels_are_predicted_from_the_others_alone(fitted, name):
    model, training, test = fitted
    hidden, seen = HIDDEN.channels[name], test.observed[name]
    asked = test.hide(HIDDEN.channels)
    found = model.predict(asked, (name,), name).mean
    filled = asked.values[name] + 100.0 * hidden  # where nothing is observed, values mean nothing
    same = model.predict(replace(asked, values=asked.values | {name: filled}), (name,), name)
    np.testing.assert_array_equal(same.mean, found)
    error, spread = (test.values[name] - x for x in (found, training.values[name].mean(axis=(0, 1))))
    of_hidden = seen & hidden
    assert (error**2)[of_hidden].sum() < (spread**2)[of_hidden].sum()


def test_deviations_are_those_of_errors_on_trials_outside_the_updates(fitted):
    model, _, test = fitted
    predictive = model.predict(test, ("spikes",), "emg")
    z = (test.values["emg"] - predictive.mean) / np.asarray(predictive.scale)
    assert 0.7 < z[test.observed["emg"]].std() < 1.4


def test_some_of_every_trial_is_visible_and_losses_count_what_is_hidden(fitted):
    model, training, _ = fitted
    batch = model._batch(training)
    torch.manual_seed(0)
    visible = model._visible(batch)
    of_modality = {m: v.flatten(1).any(dim=1).numpy() for m, v in visible.items()}
    assert (of_modality["spikes"] | of_modality["emg"]).all()
    assert all(0.5 < share.mean() < 0.95 for share in of_modality.values())
    for m, v in visible.items():
        assert not (v & ~batch.seen[m]).any()
        shown = v[torch.from_numpy(of_modality[m])].flatten(0, 1)[:, 0:].float().mean()
        assert 0.6 < float(shown) < 0.9


def test_the_same_seed_gives_the_same_fit(fitted):
    model, training, _ = fitted
    settings = GRUSettings(kind="gru", units=8, epochs=3)
    one, two, other = (
        GRU(settings, training.layout).fit(training, FitRun(seed, HIDDEN)).state() for seed in (1, 1, 2)
    )
    assert all(one[key].tobytes() == two[key].tobytes() for key in one)
    assert one["network|enter.weight"].tobytes() != other["network|enter.weight"].tobytes()
    losses = [row["validation_loss"] for row in model.history]
    assert np.isfinite(losses).all() and min(losses) < losses[0]
