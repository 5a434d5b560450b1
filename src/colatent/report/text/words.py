"""How a session's texts call things."""

from dataclasses import dataclass

from colatent.models.methods import About


def end_of_trial(future: float | None) -> str:
    """Return what is predicted forward; ``future`` is ``heldout.time`` of the config."""
    return "last part" if future is None else f"last {100 * future:g} %"


@dataclass(frozen=True)
class Words:
    """Words that depend on the session.

    Attributes:
        trial: a stretch of data: a trial, or a window of a continuous recording.
        end: what of it is predicted forward.
        nothing: what a model given no modality (the condition mean) saw of a test trial.
    """

    trial: str = "trial"
    end: str = end_of_trial(None)
    nothing: str = "nothing"

    @classmethod
    def of(cls, about: About, future: float | None) -> "Words":
        """Return the words for a session; ``future`` is ``heldout.time`` of the config."""
        told = about.conditions and not about.continuous
        nothing = "nothing but the trial’s condition" if told else "nothing"
        return cls(about.trial, end_of_trial(future), nothing)

    @property
    def trials(self) -> str:
        return f"{self.trial}s"

    def given(self, given: str) -> str:
        """Return what inference saw, as a table of scores has it, in words."""
        return self.nothing if given == "none" else given

    def fill(self, template: str, **names: str) -> str:
        """Fill in the words and users' names for the fields of a text, such as ``{trials}``.

        Filled-in names are not filled in again: a modality may be called ``{trials}``.
        """
        words = {"trial": self.trial, "trials": self.trials, "end": self.end, "nothing": self.nothing}
        return template.format(**words, **names)
