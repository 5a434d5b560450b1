"""The methods text says of each model what was done, and nothing that was not."""

from typing import Any

import pytest

from colatent.config import MMGPVAESettings
from colatent.models.methods import About
from colatent.models.mmgpvae.methods import calibrated, chosen, last_steps, objective, refined, training

ABOUT = About({"spikes": "spikes", "emg": "continuous"})
CALIBRATED, REFINED, CHOSEN = (step(ABOUT) for step in (calibrated, refined, chosen))
BOTH = {"spikes+emg": 1, "spikes": 1}
CASES: list[tuple[dict[str, Any], list[str]]] = [
    ({"latents": {"spikes": 2}}, [CALIBRATED]),
    ({"latents": {"spikes": 2}, "posterior": "mean-field"}, []),
    ({"latents": {"emg": 2}}, [CALIBRATED, REFINED]),
    ({"latents": BOTH}, [CALIBRATED, CHOSEN]),  # both modalities are predicted from the other
    ({"latents": BOTH, "cross_weight": {}}, [CALIBRATED, REFINED]),
    ({"latents": BOTH, "cross_weight": {}, "decoder": {"emg": "linear"}}, [CALIBRATED]),
    ({"latents": BOTH, "cross_weight": {"emg": 1.0}}, [CALIBRATED, CHOSEN]),
    ({"latents": BOTH, "posterior": "averaged"}, []),
    ({"latents": BOTH, "cross_weight": {"emg": 0.0}}, [CALIBRATED, REFINED]),
    ({"latents": BOTH, "cross_weight": {}, "posterior": "averaged"}, [REFINED]),
]


@pytest.mark.parametrize(("options", "steps"), CASES)
def test_the_last_steps_of_a_fit_are_those_that_were_taken(options: dict[str, Any], steps: list[str]) -> None:
    text = " ".join(last_steps(MMGPVAESettings(kind="mm-gpvae", **options), ABOUT))
    assert [step for step in (CALIBRATED, REFINED, CHOSEN) if step in text] == steps
    assert bool(text) == bool(steps)


@pytest.mark.parametrize(
    ("options", "linear", "random"),
    [
        ({}, True, False),
        ({"posterior": "averaged"}, False, True),
        ({"posterior": "averaged", "restarts": 1}, False, False),
    ],
)
def test_the_start_of_training_is_told(options: dict[str, Any], linear: bool, random: bool) -> None:
    text = " ".join(training(MMGPVAESettings(kind="mm-gpvae", latents=BOTH, **options), ABOUT))
    assert ("started from the linear model" in text) == linear
    assert ("3 random starts" in text) == random


ELBO, OF_EMG = "the ELBO", "ELBO + 1 × cross-modal prediction of emg"
FIRST = " In the first epochs, at most a fifth of them, it was {}."


@pytest.mark.parametrize(
    ("options", "said", "defined"),
    [
        ({"latents": BOTH, "cross_weight": {}}, f"{ELBO}.", False),
        ({"latents": BOTH, "cross_weight": {"emg": 0.0}}, f"{ELBO}.", False),
        ({"latents": BOTH, "cross_weight": {"emg": 1.0}}, f"{OF_EMG}.", True),
        ({"latents": {"spikes": 2}, "cross_weight": {"spikes": 1.0}}, f"{ELBO}.", False),
        (
            {"latents": BOTH, "cross_weight": {}, "first_cross_weight": {"emg": 1.0}},
            f"{ELBO}.{FIRST.format(OF_EMG)}",
            True,
        ),
        (
            {"latents": BOTH, "cross_weight": {"emg": 1.0}, "first_cross_weight": {}},
            f"{OF_EMG}.{FIRST.format(ELBO)}",
            True,
        ),
        (
            {"latents": BOTH, "cross_weight": {"emg": 1.0}, "first_cross_weight": {"emg": 1.0}},
            f"{OF_EMG}.",
            True,
        ),
    ],
)
def test_the_objective_is_the_one_that_was_maximised(
    options: dict[str, Any], said: str, defined: bool
) -> None:
    text = " ".join(objective(MMGPVAESettings(kind="mm-gpvae", **options)))
    assert text.startswith(f"Objective: {said}") and ("In the first epochs" in text) == ("first" in said)
    assert ("Cross-modal prediction is" in text) == defined
    assert ("not a bound" in text) == defined
