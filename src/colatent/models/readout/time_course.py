"""The mean time course of each channel over the training trials, as one more regressor of its read-out.

Of all trials, or of those of the same condition, shrunk towards that of all.
"""

from itertools import product
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from colatent.data.trials import Trials

Array = NDArray[np.float64]
Labels = NDArray[np.str_]

WIDTHS = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0)  # s.d. of the smoothing window (bins), from which one is chosen
# Weight of the mean over time; any shrinkage beyond is the weight that a read-out gives the time course.
LEVEL_TRIALS = 1.0
# Weight of the time course of all trials in that of a condition, from which one is chosen: none to all.
PRIOR_TRIALS = (0.0, 0.5, 2.0, 8.0, 32.0, 1e9)
MIN_RATE = 1e-3  # spikes per bin, so that the logarithm of a silent bin stays finite


class Courses(NamedTuple):
    """Time courses of the channels of one modality, log rates of counts.

    Attributes:
        value: (condition + 1, time, channel); the last is that of all trials.
        conditions: the labels of the others; none unless conditions are told.
    """

    value: Array
    conditions: Labels

    def at(self, trial: NDArray[np.intp], time: NDArray[np.intp], condition: Labels | None) -> Array:
        """Return the values (bin, channel) in bins of trials; of a condition that is not known those of all.

        Args:
            condition: label of each trial.
        """
        if condition is None or not len(self.conditions):
            return self.value[-1, time]
        same = condition[:, None] == self.conditions
        row = np.where(same.any(axis=1), same.argmax(axis=1), len(self.conditions))
        return self.value[row[trial], time]


class TimeCourse(NamedTuple):
    """Time courses of training trials, the mean of that of all trials subtracted.

    Without that level, for the level of the other trials is lower where that of the left-out one is higher: a
    read-out of channels that drift from trial to trial would learn to turn the time course round.

    Attributes:
        courses: to predict other trials with.
        left_out: for each training trial that of the others (trial, time, channel), on which read-outs are
            fitted: a time course that has seen a trial predicts it too well.
        width: s.d. of the smoothing window (bins) that predicts left-out trials best.
        prior_trials: weight of the time course of all trials in that of a condition that does so.
    """

    courses: Courses
    left_out: Array
    width: float
    prior_trials: float = PRIOR_TRIALS[-1]

    @classmethod
    def fit(cls, training: Trials, modality: str, told: bool = False) -> Self:
        """Return the time courses of training trials that are aligned in time; ``told`` their conditions."""
        counts, labels = training.kinds[modality] == "spikes", training.condition
        value, seen = training.values[modality], training.observed[modality].astype(float)
        sums = {width: _Sums.of(value * seen, seen, width) for width in WIDTHS}
        plain = {width: one.of_all() for width, one in sums.items()}
        width = min(WIDTHS, key=lambda width: _loss(value, seen, plain[width][1], counts))
        of_all, of_others = plain[width]
        levels = [_logarithm(course, counts).mean(axis=-2, keepdims=True) for course in (of_all, of_others)]
        conditions, prior = np.array([], dtype=str), PRIOR_TRIALS[-1]
        courses, left_out = of_all[None], of_others
        if told and labels is not None:
            conditions = np.unique(labels)
            same = (conditions[:, None] == labels).astype(float)

            def shrunk(width: float, prior: float) -> tuple[Array, Array]:
                return sums[width].of_conditions(same, of_all, of_others, prior)

            width, prior = min(
                product(WIDTHS, PRIOR_TRIALS), key=lambda c: _loss(value, seen, shrunk(*c)[1], counts)
            )
            own, left_out = shrunk(width, prior)
            courses = np.concatenate([own, courses])
        found, kept = (
            _logarithm(course, counts) - level
            for course, level in zip((courses, left_out), levels, strict=True)
        )
        return cls(Courses(found, conditions), kept, width, prior)


class _Sums(NamedTuple):
    """Sums over the bins around each, of every training trial.

    Attributes:
        total, number: of the values and of the observations (trial, time, channel).
        all_total, all_number: the same over all bins (trial, 1, channel).
    """

    total: Array
    number: Array
    all_total: Array
    all_number: Array

    @classmethod
    def of(cls, value: Array, seen: Array, width: float) -> Self:
        smoothed = (
            gaussian_filter1d(x, width, axis=1, mode="nearest") if width else x for x in (value, seen)
        )
        return cls(*smoothed, *(x.sum(axis=1, keepdims=True) for x in (value, seen)))

    def of_all(self) -> tuple[Array, Array]:
        """Return the mean time courses of all trials (time, channel), and of all but each."""

        def course(total: Array, number: Array, all_total: Array, all_number: Array) -> Array:
            mean = all_total / np.maximum(all_number, 1)
            return (total + LEVEL_TRIALS * mean) / (number + LEVEL_TRIALS)

        return course(*(x.sum(axis=0) for x in self)), course(*(x.sum(axis=0) - x for x in self))

    def of_conditions(
        self, same: Array, of_all: Array, of_others: Array, prior: float
    ) -> tuple[Array, Array]:
        """Return the mean time courses of conditions, and for each trial of the others of its condition.

        Args:
            same: 1 for the trials of each condition (condition, trial).
            of_all, of_others: towards which they are shrunk, as from `of_all`.
            prior: weight of these in trials.
        """
        total, number = (np.tensordot(same, x, axes=1) for x in (self.total, self.number))
        which = same.argmax(axis=0)
        left_out = total[which] - self.total, number[which] - self.number
        return _shrunk(total, number, of_all, prior), _shrunk(*left_out, of_others, prior)


def _shrunk(total: Array, number: Array, towards: Array, prior: float) -> Array:
    weight = number + prior
    some = weight > 1e-9  # what is left of a sum from which all has been subtracted is rounding
    return np.where(some, (total + prior * towards) / np.where(some, weight, 1.0), towards)


def _logarithm(course: Array, counts: bool) -> Array:
    return np.log(np.maximum(course, MIN_RATE)) if counts else course


def _loss(value: Array, seen: Array, course: Array, counts: bool) -> float:
    """Return the loss of left-out trials: Poisson, or squared in units of the channels' variance."""
    if counts:
        rate = np.maximum(course, MIN_RATE)
        return float((seen * (rate - value * np.log(rate))).sum())
    variance = np.maximum((seen * value).var(axis=(0, 1)), 1e-12)
    return float((seen * (value - course) ** 2 / variance).sum())
