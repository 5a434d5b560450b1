"""What the methods texts of all kinds of models need: what a session is like, and shared sentences.

The text of a kind of model is a function of its settings and of an `About`, named in the kind's record.
These modules are light: a report loads no model to describe one.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class About:
    """What a methods text must know about a session.

    Attributes:
        kinds: modality -> its kind, such as spikes.
        conditions: whether its trials have a condition.
        continuous: whether its trials are windows of a continuous recording.
    """

    kinds: Mapping[str, str]
    conditions: bool = False
    continuous: bool = False

    @property
    def trial(self) -> str:
        """What a stretch of data is called."""
        return "window" if self.continuous else "trial"

    def counts(self, modality: str) -> bool:
        """Whether a modality is counts of spikes."""
        return self.kinds[modality] == "spikes"


def count(n: int, noun: str) -> str:
    """Return ``1 trial``, ``2 trials``."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def capitalised(text: str) -> str:
    """Return a text with its first letter large, the others as they are."""
    return text[0].upper() + text[1:]


def numbers_of_latents(latents: Mapping[str, int]) -> str:
    """Return ``2 latents of spikes+emg, 1 latent of spikes``."""
    return ", ".join(f"{count(n, 'latent')} of {group}" for group, n in latents.items())


def read_out(about: About, modality: str) -> str:
    """Return how a model without its own decoder predicts from its latents."""
    kind = "Poisson" if about.counts(modality) else "linear"
    trials = f"{about.trial}s"
    return (
        f"Predictions are read out of its latents by a {kind} regression for each channel, fitted on the "
        f"training {trials} with the latents inferred as in the test {trials} (for hidden channels: from the "
        f"other channels alone). For the hidden end of test {trials} it is adapted to the same part of the "
        f"training {trials}, with latents inferred from what came before. Predictions use the posterior "
        "mean, so their intervals leave out the latents’ own uncertainty, except that continuous values at "
        "a hidden end have the noise of their predictions there."
    )
