"""Base of latent variable models of a single modality."""

from abc import ABC, abstractmethod
from typing import Self

import numpy as np

from colatent.config.models import OneModalitySettings
from colatent.data.likelihoods import LIKELIHOODS
from colatent.data.tasks import Task, Withheld, tasks_of_latent_model
from colatent.data.trials import Layout, Trials
from colatent.errors import InputError
from colatent.models.base import Array, FitRun


class OneModalityModel(ABC):
    """A latent variable model of one modality.

    Attributes:
        modalities: the one modality. latent_groups: its group, for each latent.
        history: rows of the training curve.
    """

    def __init__(self, settings: OneModalitySettings, layout: Layout) -> None:
        self.layout = layout
        self.modality = settings.modality
        self.modalities = (settings.modality,)
        self.n_latents = settings.latents[settings.modality]
        self.n_channels = layout.n_channels(settings.modality)
        self.latent_groups = settings.latent_groups
        self.history: list[dict[str, float]] = []

    @abstractmethod
    def _fit(self, training: Trials, run: FitRun) -> None: ...

    @abstractmethod
    def _infer(self, trials: Trials) -> tuple[Array, Array]:
        """Return posterior mean and variance, each (trial, time, latent)."""

    def fit(self, training: Trials, run: FitRun) -> Self:
        """Fit to the training trials."""
        if not training.observed[self.modality].any():
            raise InputError(f"{self.modality}: nothing was observed in the training trials of this fold")
        self._fit(training, run)
        return self

    def tasks(self, withheld: Withheld) -> list[Task]:
        """Return reconstruction, co-smoothing and forward prediction of the modality."""
        return tasks_of_latent_model(self.modalities, withheld)

    def latents(self, trials: Trials, given: tuple[str, ...]) -> tuple[Array, Array]:
        """Return the posterior mean and variance of the latents, each (trial, time, latent)."""
        self._only_own(given)
        return self._infer(trials)

    def latents_seen_by(self, modality: str, trials: Trials, given: tuple[str, ...]) -> Array:
        """Return the posterior means."""
        return self.latents(trials, given)[0]

    def _only_own(self, modalities: tuple[str, ...]) -> None:
        if set(modalities) != {self.modality}:
            raise ValueError(f"this model knows only {self.modality!r}, not {modalities}")


def observations(trials: Trials, modality: str, square_root: bool) -> Array:
    """Return the model's input (trial, time, channel), NaN where nothing was observed."""
    value = trials.with_nan(modality)
    return np.sqrt(value) if square_root else value


def unit_of_loadings(modality: str, likelihood: str) -> str:
    """Return the unit of what latents drive: of `observations` or, of counts, of their predictor."""
    return f"unit of {modality}" if likelihood == "gaussian" else LIKELIHOODS[likelihood].unit
