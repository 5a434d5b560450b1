"""The mean time course of each channel over the training trials, as one more regressor of its read-out."""

from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from colatent.data.trials import Trials

Array = NDArray[np.float64]

WIDTHS = (0.5, 1.0, 2.0, 4.0, 8.0)  # s.d. of the smoothing window (bins), from which one is chosen
PRIOR_TRIALS = 1.0  # weight of the mean over time
MIN_RATE = 1e-3  # spikes per bin, so that the logarithm of a silent bin stays finite


class TimeCourse(NamedTuple):
    """Time courses of the channels of one modality, log rates of counts, each with mean zero over time.

    Without its level, for the level of the other trials is lower where that of the left-out one is higher: a
    read-out of channels that drift from trial to trial would learn to turn the time course round.

    Attributes:
        value: of all training trials (time, channel).
        left_out: for each training trial that of the others (trial, time, channel), on which read-outs are
            fitted: a time course that has seen a trial predicts it too well.
        width: s.d. of the smoothing window (bins) that predicts left-out trials best.
    """

    value: Array
    left_out: Array
    width: float

    @classmethod
    def fit(cls, training: Trials, modality: str) -> Self:
        """Return the time courses of training trials that are aligned in time."""
        counts = training.kinds[modality] == "spikes"
        value, seen = training.values[modality], training.observed[modality].astype(float)
        courses = {width: _smoothed(value * seen, seen, width, counts) for width in WIDTHS}
        best = min(courses, key=lambda width: _loss(value, seen, courses[width][1], counts))
        value, left_out = (course - course.mean(axis=-2, keepdims=True) for course in courses[best])
        return cls(value, left_out, best)


def _smoothed(value: Array, seen: Array, width: float, counts: bool) -> tuple[Array, Array]:
    """Return the time courses of all trials, and of all but each."""
    total, number = (gaussian_filter1d(x, width, axis=1, mode="nearest") for x in (value, seen))
    sums, n = value.sum(axis=1), seen.sum(axis=1)

    def course(total: Array, number: Array, sums: Array, n: Array) -> Array:
        mean = sums / np.maximum(n, 1)
        found = (total + PRIOR_TRIALS * mean[..., None, :]) / (number + PRIOR_TRIALS)
        return np.log(np.maximum(found, MIN_RATE)) if counts else found

    parts = total, number, sums, n
    return course(*(x.sum(axis=0) for x in parts)), course(*(x.sum(axis=0) - x for x in parts))


def _loss(value: Array, seen: Array, course: Array, counts: bool) -> float:
    """Return the loss of left-out trials: Poisson, or squared in units of the channels' variance."""
    if counts:
        return float((seen * (np.exp(course) - value * course)).sum())
    variance = np.maximum((seen * value).var(axis=(0, 1)), 1e-12)
    return float((seen * (value - course) ** 2 / variance).sum())
