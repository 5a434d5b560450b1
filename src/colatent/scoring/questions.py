"""What a model is asked, and its answers: everything that it must not see is removed before."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from colatent.data.predictive import Predictive
from colatent.data.trials import Trials
from colatent.models.baselines.lag_regression import LagRegression, subsets

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


class Withheld(NamedTuple):
    """What is kept from inference in the test trials, one kind a question.

    Attributes:
        channels: modality -> channels (channel,) held out for co-smoothing.
        time: share at the end of each trial, for forward prediction; None to leave that out.
    """

    channels: Mapping[str, Mask]
    time: float | None = None


class Task(NamedTuple):
    """One question to a model: predict this from that, with the rest kept from it."""

    heldout: str
    given: tuple[str, ...]
    predicted: str

    @property
    def given_name(self) -> str:
        """How ``given`` is written in tables and stores."""
        return "+".join(self.given) or "none"


def tasks(model: Any, modalities: tuple[str, ...], withheld: Withheld) -> Iterator[Task]:
    """Yield the questions that a model can answer.

    Args:
        model: a fitted model.
        modalities: those it describes.
        withheld: what it can be kept from seeing.
    """
    if isinstance(model, LagRegression):
        yield from (Task("modality", given, predicted) for given, predicted in model.pairs())
        return
    if not model.latent_groups:  # the condition mean looks at no modality
        for predicted in modalities:
            yield Task("trials", (), predicted)
            if predicted in withheld.channels:
                yield Task("channels", (), predicted)
            if withheld.time:
                yield Task("time", (), predicted)
        return
    for predicted in modalities:
        for given in subsets(modalities):
            yield Task("trials" if predicted in given else "modality", given, predicted)
            if predicted in given and predicted in withheld.channels:
                yield Task("channels", given, predicted)
            if predicted in given and withheld.time:
                yield Task("time", given, predicted)


def largest_tasks(asked: Iterable[Task]) -> list[Task]:
    """Return, of each kind of question and predicted modality, the one with the most modalities given."""
    largest: dict[tuple[str, str], Task] = {}
    for task in asked:
        key = (task.heldout, task.predicted)
        if key not in largest or len(task.given) > len(largest[key].given):
            largest[key] = task
    return list(largest.values())


@dataclass(frozen=True)
class Answer:
    """A prediction, and what it is compared with; arrays are (trial, time, channel).

    Attributes:
        task: the question.
        predictive: the predictive distribution of every bin.
        observation: what was recorded.
        scored: True where the prediction is scored.
        channels: (channel,), True for those that are scored at all.
    """

    task: Task
    predictive: Predictive
    observation: Array
    scored: Mask
    channels: Mask

    @cached_property
    def mean(self) -> Array:
        """Expected observation."""
        return self.predictive.mean

    @cached_property
    def log_density(self) -> Array:
        """Log predictive density, nats."""
        return self.predictive.log_density(self.observation)

    @cached_property
    def pit(self) -> tuple[Array, Array]:
        """Both ends of the probability integral transform, see `Predictive.pit`."""
        return self.predictive.pit(self.observation)


def answer(model: Any, task: Task, test: Trials, withheld: Withheld) -> Answer:
    """Ask a model: it is handed trials from which everything it must not see has been removed."""
    seen = test
    scored = test.observed[task.predicted]
    channels = np.ones(scored.shape[2], dtype=bool)
    if task.heldout == "channels":
        channels = withheld.channels[task.predicted]
        seen = seen.hide({task.predicted: channels})
    if task.heldout == "time":
        assert withheld.time is not None
        scored = scored & test.last_part(withheld.time)[..., None]
        seen = seen.hide_end(withheld.time)
    predictive = model.predict(seen.only(task.given), task.given, task.predicted)
    return Answer(task, predictive, test.values[task.predicted], scored & channels, channels)
