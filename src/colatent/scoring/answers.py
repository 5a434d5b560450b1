"""Tasks posed to a fit and its answers; withheld data are removed beforehand."""

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
    """A prediction and the recorded observations; arrays are (trial, time, channel).

    Attributes:
        task: the prediction task.
        predictive: predictive distribution of every bin.
        observation: recorded values.
        scored: True where the prediction is scored.
        channels: (channel,), True for channels that are scored at all.
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
        """Both ends of the probability integral transform; see `Predictive.pit`."""
        return self.predictive.pit(self.observation)


def answer(model: Model, task: Task, test: Trials, withheld: Withheld) -> Answer:
    """Predict from trials from which everything withheld in this task has been removed."""
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
    """Return the tasks of a model and of the read-outs of its latents, if any."""
    return [*fit.model.tasks(withheld), *(fit.decoder.readouts if fit.decoder else ())]


def answers(fit: FittedModel, asked: Sequence[Task], test: Trials, withheld: Withheld) -> Iterator[Answer]:
    """Answer tasks on the test trials, decoding tasks last."""
    for task in asked:
        if task.heldout != DECODING:
            yield answer(fit.model, task, test, withheld)
    if fit.decoder is not None:
        yield from _decoded(fit.decoder, [task for task in asked if task.heldout == DECODING], test)


def _decoded(decoder: Decoder, asked: Sequence[Task], test: Trials) -> Iterator[Answer]:
    """Decode modalities from latents, which are inferred once per set of given modalities."""
    for given, same in groupby(asked, key=lambda task: task.given):
        latents = decoder.latents(test, given)
        for task in same:
            observation, scored = test.values[task.predicted], test.observed[task.predicted]
            channels = np.ones(scored.shape[2], dtype=bool)
            yield Answer(task, decoder.readouts[task].predict(latents), observation, scored, channels)
