"""Baseline: the mean over the training trials of the same condition (the PSTH)."""

from collections.abc import Callable
from itertools import product
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d
from scipy.special import xlogy

from colatent.data.predictive import Predictive
from colatent.data.scaling import LEAST_DEVIATION, Standardizer
from colatent.data.trials import Trials

Array = NDArray[np.float64]
# a channel that was silent in all training trials still gets a rate, or one spike is impossible
LEAST_COUNT = 0.5
SMOOTHINGS = (0.0, 1.0, 2.0, 4.0, 8.0)  # s.d. of the window, bins
PRIOR_TRIALS = (0.5, 2.0, 8.0, 32.0)  # weight of the channel's mean rate, in trials


class Choice(NamedTuple):
    """How the mean of a modality is taken."""

    smoothing: float
    prior_trials: float


class ConditionMean:
    """Predicts each channel's mean time course over the training trials of the trial's condition.

    The mean of few trials is noise bin by bin: it is smoothed over time and drawn towards the
    channel's overall mean, each as much as predicts left-out training trials best. Where there are
    no conditions, all trials are one. Windows of a continuous recording share no time course: with
    ``time_locked=False`` the mean over all bins is predicted. It looks at nothing but the trial's
    condition. Counts are Poisson; continuous values are Gaussian with the standard deviation of
    left-out training residuals.
    """

    latent_groups: tuple[str, ...] = ()

    def __init__(self, time_locked: bool = True) -> None:
        self.time_locked = time_locked
        self.history: list[dict[str, float]] = []
        self._choices: dict[str, Choice] = {}

    def fit(self, trials: Trials, seed: int = 0, progress: Callable[[str], None] = print) -> Self:
        """Choose the smoothing and the prior of each modality by leaving out training trials."""
        self._training = trials
        for name in trials.modalities:
            candidates = [Choice(*c) for c in product(SMOOTHINGS, PRIOR_TRIALS)]
            if self.time_locked:
                losses = [self._left_out_loss(name, candidate) for candidate in candidates]
                self._choices[name] = candidates[int(np.argmin(losses))]
            else:
                self._choices[name] = Choice(0.0, PRIOR_TRIALS[-1])
            chosen = self._choices[name]
            progress(f"{name}: smoothing {chosen.smoothing:g} bins, prior of {chosen.prior_trials:g} trials")
        return self

    def predict(self, trials: Trials, given: tuple[str, ...], predicted: str) -> Predictive:
        """Return the condition means of ``predicted``; ``given`` is not looked at."""
        total, count = self._sums(predicted, _labels(trials))
        mean = self._mean(predicted, total, count, self._choices[predicted])
        if trials.kinds[predicted] == "spikes":
            return Predictive("poisson", mean[None])
        left_out = self._left_out_mean(predicted, self._choices[predicted])
        values, observed = self._training.values[predicted], self._training.observed[predicted]
        square = np.where(observed, (values - left_out) ** 2, 0.0)
        variance = square.sum(axis=(0, 1)) / np.maximum(observed.sum(axis=(0, 1)), 1)
        least = LEAST_DEVIATION * Standardizer.fit(values, observed).deviation
        return Predictive("gaussian", mean[None], np.maximum(np.sqrt(variance), least))

    def _sums(self, name: str, labels: NDArray[np.str_]) -> tuple[Array, Array]:
        """Return sum and count over the training trials of each label, each (label, time, channel)."""
        same = (labels[:, None] == _labels(self._training)[None]).astype(float)
        values, observed = self._training.values[name], self._training.observed[name]
        total = np.tensordot(same, np.where(observed, values, 0.0), axes=1)
        return total, np.tensordot(same, observed.astype(float), axes=1)

    def _mean(self, name: str, total: Array, count: Array, choice: Choice) -> Array:
        values, observed = self._training.values[name], self._training.observed[name]
        n = np.maximum(observed.sum(axis=(0, 1)), 1)
        overall = np.where(observed, values, 0.0).sum(axis=(0, 1)) / n
        if self._training.kinds[name] == "spikes":
            overall = np.maximum(overall, LEAST_COUNT / n)
        if not self.time_locked:
            return np.broadcast_to(overall, total.shape)
        if choice.smoothing:
            total, count = (
                gaussian_filter1d(a, choice.smoothing, axis=1, mode="constant") for a in (total, count)
            )
        return (total + choice.prior_trials * overall) / (count + choice.prior_trials)

    def _left_out_mean(self, name: str, choice: Choice) -> Array:
        """Return each training trial's mean over the others of its condition."""
        total, count = self._sums(name, _labels(self._training))
        values, observed = self._training.values[name], self._training.observed[name]
        return self._mean(name, total - np.where(observed, values, 0.0), count - observed, choice)

    def _left_out_loss(self, name: str, choice: Choice) -> float:
        mean, observed = self._left_out_mean(name, choice), self._training.observed[name]
        values = self._training.values[name]
        if self._training.kinds[name] == "spikes":
            return float(np.where(observed, mean - xlogy(values, mean), 0.0).sum())
        square = np.where(observed, (values - mean) ** 2, 0.0).sum(axis=(0, 1))
        total = np.where(observed, values, 0.0).sum(axis=(0, 1)) / np.maximum(observed.sum(axis=(0, 1)), 1)
        spread = np.where(observed, (values - total) ** 2, 0.0).sum(axis=(0, 1))
        # a constant channel's rounding errors say nothing
        varies = spread > 1e-20 * np.where(observed, values**2, 0.0).sum(axis=(0, 1))
        return float(np.log(np.maximum(square[varies], 1e-12 * spread[varies])).sum())

    def state(self) -> dict[str, np.ndarray]:
        """Return the choices; the rest is in the training trials."""
        return {name: np.array(choice) for name, choice in self._choices.items()}

    @classmethod
    def state_shapes(cls, options: dict[str, Any], training: Trials) -> dict[str, tuple[int, ...]]:
        """Return the shape of each array of a fit to these training trials."""
        return dict.fromkeys(training.modalities, (len(Choice._fields),))

    @classmethod
    def from_state(cls, options: dict[str, Any], state: dict[str, np.ndarray], training: Trials) -> Self:
        """Rebuild a fit from its choices and its training trials."""
        model = cls(**options)
        model._training = training
        model._choices = {name: Choice(*map(float, choice)) for name, choice in state.items()}
        return model


def _labels(trials: Trials) -> NDArray[np.str_]:
    return trials.condition if trials.condition is not None else np.full(trials.n_trials, "")
