"""Is a behaviour in a model's latents? It is read out of them by ridge regression."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from colatent.data.predictive import Predictive
from colatent.data.scaling import LEAST_DEVIATION, Standardizer
from colatent.data.trials import Trials
from colatent.models.baselines.lag_regression import subsets
from colatent.models.readout.ridge import RidgeFit, fit_ridge
from colatent.scoring.questions import Answer, Task

Array = NDArray[np.float64]
DECODING = "decoding"


class Readout(NamedTuple):
    """The regression from latents to one modality, and the training mean and s.d. of its channels."""

    ridge: RidgeFit
    scale: Standardizer

    def predict(self, latents: Array) -> Predictive:
        """Return the prediction of every bin from latents (trial, time, latent), in the modality's unit."""
        mean = latents @ self.ridge.weight + self.ridge.intercept
        deviation = np.maximum(self.ridge.residual, LEAST_DEVIATION) * self.scale.deviation
        return Predictive("gaussian", (mean * self.scale.deviation + self.scale.mean)[None], deviation)


@dataclass(frozen=True)
class Decoder:
    """Ridge regressions from a fitted model's latents to continuous modalities, bin by bin.

    Latents are posterior means given some of the model's modalities and nothing else; every continuous
    modality of the session that is not among these is read out, be it one of the model's or not. They
    come in units of their prior s.d., which no trial sets, and are not scaled one by one: one that the
    given modalities say nothing of stays near zero beside the others. The residual s.d. is that of
    training trials that the regression, though not the model, was kept from.

    Attributes:
        model: a fitted model.
        readouts: question -> regression, questions that give the same modalities beside each other.
    """

    model: Any
    readouts: Mapping[Task, Readout]

    @classmethod
    def fit(cls, model: Any, modalities: tuple[str, ...], training: Trials, time_locked: bool) -> Self:
        """Fit all readouts to the training trials; none of a model without latents.

        Args:
            model: a fitted model.
            modalities: those it describes.
            time_locked: False for windows of a continuous recording.
        """
        continuous = [m for m in training.modalities if training.kinds[m] != "spikes"]
        readouts = {}
        for given in subsets(modalities if model.latent_groups else ()):
            decoded = [m for m in continuous if m not in given]
            if not decoded:
                continue
            latents = _latents(model, training, given)
            for predicted in decoded:
                values, observed = training.values[predicted], training.observed[predicted]
                scale = Standardizer.fit(values, observed)
                ridge = fit_ridge(latents, scale.apply(values, observed), observed, time_locked)
                readouts[Task(DECODING, given, predicted)] = Readout(ridge, scale)
        return cls(model, readouts)

    def answers(self, asked: Sequence[Task], test: Trials) -> Iterator[Answer]:
        """Answer some of the questions, with the latents inferred once for each set of given modalities."""
        for given, same in groupby(asked, key=lambda task: task.given):
            latents = _latents(self.model, test, given)
            for task in same:
                observation, scored = test.values[task.predicted], test.observed[task.predicted]
                channels = np.ones(scored.shape[2], dtype=bool)
                yield Answer(task, self.readouts[task].predict(latents), observation, scored, channels)


def _latents(model: Any, trials: Trials, given: tuple[str, ...]) -> Array:
    """Return the posterior means (trial, time, latent), from trials that hold nothing but ``given``."""
    return np.asarray(model.latents(trials.only(given), given)[0], dtype=float)
