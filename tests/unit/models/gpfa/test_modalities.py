"""What a fit of several modalities says, keeps and refuses."""

import numpy as np
import pytest
from support import BIN_WIDTH, simulate

from colatent.models.gpfa.gaussian import GPFA

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
