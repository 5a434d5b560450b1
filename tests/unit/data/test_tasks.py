"""What is withheld of a session is told by masks alone."""

from dataclasses import replace

import numpy as np

from colatent.data.tasks import Task, Withheld, decoding_tasks, largest_tasks, tasks_of_latent_model
from colatent.data.trials import Trials


def recording() -> Trials:
    """Ten trials of ten bins; trial 2 lacks a unit, trial 4 has another only in its last two bins."""
    values = {"spikes": np.ones((10, 10, 4)), "emg": np.ones((10, 10, 2))}
    observed = {m: np.ones(v.shape, dtype=bool) for m, v in values.items()}
    observed["spikes"][2, :, 1] = observed["spikes"][4, :8, 3] = False
    channels = {m: tuple("abcd"[: v.shape[2]]) for m, v in values.items()}
    kinds = {"spikes": "spikes", "emg": "continuous"}
    return Trials(values, observed, channels, kinds, 0.02)


def test_missing_are_the_patterns_of_channels_that_trials_lack_with_and_without_their_end():
    whole, ended = (Withheld.of(recording(), {}, time) for time in (None, 0.2))
    np.testing.assert_array_equal(whole.missing["spikes"], [[0, 1, 0, 0]])
    np.testing.assert_array_equal(ended.missing["spikes"], [[0, 0, 0, 1], [0, 1, 0, 0]])
    assert "emg" not in whole.missing and "emg" not in ended.missing
    noisy = replace(recording(), values={m: 7 * v for m, v in recording().values.items()})
    np.testing.assert_array_equal(Withheld.of(noisy, {}, 0.2).missing["spikes"], ended.missing["spikes"])


def test_what_is_withheld_of_some_channels():
    withheld = Withheld.of(recording(), {"spikes": np.arange(4) == 3}, 0.2)
    kept = {"spikes": np.array([True, False, True, True]), "emg": np.ones(2, dtype=bool)}
    some = withheld.with_channels(kept)
    np.testing.assert_array_equal(some.channels["spikes"], [False, False, True])
    np.testing.assert_array_equal(some.missing["spikes"], [[0, 0, 1]])
    assert some.time == 0.2


def test_questions_to_models_of_latents():
    withheld = Withheld({"spikes": np.arange(4) == 3}, 0.2)
    asked = tasks_of_latent_model(("spikes", "emg"), withheld)
    assert len(asked) == len(set(asked)) == 12
    assert Task("channels", ("spikes", "emg"), "spikes") in largest_tasks(asked)
    layout = recording().layout
    assert decoding_tasks(("spikes",), layout) == [Task("decoding", ("spikes",), "emg")]
    assert decoding_tasks(("spikes", "emg"), layout) == [Task("decoding", ("spikes",), "emg")]
