"""Decode continuous modalities, such as behaviour, from a model's latents by ridge regression."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from colatent.data.predictive import Predictive
from colatent.data.scaling import MIN_DEVIATION, Standardizer
from colatent.data.tasks import Task, decoding_tasks
from colatent.data.trials import Layout, Trials
from colatent.models.base import Array, LatentModel, State, arrays_of, part_of, with_prefix
from colatent.models.readout.ridge import RidgeFit, fit_ridge


class LatentReadout(NamedTuple):
    """The regression from latents to one modality, and the training mean and s.d. of its channels."""

    ridge: RidgeFit
    scale: Standardizer

    def predict(self, latents: Array) -> Predictive:
        """Return predictions from latents (trial, time, latent), in the modality's unit."""
        mean = latents @ self.ridge.weight + self.ridge.intercept
        deviation = np.maximum(self.ridge.residual, MIN_DEVIATION) * self.scale.deviation
        return Predictive("gaussian", (mean * self.scale.deviation + self.scale.mean)[None], deviation)


@dataclass(frozen=True)
class Decoder:
    """Ridge regressions from a fitted model's latents to continuous modalities, bin by bin.

    Latents are posterior means given a subset of the model's modalities; every other continuous modality of
    the session is decoded, whether or not the model describes it. Latents keep their prior units rather than
    being standardised one by one, so that a latent about which the given modalities are uninformative stays
    near zero. The residual s.d. comes from training trials held out of the regression, though not of the
    model's fit.

    Attributes:
        model: a fitted model.
        readouts: task -> regression; tasks with the same given modalities are adjacent.
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
        """Return the posterior means (trial, time, latent) given only the modalities ``given``."""
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
            ValueError: the arrays are not those of such read-outs.
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
