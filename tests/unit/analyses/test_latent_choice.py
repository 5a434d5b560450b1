"""The number of latents is chosen on trials, or guarded blocks of windows, that its fits did not see."""

from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest

from colatent.analyses.latent_choice import compare_numbers_of_latents
from colatent.config import GPFASettings
from colatent.data.trials import Trials
from colatent.errors import InputError
from colatent.models.gpfa.selection import select_n_latents


class Spy:
    """Remembers which trials it was fitted to and asked about: each trial's values start with its number."""

    seen: ClassVar[list[tuple[set, set]]] = []

    def __init__(self, n_latents: int) -> None: ...

    def fit(self, trials):
        self.fitted = set(trials[:, 0, 0].astype(int))
        return self

    def predict(self, trials):
        if not np.isnan(trials[:, 0, 0]).any():
            Spy.seen.append((self.fitted, set(trials[:, 0, 0].astype(int))))
        return SimpleNamespace(mean=np.zeros(trials.shape))


@pytest.mark.parametrize("time_locked", [True, False])
def test_candidates_are_compared_on_what_their_fits_did_not_see(time_locked):
    Spy.seen = []
    trials = np.random.default_rng(0).normal(size=(20, 5, 8))
    trials[:, 0, 0] = np.arange(20)
    select_n_latents(Spy, trials, [1], n_folds=4, time_locked=time_locked)
    tested = []
    for fitted, held in Spy.seen[::3]:  # channels come in four groups, one of which hides the number
        distance = min(abs(a - b) for a in fitted for b in held)
        assert distance == (1 if time_locked else 2)
        assert len(fitted) >= (15 if time_locked else 13)
        tested += held
    assert sorted(tested) == list(range(20))


def test_too_few_windows_are_refused_in_a_sentence():
    value = np.random.default_rng(1).normal(size=(3, 10, 6))
    trials = Trials(
        {"c": value},
        {"c": np.ones(value.shape, dtype=bool)},
        {"c": tuple("abcdef")},
        {"c": "continuous"},
        0.1,
        time_locked=False,
    )
    model = GPFASettings(kind="gpfa", latents={"c": 1}, candidates=[1])
    with pytest.raises(InputError, match="3 training trials or windows are too few"):
        compare_numbers_of_latents(trials, model)
