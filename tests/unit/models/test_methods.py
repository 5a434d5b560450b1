"""The methods text of each kind of model, by the function that its record names."""

import pkgutil
from typing import get_args

import pytest

from colatent.config import Model
from colatent.models.methods import About

OPTIONS = {
    "mm-gpvae": {"latents": {"trials": 2, "emg+trials": 1}},
    "gpfa": {"latents": {"trials": 2}},
    "smoothed-fa": {"latents": {"trials": 2}},
}
KINDS = {"trials": "spikes", "emg": "continuous"}
SECTIONS = get_args(get_args(Model)[0])


@pytest.mark.parametrize("section", SECTIONS)
@pytest.mark.parametrize("continuous", [False, True])
def test_every_kind_of_model_describes_itself_in_the_words_of_the_session(section, continuous):
    kind = get_args(section.model_fields["kind"].annotation)[0]
    settings = section(kind=kind, **OPTIONS.get(kind, {}))
    text = pkgutil.resolve_name(section.record.methods)(settings, About(KINDS, True, continuous))
    assert text.lower().startswith(section.record.title.lower())
    assert text.endswith(".") and "  " not in text
    if continuous:  # the one modality is called so, the windows are not
        assert ("of trials" in text) == (kind in OPTIONS)
        assert "training trials" not in text and "test trials" not in text
