"""Baselines that predict one modality from the others at several lags."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from itertools import chain, combinations
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from colatent.data.predictive import Predictive
from colatent.data.scaling import LEAST_DEVIATION, Standardizer
from colatent.data.trials import Trials

Array = NDArray[np.float64]
Log = Callable[[str], None]
# no prediction of a rate falls below this share of the unit's mean: one spike would be impossible
LEAST_RATE = 0.02


def lagged(values: Array, n_lags: int) -> Array:
    """Return (trial, time, lag * channel): each bin with its neighbours, zero past a trial's ends."""
    half = n_lags // 2
    padded = np.pad(values, ((0, 0), (half, half), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, n_lags, axis=1)
    return windows.transpose(0, 1, 3, 2).reshape(*values.shape[:2], -1)


def subsets(names: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Return all non-empty subsets, in the order of ``names``."""
    return list(chain.from_iterable(combinations(names, k) for k in range(1, len(names) + 1)))


class LagRegression(ABC):
    """Predicts each modality from every set of the others, one regression for each pair.

    Predictors and continuous targets are standardised by the training trials; where a predictor
    was not observed, or lies past the trial's end, it is at its training mean. Counts are
    predicted as Poisson, continuous values as Gaussian with the residual deviation of training
    trials that the regression did not see. Windows of a continuous recording (``time_locked=False``)
    are left out in blocks.
    """

    latent_groups: tuple[str, ...] = ()

    def __init__(self, modalities: tuple[str, ...], lags: int, time_locked: bool = True) -> None:
        self.modalities = tuple(modalities)
        self.lags = lags
        self.time_locked = time_locked
        self.history: list[dict[str, float]] = []
        self._state: dict[str, np.ndarray] = {}

    @staticmethod
    def count_transform(counts: Array) -> Array:
        """Return counts as they enter the regression."""
        return counts

    def pairs(self) -> list[tuple[tuple[str, ...], str]]:
        """Return every (given, predicted) that is fitted."""
        return [
            (given, predicted)
            for predicted in self.modalities
            for given in subsets(tuple(m for m in self.modalities if m != predicted))
        ]

    def fit(self, trials: Trials, seed: int = 0, progress: Log = print) -> Self:
        """Fit all pairs to the training trials."""
        self._training = trials
        for given, predicted in self.pairs():
            target, observed = trials.values[predicted], trials.observed[predicted]
            scale = Standardizer.fit(target, observed)
            counts = trials.kinds[predicted] == "spikes"
            wanted = target if counts else scale.apply(target, observed)
            fitted = self._regress(self._predictors(trials, given), wanted, observed, counts, seed)
            name = f"{'+'.join(given)}>{predicted}"
            self._state |= {f"{name}|{key}": value for key, value in fitted.items()}
            progress(f"{name}: fitted")
        return self

    def predict(self, trials: Trials, given: tuple[str, ...], predicted: str) -> Predictive:
        """Return the regression of ``predicted`` on ``given``."""
        if (tuple(given), predicted) not in self.pairs():
            raise ValueError(f"no regression of {predicted!r} on {given}")
        prefix = f"{'+'.join(given)}>{predicted}|"
        fitted = {k.removeprefix(prefix): v for k, v in self._state.items() if k.startswith(prefix)}
        target, observed = self._training.values[predicted], self._training.observed[predicted]
        scale = Standardizer.fit(target, observed)
        counts = trials.kinds[predicted] == "spikes"
        mean = self._apply(fitted, self._predictors(trials, given), counts)
        if counts:
            least = LEAST_RATE * np.maximum(scale.mean, 1 / max(observed.shape[0] * observed.shape[1], 1))
            return Predictive("poisson", np.maximum(mean, least)[None])
        deviation = np.maximum(fitted["residual"], LEAST_DEVIATION) * scale.deviation
        return Predictive("gaussian", (mean * scale.deviation + scale.mean)[None], deviation)

    def _predictors(self, trials: Trials, given: tuple[str, ...]) -> Array:
        parts = []
        for m in given:
            change = self.count_transform if trials.kinds[m] == "spikes" else np.asarray
            scale = Standardizer.fit(change(self._training.values[m]), self._training.observed[m])
            parts.append(lagged(scale.apply(change(trials.values[m]), trials.observed[m]), self.lags))
        return np.concatenate(parts, axis=-1)

    @abstractmethod
    def _regress(
        self, x: Array, y: Array, observed: NDArray[np.bool_], counts: bool, seed: int
    ) -> dict[str, np.ndarray]:
        """Fit x (trial, time, predictor) to y (trial, time, channel); with `residual` (channel,)."""

    @abstractmethod
    def _shapes(self, n_predictors: int, n_channels: int) -> dict[str, tuple[int, ...]]:
        """Return the shapes of what `_regress` returns."""

    @abstractmethod
    def _apply(self, fitted: dict[str, np.ndarray], x: Array, counts: bool) -> Array:
        """Return the prediction (trial, time, channel)."""

    def state(self) -> dict[str, np.ndarray]:
        """Return the regressions' arrays."""
        return self._state

    @classmethod
    def state_shapes(cls, options: dict[str, Any], training: Trials) -> dict[str, tuple[int, ...]]:
        """Return the shape of each array of a fit to these training trials."""
        model = cls(**options)
        n_channels = {name: values.shape[2] for name, values in training.values.items()}
        return {
            f"{'+'.join(given)}>{predicted}|{key}": shape
            for given, predicted in model.pairs()
            for key, shape in model._shapes(
                model.lags * sum(n_channels[m] for m in given), n_channels[predicted]
            ).items()
        }

    @classmethod
    def from_state(cls, options: dict[str, Any], state: dict[str, np.ndarray], training: Trials) -> Self:
        """Rebuild a fit from its arrays and the training trials."""
        model = cls(**options)
        model._training, model._state = training, state
        return model
