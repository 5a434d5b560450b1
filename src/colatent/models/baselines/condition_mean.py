"""Baseline: the mean over the training trials of the same condition (the PSTH)."""

from itertools import product
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d
from scipy.special import xlogy

from colatent.config.models import ConditionMeanSettings
from colatent.data.predictive import Predictive
from colatent.data.scaling import MIN_DEVIATION, Standardizer
from colatent.data.tasks import Task, Withheld
from colatent.data.trials import Layout, Trials
from colatent.models.base import Array, FitRun, State, array_of, arrays_of, labels_from, labels_state

# spikes assumed of a channel over all training trials, without which a spike could be impossible
MIN_COUNT = 0.5
SMOOTHINGS = (0.0, 1.0, 2.0, 4.0, 8.0)  # s.d. of the Gaussian window, bins
# weight of the channel's mean rate, in trials: from the plain mean of the condition to the mean rate alone
PRIOR_TRIALS = (0.0, 0.5, 2.0, 8.0, 32.0, 1e9)
CONDITIONS = "conditions"


class Choice(NamedTuple):
    """Smoothing (bins) and prior weight (trials) of a modality's means."""

    smoothing: float
    prior_trials: float


class MeanCourse(NamedTuple):
    """Predicted time courses of one modality.

    Attributes:
        mean: (condition, time, channel); the last row is for conditions absent from training. A single bin
            if trials share no time course.
        deviation: s.d. of left-out training residuals (channel,); unused for counts.
        choice: the fields of `Choice`.
    """

    mean: Array
    deviation: Array
    choice: Array


class ConditionMean:
    """Predicts each channel's mean time course over the training trials of the trial's condition.

    The mean over few trials is noisy in each bin: it is smoothed over time and shrunk towards the
    channel's overall mean, both by the amounts that best predict left-out training trials: none is among
    them, and so is the overall mean itself. Without conditions, all trials count as one condition. Windows
    of a continuous recording share no time course: the mean over all bins is predicted. Only the trial's
    condition is used. Counts are Poisson; continuous values are Gaussian with the standard deviation of
    left-out training residuals.
    """

    def __init__(self, settings: ConditionMeanSettings, layout: Layout, device: str = "cpu") -> None:
        self.layout = layout
        self.modalities = layout.modalities
        self.history: list[dict[str, float]] = []
        self._conditions: NDArray[np.str_] = np.array([], dtype=str)
        self._courses: dict[str, MeanCourse] = {}

    def fit(self, training: Trials, run: FitRun) -> Self:
        """Choose the smoothing and prior of each modality by leave-one-trial-out prediction."""
        labels = _labels(training)
        self._conditions = np.unique(labels) if self.layout.time_locked else np.array([], dtype=str)
        for name in self.modalities:
            means = _Means(training, name)
            choice = means.best_choice()
            smoothing, prior = choice
            run.progress(f"{name}: smoothing {smoothing:g} bins, prior of {prior:g} trials")
            course = means.of_conditions(self._conditions, choice)
            self._courses[name] = MeanCourse(course, means.deviation(choice), np.array(choice))
        return self

    def tasks(self, withheld: Withheld) -> list[Task]:
        """Return the tasks; given no modality, the predictions are the same in all."""
        asked = []
        for predicted in self.modalities:
            asked.append(Task("trials", (), predicted))
            if predicted in withheld.channels:
                asked.append(Task("channels", (), predicted))
            if withheld.time:
                asked.append(Task("time", (), predicted))
        return asked

    def predict(self, trials: Trials, given: tuple[str, ...], predicted: str) -> Predictive:
        """Return the condition means of ``predicted``; ``given`` is ignored."""
        course = self._courses[predicted]
        same = _labels(trials)[:, None] == self._conditions
        row = np.where(same.any(axis=1), same.argmax(axis=1) if same.size else 0, len(self._conditions))
        mean = np.broadcast_to(course.mean[row], trials.values[predicted].shape)
        if trials.kinds[predicted] == "spikes":
            return Predictive("poisson", mean[None])
        return Predictive("gaussian", mean[None], course.deviation)

    def state(self) -> dict[str, NDArray[Any]]:
        """Return the condition labels, as zero-padded UTF-8, and the time courses."""
        courses = {f"{m}|{k}": v for m, course in self._courses.items() for k, v in course._asdict().items()}
        return {CONDITIONS: labels_state(self._conditions)} | courses

    @classmethod
    def from_state(
        cls, settings: ConditionMeanSettings, layout: Layout, state: State, device: str = "cpu"
    ) -> Self:
        """Rebuild a fit from its arrays."""
        model = cls(settings, layout)
        n_rows = len(array_of(state, CONDITIONS, None, None)) + 1
        n_bins = layout.n_bins if layout.time_locked else 1
        shapes: dict[str, tuple[int | None, ...]] = {CONDITIONS: (n_rows - 1, None)}
        for m in layout.modalities:
            n = layout.n_channels(m)
            of_course = ((n_rows, n_bins, n), (n,), (len(Choice._fields),))
            shapes |= {f"{m}|{k}": s for k, s in zip(MeanCourse._fields, of_course, strict=True)}
        arrays = arrays_of(state, shapes)
        model._conditions = labels_from(arrays[CONDITIONS])
        for m in layout.modalities:
            model._courses[m] = MeanCourse(*(arrays[f"{m}|{k}"] for k in MeanCourse._fields))
        return model


class _Means:
    """Means of one modality over the training trials."""

    def __init__(self, training: Trials, name: str) -> None:
        self.observed = training.observed[name]
        self.values = np.where(self.observed, training.values[name], 0.0)
        self.labels, self.time_locked = _labels(training), training.time_locked
        self.counts = training.kinds[name] == "spikes"
        self.n = np.maximum(self.observed.sum(axis=(0, 1)), 1)
        self.overall = self.values.sum(axis=(0, 1)) / self.n
        self.prior = np.maximum(self.overall, MIN_COUNT / self.n) if self.counts else self.overall

    def best_choice(self) -> Choice:
        """Return the choice that best predicts left-out trials."""
        if not self.time_locked:
            return Choice(0.0, PRIOR_TRIALS[-1])
        candidates = [Choice(*c) for c in product(SMOOTHINGS, PRIOR_TRIALS)]
        return candidates[int(np.argmin([self._left_out_loss(candidate) for candidate in candidates]))]

    def of_conditions(self, conditions: NDArray[np.str_], choice: Choice) -> Array:
        """Return the means of the conditions and of one without trials, (condition + 1, time, channel)."""
        if not self.time_locked:
            return self.prior[None, None]
        total, count = (np.pad(a, ((0, 1), (0, 0), (0, 0))) for a in self._sums(conditions))
        return self._mean(total, count, choice)

    def deviation(self, choice: Choice) -> Array:
        """Return the standard deviation of left-out residuals (channel,)."""
        square = np.where(self.observed, (self.values - self.left_out(choice)) ** 2, 0.0)
        least = MIN_DEVIATION * Standardizer.fit(self.values, self.observed).deviation
        return np.maximum(np.sqrt(square.sum(axis=(0, 1)) / self.n), least)

    def left_out(self, choice: Choice) -> Array:
        """Return, for each training trial, the mean over the other trials of its condition."""
        if not self.time_locked:
            return np.broadcast_to(self.prior, self.values.shape)
        total, count = self._sums(self.labels)
        return self._mean(total - self.values, count - self.observed, choice)

    def _sums(self, labels: NDArray[np.str_]) -> tuple[Array, Array]:
        """Return the sum and count over the trials of each label, each (label, time, channel)."""
        same = (labels[:, None] == self.labels[None]).astype(float)
        count = np.tensordot(same, self.observed.astype(float), axes=1)
        return np.tensordot(same, self.values, axes=1), count

    def _mean(self, total: Array, count: Array, choice: Choice) -> Array:
        if choice.smoothing:
            total, count = (
                gaussian_filter1d(a, choice.smoothing, axis=1, mode="constant") for a in (total, count)
            )
        weight = count + choice.prior_trials
        mean = np.broadcast_to(self.prior, total.shape).copy()
        np.divide(total + choice.prior_trials * self.prior, weight, out=mean, where=weight > 0)
        return np.maximum(mean, MIN_COUNT / self.n) if self.counts else mean

    def _left_out_loss(self, choice: Choice) -> float:
        mean, values, observed = self.left_out(choice), self.values, self.observed
        if self.counts:
            return float(np.where(observed, mean - xlogy(values, mean), 0.0).sum())
        square = np.where(observed, (values - mean) ** 2, 0.0).sum(axis=(0, 1))
        spread = np.where(observed, (values - self.overall) ** 2, 0.0).sum(axis=(0, 1))
        # exclude constant channels, whose errors are rounding
        varies = spread > 1e-20 * np.where(observed, values**2, 0.0).sum(axis=(0, 1))
        return float(np.log(np.maximum(square[varies], 1e-12 * spread[varies])).sum())


def _labels(trials: Trials) -> NDArray[np.str_]:
    return trials.condition if trials.condition is not None else np.full(trials.n_trials, "")
