"""What a fit is asked, and its answers: everything that it must not see is removed before."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from colatent.data.predictive import Predictive
from colatent.data.tasks import DECODING, Task, Withheld
from colatent.data.trials import Trials
from colatent.models.base import Model
from colatent.models.fitting import FittedModel
from colatent.models.readout.decoding import Decoder

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


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


def answer(model: Model, task: Task, test: Trials, withheld: Withheld) -> Answer:
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


def all_tasks(fit: FittedModel, withheld: Withheld) -> list[Task]:
    """Return the questions that a model, and the read-outs of its latents if there are any, can answer."""
    return [*fit.model.tasks(withheld), *(fit.decoder.readouts if fit.decoder else ())]


def answers(fit: FittedModel, asked: Sequence[Task], test: Trials, withheld: Withheld) -> Iterator[Answer]:
    """Answer questions on test trials, those of the decoder last."""
    for task in asked:
        if task.heldout != DECODING:
            yield answer(fit.model, task, test, withheld)
    if fit.decoder is not None:
        yield from _decoded(fit.decoder, [task for task in asked if task.heldout == DECODING], test)


def _decoded(decoder: Decoder, asked: Sequence[Task], test: Trials) -> Iterator[Answer]:
    """Read modalities out of latents, inferred once from each set of given modalities and nothing else."""
    for given, same in groupby(asked, key=lambda task: task.given):
        latents = decoder.latents(test, given)
        for task in same:
            observation, scored = test.values[task.predicted], test.observed[task.predicted]
            channels = np.ones(scored.shape[2], dtype=bool)
            yield Answer(task, decoder.readouts[task].predict(latents), observation, scored, channels)
