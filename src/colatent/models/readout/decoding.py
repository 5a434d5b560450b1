"""Is a behaviour in a model's latents? It is read out of them by ridge regression."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from colatent.data.predictive import Predictive
from colatent.data.scaling import LEAST_DEVIATION, Standardizer
from colatent.data.tasks import Task, decoding_tasks
from colatent.data.trials import Layout, Trials
from colatent.models.base import Array, LatentModel, State, arrays_of, part_of, with_prefix
from colatent.models.readout.ridge import RidgeFit, fit_ridge


class LatentReadout(NamedTuple):
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

    model: LatentModel
    readouts: Mapping[Task, LatentReadout]

    @classmethod
    def fit(cls, model: LatentModel, training: Trials) -> Self:
        """Fit all read-outs of a fitted model to its training trials."""
        readouts: dict[Task, LatentReadout] = {}
        decoder = cls(model, readouts)
        asked = decoding_tasks(model.modalities, training.layout)
        for given, same in groupby(asked, key=lambda task: task.given):
            latents = decoder.latents(training, given)
            for task in same:
                values, observed = training.values[task.predicted], training.observed[task.predicted]
                scale = Standardizer.fit(values, observed)
                target = scale.apply(values, observed)
                ridge = fit_ridge(latents, target, observed, training.time_locked)
                readouts[task] = LatentReadout(ridge, scale)
        return decoder

    def latents(self, trials: Trials, given: tuple[str, ...]) -> Array:
        """Return the posterior means (trial, time, latent), from trials that hold nothing but ``given``."""
        return np.asarray(self.model.latents(trials.only(given), given)[0], dtype=float)

    def state(self) -> dict[str, NDArray[Any]]:
        """Return all regressions, as arrays."""
        return {
            name: array
            for task, (ridge, scale) in self.readouts.items()
            for name, array in with_prefix(_prefix(task), ridge._asdict() | vars(scale)).items()
        }

    @classmethod
    def from_state(cls, model: LatentModel, layout: Layout, state: State) -> Self:
        """Rebuild the read-outs of a fitted model.

        Raises:
            ValueError: these are not their arrays.
        """
        asked, n_latents = decoding_tasks(model.modalities, layout), len(model.latent_groups)
        shapes: dict[str, tuple[int | None, ...]] = {}
        for task in asked:
            channel = (layout.n_channels(task.predicted),)
            own = dict.fromkeys(("intercept", "residual", "mean", "deviation"), channel)
            shapes |= {_prefix(task) + name: shape for name, shape in own.items()}
            shapes[_prefix(task) + "weight"] = (n_latents, *channel)
        arrays, readouts = arrays_of(state, shapes), {}
        for task in asked:
            of = part_of(arrays, _prefix(task))
            ridge = RidgeFit(*(of[name] for name in RidgeFit._fields))
            readouts[task] = LatentReadout(ridge, Standardizer(of["mean"], of["deviation"]))
        return cls(model, readouts)


def _prefix(task: Task) -> str:
    return f"{task.given_name}>{task.predicted}|"
