"""The methods text says of each model what was done, and nothing that was not."""

from typing import Any

import pytest

from colatent.config import MMGPVAEModel
from colatent.models.mmgpvae import MMGPVAE
from colatent.report.methods import CALIBRATED, FREED, IMPROVED, REFINED, _first_epochs, _last_steps

KINDS = {"spikes": "spikes", "emg": "continuous"}
BOTH = {"spikes+emg": 1, "spikes": 1}
CASES: list[tuple[dict[str, Any], list[str]]] = [
    ({"latents": {"spikes": 2}}, [IMPROVED]),
    ({"latents": {"spikes": 2}, "posterior": "mean-field"}, []),
    ({"latents": {"emg": 2}}, [CALIBRATED, REFINED]),
    ({"latents": BOTH}, [CALIBRATED, IMPROVED]),  # both modalities are predicted from the other
    ({"latents": BOTH, "cross_weight": {}}, [CALIBRATED, IMPROVED, FREED, REFINED]),
    ({"latents": BOTH, "cross_weight": {}, "decoder": {"emg": "linear"}}, [IMPROVED, FREED]),
    ({"latents": BOTH, "cross_weight": {"emg": 1.0}}, [CALIBRATED, IMPROVED, FREED]),
    ({"latents": BOTH, "cross_weight": {"emg": 1.0, "spikes": 1.0}}, [CALIBRATED, IMPROVED]),
    ({"latents": BOTH, "cross_weight": {"emg": 0.0}}, [CALIBRATED, IMPROVED, FREED, REFINED]),
    ({"latents": BOTH, "cross_weight": {}, "posterior": "averaged"}, [REFINED]),
]


@pytest.mark.parametrize(("options", "steps"), CASES)
def test_the_last_steps_of_a_fit_are_those_that_were_taken(options: dict[str, Any], steps: list[str]) -> None:
    text = _last_steps(MMGPVAEModel(kind="mm-gpvae", **options), KINDS)
    assert [step for step in (CALIBRATED, IMPROVED, FREED, REFINED) if step in text] == steps
    assert bool(text) == bool(steps)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"latents": BOTH, "cross_weight": {}}, True),
        ({"latents": BOTH, "cross_weight": {"emg": 0.0}}, True),
        ({"latents": BOTH}, False),
        ({"latents": BOTH, "cross_weight": {"emg": 1.0}}, False),
        ({"latents": {"spikes": 1, "emg": 1}}, False),
        ({"latents": {"spikes": 2}}, False),
    ],
)
def test_an_objective_that_was_another_at_first_is_said(options: dict[str, Any], said: bool) -> None:
    model = MMGPVAEModel(kind="mm-gpvae", **options)
    made = MMGPVAE(
        latents=model.latents,
        cross_weight=model.cross_weight,
        likelihood={"spikes": "poisson", "emg": "gaussian"},
        decoder={"spikes": "linear", "emg": "mlp"},
    ).options
    assert ("In the first fifth of the epochs" in _first_epochs(model)) == said
    assert said == (made.first_cross_weight != made.final_cross_weight)
