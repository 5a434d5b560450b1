"""Baseline: the mean over the training trials of the same condition (the PSTH)."""

from collections.abc import Callable
from typing import Any, Self

import numpy as np

from colatent.models.standardize import Standardizer
from colatent.predictive import Predictive
from colatent.trials import Trials

# a channel that was silent in all training trials still gets a rate, or one spike is impossible
LEAST_COUNT = 0.5


class ConditionMean:
    """Predicts each channel's mean time course over the training trials of the trial's condition.

    Where there are no conditions, all trials are one. Windows of a continuous recording share no
    time course: with ``time_locked=False`` the mean over all bins is predicted. It looks at
    nothing but the trial's condition. Counts are Poisson; continuous values are Gaussian with the
    standard deviation of the training residuals (leaving out the trial itself).
    """

    latent_groups: tuple[str, ...] = ()

    def __init__(self, time_locked: bool = True) -> None:
        self.time_locked = time_locked
        self.history: list[dict[str, float]] = []

    def fit(self, trials: Trials, seed: int = 0, progress: Callable[[str], None] = print) -> Self:
        """Average the training trials."""
        self._training = trials
        self._condition = trials.condition if trials.condition is not None else np.full(trials.n_trials, "")
        return self

    def predict(self, trials: Trials, given: tuple[str, ...], predicted: str) -> Predictive:
        """Return the condition means of ``predicted``; ``given`` is not looked at."""
        values, observed = self._training.values[predicted], self._training.observed[predicted]
        condition = trials.condition if trials.condition is not None else np.full(trials.n_trials, "")
        fallback, residual = _mean_and_residual(values, observed, self.time_locked)
        mean = np.empty((trials.n_trials, *values.shape[1:]))
        deviation = np.empty_like(mean)
        for label in np.unique(condition):
            same = self._condition == label
            centre, spread = fallback, residual
            if same.sum() > 1:
                centre, spread = _mean_and_residual(values[same], observed[same], self.time_locked)
            mean[condition == label] = centre
            deviation[condition == label] = np.where(spread > 0, spread, residual)
        if trials.kinds[predicted] == "spikes":
            n_bins = np.maximum(observed.sum(axis=(0, 1)), 1)
            return Predictive("poisson", np.maximum(mean, LEAST_COUNT / n_bins)[None])
        floor = 1e-6 * Standardizer.fit(values, observed).deviation
        return Predictive("gaussian", mean[None], np.maximum(deviation, floor)[None])

    def latents(self, trials: Trials, given: tuple[str, ...]) -> None:
        """A mean has no latents."""

    def state(self) -> dict[str, np.ndarray]:
        """The training trials say all."""
        return {}

    @classmethod
    def from_state(cls, options: dict[str, Any], state: dict[str, np.ndarray], training: Trials) -> Self:
        """Rebuild a fit from its training trials."""
        return cls(**options).fit(training)


def _mean_and_residual(
    values: np.ndarray, observed: np.ndarray, time_locked: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Mean time course (time, channel) and leave-one-trial-out residual s.d. (channel,)."""
    axis = 0 if time_locked else (0, 1)
    count = observed.sum(axis=axis, keepdims=True)
    total = np.where(observed, values, 0.0).sum(axis=axis, keepdims=True)
    overall = np.where(observed, values, 0.0).sum(axis=(0, 1)) / np.maximum(observed.sum(axis=(0, 1)), 1)
    mean = np.where(count > 0, total / np.maximum(count, 1), overall)
    left_out = np.where(count > 1, (total - np.where(observed, values, 0.0)) / np.maximum(count - 1, 1), mean)
    square = np.where(observed, (values - left_out) ** 2, 0.0).sum(axis=(0, 1))
    residual = np.sqrt(square / np.maximum(observed.sum(axis=(0, 1)), 1))
    return np.broadcast_to(mean[0], values.shape[1:]), residual
