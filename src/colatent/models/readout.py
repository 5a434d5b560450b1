"""Predicting observations from latents that a Gaussian model inferred: the read-out.

GPFA and factor analysis describe square-rooted counts by a Gaussian, which is no distribution of
counts. What they say of a channel's counts is therefore read out of their latents by a Poisson
regression, fitted on the training trials with the latents inferred exactly as they are in the
held-out trials (for co-smoothing: from the held-in channels alone).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LinearRegression, PoissonRegressor

from colatent.errors import InputError
from colatent.predictive import Predictive
from colatent.standardize import LEAST_DEVIATION
from colatent.trials import Trials

Array = NDArray[np.float64]
# per observation; just enough to keep the weights of near-silent units finite
RIDGE = 1e-4
# spikes that a unit silent in all training trials is taken to have fired in them
LEAST_COUNT = 0.5


class OneModalityModel(ABC):
    """A model of the latents of one modality, inferred from an array (trial, time, channel) with NaN.

    Attributes:
        latent_groups: the group of each latent: always the one modality.
        history: rows for training curves.
    """

    def __init__(self, modality: str, n_latents: int, square_root: bool) -> None:
        self.modality = modality
        self.n_latents = n_latents
        self.square_root = square_root
        self.latent_groups = (modality,) * n_latents
        self.history: list[dict[str, float]] = []

    @abstractmethod
    def _fit(self, observation: Array, seed: int, progress: Callable[[str], None]) -> None: ...

    @abstractmethod
    def _infer(self, observation: Array) -> tuple[Array, Array]:
        """Return posterior mean and variance, each (trial, time, latent)."""

    def fit(self, trials: Trials, seed: int = 0, progress: Callable[[str], None] = print) -> Self:
        """Fit to the training trials."""
        if not trials.observed[self.modality].any():
            raise InputError(f"{self.modality}: nothing was observed in the training trials of this fold")
        self._fit(self._observation(trials), seed, progress)
        return self

    def latents(self, trials: Trials, given: tuple[str, ...]) -> tuple[Array, Array]:
        """Return the posterior mean and variance of the latents, each (trial, time, latent)."""
        self._only_own(given)
        return self._infer(self._observation(trials))

    def _observation(self, trials: Trials) -> Array:
        value = trials.with_nan(self.modality)
        return np.sqrt(value) if self.square_root else value

    def _only_own(self, modalities: tuple[str, ...]) -> None:
        if set(modalities) != {self.modality}:
            raise ValueError(f"this model knows only {self.modality!r}, not {modalities}")


class LatentReadoutModel(OneModalityModel):
    """A Gaussian latent model of one modality, with a read-out from its latents to the observations."""

    def __init__(self, modality: str, n_latents: int, square_root: bool) -> None:
        super().__init__(modality, n_latents, square_root)
        self._readouts: dict[bytes, list[Any]] = {}

    def fit(self, trials: Trials, seed: int = 0, progress: Callable[[str], None] = print) -> Self:
        """Fit to the training trials."""
        self._training = trials
        return super().fit(trials, seed, progress)

    def predict(self, trials: Trials, given: tuple[str, ...], predicted: str) -> Predictive:
        """Return the read-out of the modality; channels that are never observed are predicted too."""
        self._only_own((*given, predicted))
        hidden: NDArray[np.bool_] = np.logical_not(trials.observed[self.modality].any(axis=(0, 1)))
        latent, _ = self._infer(self._observation(trials))
        flat = latent.reshape(-1, latent.shape[-1])
        channels = self._readout(hidden)
        shape = (*latent.shape[:2], len(channels))
        mean = np.stack([c.predict(flat) for c in channels], axis=-1).reshape(shape)
        if trials.kinds[self.modality] == "spikes":
            return Predictive("poisson", mean[None])
        return Predictive("gaussian", mean[None], np.array([c.residual_ for c in channels]))

    def _readout(self, hidden: NDArray[np.bool_]) -> list[Any]:
        """Fit one regression a channel, on training latents inferred without the hidden channels."""
        key = hidden.tobytes()
        if key not in self._readouts:
            given = self._training.hide({self.modality: hidden})
            latent = self._infer(self._observation(given))[0]
            values = self._training.values[self.modality]
            observed = self._training.observed[self.modality]
            spikes = self._training.kinds[self.modality] == "spikes"
            regress = _poisson_regression if spikes else _linear_regression
            self._readouts[key] = [
                regress(latent[observed[..., c]], values[..., c][observed[..., c]])
                for c in range(values.shape[-1])
            ]
        return self._readouts[key]


class _Constant:
    """The read-out of a channel of which the training trials say next to nothing."""

    def __init__(self, value: float) -> None:
        self.value, self.residual_ = value, 1.0

    def predict(self, latent: Array) -> Array:
        return np.full(len(latent), self.value)


def _poisson_regression(latent: Array, count: Array) -> PoissonRegressor | _Constant:
    if not count.any():  # a regression would make a later spike impossible
        return _Constant(LEAST_COUNT / max(len(count), 1))
    return PoissonRegressor(alpha=RIDGE, solver="newton-cholesky").fit(latent, count)


def _linear_regression(latent: Array, value: Array) -> LinearRegression | _Constant:
    if len(value) < 2:
        return _Constant(0.0)
    regression = LinearRegression().fit(latent, value)
    residual = value - regression.predict(latent)
    degrees = max(len(value) - latent.shape[1] - 1, 1)
    least = LEAST_DEVIATION * (float(value.std()) or 1.0)
    regression.residual_ = max(float(np.sqrt((residual**2).sum() / degrees)), least)
    return regression
