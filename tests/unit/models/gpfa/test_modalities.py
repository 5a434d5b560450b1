"""What a fit of several modalities says, keeps and refuses."""

import numpy as np
import pytest
from support import BIN_WIDTH, make_trials, settings_of, simulate

from colatent.data.tasks import NOTHING_WITHHELD, Withheld
from colatent.models.base import FitRun
from colatent.models.gpfa.gaussian import GPFA
from colatent.models.gpfa.model import GPFAModel
from colatent.models.readout.readouts import Readouts

Array = np.ndarray
GROUPS = {"emg+spikes": 2, "spikes": 1}


@pytest.fixture(scope="module")
def data() -> dict[str, Array]:
    """Counts and muscles, complete."""
    values = simulate(48)[0].select(np.arange(2, 48)).values
    return {name: values[name] for name in ("spikes", "emg")}


def test_a_delay_at_the_longest_allowed_is_said(data: dict[str, Array]) -> None:
    """Muscles follow by five bins in trials of fifteen, in which less than four are allowed."""
    short = {"spikes": data["spikes"][:, 5:20], "emg": data["emg"][:, :15]}
    longest = 15 / 4 * BIN_WIDTH
    expected = f"spikes leads latent 1 by the longest delay allowed, {1e3 * longest:.0f} ms: it may be longer"
    with pytest.warns(UserWarning, match=expected):
        gpfa = GPFA(latents=GROUPS, bin_width=BIN_WIDTH, delays=True).fit(short)
    assert gpfa.delay_[1, 0] == pytest.approx(-longest) and gpfa.longest_delay_ == pytest.approx(longest)
    said: list[str] = []
    GPFA(latents=GROUPS, bin_width=BIN_WIDTH, delays=True).fit(short, said.append)
    assert expected in said
    assert GPFA.from_state(gpfa.state()).longest_delay_ == gpfa.longest_delay_


def test_a_saved_fit_that_is_fitted_again_keeps_its_likelihoods(data: dict[str, Array]) -> None:
    """Whole numbers would be taken for counts."""
    own = {"spikes": "gaussian", "emg": "gaussian"}
    whole = data | {"emg": np.round(10 * (data["emg"] - data["emg"].min()))}
    gpfa = GPFA(latents=GROUPS, bin_width=BIN_WIDTH, likelihood=own).fit(whole)
    again = GPFA.from_state(gpfa.state()).fit(whole)
    assert again.likelihood == own and again.modalities_ == gpfa.modalities_
    np.testing.assert_array_equal(again.loading_, gpfa.loading_)


def test_lists_of_other_lengths_are_refused_not_taken_for_missing_ends(data: dict[str, Array]) -> None:
    lists = {name: list(value) for name, value in data.items()}
    gpfa = GPFA(latents=GROUPS, bin_width=BIN_WIDTH)
    shorter = lists | {"emg": [*lists["emg"][:3], lists["emg"][3][:20], *lists["emg"][4:]]}
    sentence = "trial 3, counted from 0, has 25 bins of spikes, but 20 of emg; if the rest was not recorded"
    with pytest.raises(ValueError, match=sentence):
        gpfa.fit(shorter)
    with pytest.raises(ValueError, match="spikes has 46 trials of 25 bins, other modalities have 45"):
        gpfa.fit(lists | {"emg": lists["emg"][:-1]})
    with pytest.raises(ValueError, match="trial 0, counted from 0, has 25 bins of spikes, but 20 of emg"):
        gpfa.fit(lists | {"emg": [trial[:20] for trial in lists["emg"]]})
    filled = np.full_like(lists["emg"][3], np.nan)
    filled[:20] = lists["emg"][3][:20]
    gpfa.fit(lists | {"emg": [*lists["emg"][:3], filled, *lists["emg"][4:]]})
    assert len(gpfa.transform(lists)[3]) == 25
    with pytest.raises(ValueError, match="has 20 bins of emg, but 25 of spikes"):
        gpfa.predict({"spikes": lists["spikes"], "emg": shorter["emg"]})


def test_without_delays_latents_are_inferred_once_for_all_that_is_predicted(monkeypatch) -> None:
    trials = simulate(24)[0]
    values = dict(trials.values) | {"force": trials.values["emg"][..., :2] + 1}
    trials = make_trials(values, dict(trials.observed) | {"force": trials.observed["emg"][..., :2]})
    settings = settings_of("gpfa", latents={"spikes+emg+force": 2, "emg": 1}, mean="constant")
    hidden = {"spikes": np.arange(24) % 4 == 0}
    withheld = Withheld.of(trials, hidden, 0.2)
    asked: list[str] = []
    infer = GPFA.latents_seen_by

    def spy(self: GPFA, modality: str, given: dict[str, Array]) -> Array:
        asked.append(modality)
        return infer(self, modality, given)

    monkeypatch.setattr(GPFA, "latents_seen_by", spy)
    model = GPFAModel(settings, trials.layout).fit(trials, FitRun(withheld=withheld))
    # each subset once; without hidden channels where spikes are given; with the end hidden
    assert len(asked) == 7 + 4 + 7
    own = model
    for given, predicted in own._questions:
        alone = Readouts.fit(
            lambda t, g=given, p=predicted: own._driving(p, own.latents_seen_by(p, t, g)),
            predicted,
            trials,
            withheld if predicted in given else NOTHING_WITHHELD,
        )
        for name, array in alone.state().items():
            np.testing.assert_array_equal(own.readouts[given, predicted].state()[name], array)
