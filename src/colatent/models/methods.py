"""Shared parts of the models' methods texts.

The text of each kind of model is a function of its settings and an `About`, named in the kind's record.
These modules must stay light: a report describes models without loading them.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class About:
    """Properties of a session that a methods text depends on.

    Attributes:
        kinds: modality -> its kind, such as spikes.
        conditions: whether trials have conditions.
        continuous: whether trials are windows of a continuous recording.
    """

    kinds: Mapping[str, str]
    conditions: bool = False
    continuous: bool = False

    @property
    def trial(self) -> str:
        """The word for a trial: "window" for continuous recordings."""
        return "window" if self.continuous else "trial"

    def counts(self, modality: str) -> bool:
        """Whether a modality consists of spike counts."""
        return self.kinds[modality] == "spikes"


def count(n: int, noun: str) -> str:
    """Return ``1 trial``, ``2 trials``."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def capitalised(text: str) -> str:
    """Return a text with its first letter in upper case and the rest unchanged."""
    return text[0].upper() + text[1:]


def numbers_of_latents(latents: Mapping[str, int]) -> str:
    """Return ``2 latents of spikes+emg, 1 latent of spikes``."""
    return ", ".join(f"{count(n, 'latent')} of {group}" for group, n in latents.items())


def read_out(about: About, modality: str) -> str:
    """Describe how a model without its own decoder predicts from its latents."""
    kind = "Poisson" if about.counts(modality) else "linear"
    trials = f"{about.trial}s"
    return (
        f"Predictions are read out of its latents by a {kind} regression for each channel, fitted on the "
        f"training {trials} with the latents inferred as in the test {trials} (for hidden channels: from the "
        f"other channels alone). For the hidden end of test {trials} the regression is adapted to the same "
        f"part of the training {trials}, with latents inferred from the preceding part. Predictions use the "
        "posterior mean, so their intervals leave out uncertainty about the latents, except that continuous "
        "values at a hidden end have the residual s.d. of predictions there."
    )
