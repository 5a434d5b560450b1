"""Read-outs: predict observations from latents inferred by a Gaussian model.

GPFA and factor analysis model square-rooted counts as Gaussian, which is not a distribution of counts.
Counts are therefore predicted from their latents by Poisson regressions, fitted on the training
trials with latents inferred as in the held-out trials: without the channels missing there (for
co-smoothing, from the held-in channels alone). For a hidden end of the trials, the regression is
adapted to that end of the training trials, with latents inferred from the preceding part: with little
data, latents shrink towards their prior mean, and a regression fitted to fully observed trials would
mistake that for low rates.

Read-outs depend on what is hidden in held-out trials, never on their values.
"""

from collections.abc import Callable, Iterator
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from colatent.data.predictive import Predictive
from colatent.data.tasks import Withheld
from colatent.data.trials import Trials, running
from colatent.models.base import Array, State, array_of, labels_from, labels_state, part_of, with_prefix
from colatent.models.readout.channel import (
    ChannelReadout,
    adapt_count,
    adapt_value,
    expected_count,
    expected_value,
    fit_count,
    fit_value,
)
from colatent.models.readout.time_course import Courses, Labels, TimeCourse

Mask = NDArray[np.bool_]
PREFIX = "readout."
Infer = Callable[[Trials], Array]
# Largest number of distinct sets of missing channels in the training trials for which each set gets its own
# read-outs. Beyond, gaps count as scattered: a fit for each would be slow, and training trials share them.
MAX_PATTERNS = 16


class Readouts:
    """Read-outs from the latents of one modality to its channels, for each pattern of missing data.

    Attributes:
        missing: (pattern, channel), channels excluded from inference of the latents.
        end: (pattern,), whether a pattern is for the hidden end of trials.
        readout: read-outs of all patterns and channels, (pattern, channel, ...).
        scattered: whether trials with gaps use the read-outs for trials without gaps.
        courses: time courses of the channels, a further regressor of each; None without.
    """

    def __init__(
        self,
        modality: str,
        counts: bool,
        missing: Mask,
        end: Mask,
        readout: ChannelReadout,
        scattered: bool,
        courses: Courses | None = None,
    ) -> None:
        self.modality, self.counts = modality, counts
        self.missing, self.end, self.readout, self.scattered = missing, end, readout, scattered
        self.courses = courses

    @classmethod
    def fit(
        cls,
        infer: Infer,
        modality: str,
        training: Trials,
        withheld: Withheld,
        course: TimeCourse | None = None,
    ) -> Self:
        """Fit the read-outs for all patterns that will occur.

        Args:
            infer: returns the latents (trial, time, latent) of trials.
            modality: modality to predict.
            training: the training trials.
            withheld: what will be missing in test trials.
            course: time courses of the channels over these trials, as one more regressor of each.
        """
        hidden, expected = withheld.channels.get(modality), withheld.missing.get(modality)
        scattered = len(np.unique(training.never_observed(modality), axis=0)) > MAX_PATTERNS
        nothing = np.zeros((1, len(training.channels[modality])), dtype=bool)
        gaps = nothing if scattered or expected is None else np.concatenate([nothing, expected])
        ordinary = gaps if hidden is None else np.unique([*gaps, *(gaps | hidden)], axis=0)
        fitter = _ReadoutFitter(infer, modality, training, course)
        found = {missing.tobytes(): fitter.readouts(missing) for missing in ordinary}
        rows = [found[missing.tobytes()] for missing in ordinary]
        missing, end = ordinary, np.zeros(len(ordinary), dtype=bool)
        if withheld.time:
            rows += [fitter.adapted(found[m.tobytes()], m, withheld.time) for m in gaps]
            missing = np.concatenate([ordinary, gaps])
            end = np.arange(len(missing)) >= len(ordinary)
        known = None if course is None else course.courses
        return cls(modality, fitter.counts, missing, end, _stacked(rows), scattered, known)

    def predict(self, latent: Array, trials: Trials) -> Predictive:
        """Return the predictions of all channels from the latents (trial, time, latent) of ``trials``."""
        unseen = self._unseen(trials)
        patterns, pattern = np.unique(self._missing(trials), axis=0, return_inverse=True)
        mean, spread = np.empty((2, *trials.values[self.modality].shape))
        for i, missing in enumerate(patterns):
            for end, part in ((False, ~unseen), (True, unseen)):
                bins = part & (pattern.ravel() == i)[:, None]
                if bins.any():
                    readout = self._nearest(missing, end)
                    mean[bins] = self._expected(readout, latent, bins, trials.condition)
                    spread[bins] = readout.spread
        return (
            Predictive("poisson", mean[None]) if self.counts else Predictive("gaussian", mean[None], spread)
        )

    def decode(self, latent: Array, condition: Labels | None = None) -> Array:
        """Return expected observations (trial, time, channel) by the read-outs without missing channels.

        Args:
            condition: label of each trial, if it is known.
        """
        nothing = np.zeros(self.missing.shape[1], dtype=bool)
        everywhere = np.ones(latent.shape[:2], dtype=bool)
        flat = self._expected(self._nearest(nothing, False), latent, everywhere, condition)
        return flat.reshape(*latent.shape[:2], -1)

    def _expected(
        self, readout: ChannelReadout, latent: Array, bins: Mask, condition: Labels | None
    ) -> Array:
        """Return what is expected in ``bins`` (trial, time), (bin, channel)."""
        trial, time = np.nonzero(bins)
        course = None if self.courses is None else self.courses.at(trial, time, condition)
        return (expected_count if self.counts else expected_value)(readout, latent[bins], course)

    def _missing(self, trials: Trials) -> Mask:
        """Return the missing channels (trial, channel) by which a trial's read-outs are chosen."""
        if self.scattered:
            none = np.zeros(len(trials.channels[self.modality]), dtype=bool)
            return np.tile(trials.hidden.get(self.modality, none), (trials.n_trials, 1))
        return trials.never_observed(self.modality)

    def _unseen(self, trials: Trials) -> Mask:
        """Return a mask (trial, time) of the hidden end; all False if none is hidden."""
        if not trials.hidden_end:
            return np.zeros((trials.n_trials, trials.n_bins), dtype=bool)
        return ~running([trials.observed[self.modality]])

    def _nearest(self, missing: Mask, end: bool) -> ChannelReadout:
        """Return the read-outs of the pattern that differs from ``missing`` in the fewest channels."""
        rows = np.flatnonzero(self.end == end)
        if not len(rows):
            raise ValueError(f"no read-out of {self.modality!r} was fitted to the end of trials")
        row = rows[(self.missing[rows] != missing).sum(axis=1).argmin()]
        return ChannelReadout(*(array[row] for array in self.readout))

    def state(self) -> dict[str, NDArray[Any]]:
        """Return everything that was fitted, as arrays."""
        masks = {"missing": self.missing, "end": self.end, "scattered": np.array(self.scattered)}
        state = masks | self.readout._asdict()
        if self.courses is not None:
            value, conditions = self.courses
            state |= {"course": value}
            state |= {"conditions": labels_state(conditions)} if len(conditions) else {}
        return with_prefix(PREFIX, state)

    @staticmethod
    def shapes(
        state: State, n_channels: int, n_latents: int, n_bins: int | None = None, told: bool = False
    ) -> dict[str, tuple[int | None, ...]]:
        """Return the shapes of the arrays of `state`, most with one row per pattern.

        Args:
            n_bins: bins of the time courses; None without.
            told: whether conditions have their own.
        """
        n = len(array_of(state, f"{PREFIX}end", None))
        n_latents += n_bins is not None
        one = (n, n_channels)
        shapes: dict[str, tuple[int | None, ...]] = {
            "end": (n,),
            "scattered": (),
            "weight": (*one, n_latents),
            "adaptation": (*one, n_latents + 1),
        }
        named = shapes | dict.fromkeys(("missing", "intercept", "spread"), one)
        if n_bins is not None:
            n_conditions = len(array_of(state, f"{PREFIX}conditions", None, None)) if told else 0
            named["course"] = (n_conditions + 1, n_bins, n_channels)
            named |= {"conditions": (n_conditions, None)} if told else {}
        return {PREFIX + name: shape for name, shape in named.items()}

    @classmethod
    def from_state(cls, modality: str, counts: bool, state: State) -> Self:
        """Rebuild the read-outs from the arrays of `state`."""
        own = part_of(state, PREFIX)
        readout = ChannelReadout(*(own[name] for name in ChannelReadout._fields))
        scattered = bool(own["scattered"])
        conditions = labels_from(own.get("conditions", np.zeros((0, 1), dtype=np.uint8)))
        courses = Courses(own["course"], conditions) if "course" in own else None
        return cls(modality, counts, own["missing"], own["end"], readout, scattered, courses)


class _ReadoutFitter:
    """Fits read-outs to the training trials."""

    def __init__(self, infer: Infer, modality: str, training: Trials, course: TimeCourse | None) -> None:
        self.infer, self.modality, self.training, self.course = infer, modality, training, course
        self.counts = training.kinds[modality] == "spikes"

    def readouts(self, missing: Mask) -> ChannelReadout:
        """Return the read-outs (channel, ...) from latents inferred without ``missing`` (channel,)."""
        given = self.training.hide({self.modality: missing})
        everywhere = np.ones((given.n_trials, given.n_bins), dtype=bool)
        return _stacked([self._regress(*found) for found in self._pairs(given, everywhere)])

    def _regress(self, regressors: Array, values: Array) -> ChannelReadout:
        """Return a channel's read-out, without its time course if that would be turned round."""
        regress = fit_count if self.counts else fit_value
        found = regress(regressors, values)
        if self.course is None or found.weight[-1] >= 0:
            return found
        return regress(regressors * np.r_[np.ones(regressors.shape[1] - 1), 0.0], values)

    def adapted(self, ordinary: ChannelReadout, missing: Mask, end: float) -> ChannelReadout:
        """Return read-outs for the hidden last share ``end`` of each trial."""
        given = self.training.hide_end(end).hide({self.modality: missing})
        unseen = ~running([given.observed[self.modality]])
        adapt = adapt_count if self.counts else adapt_value
        channels = (ChannelReadout(*one) for one in zip(*ordinary, strict=True))
        pairs = self._pairs(given, unseen)
        return _stacked([adapt(one, *found) for one, found in zip(channels, pairs, strict=True)])

    def _pairs(self, given: Trials, bins: Mask) -> Iterator[tuple[Array, Array]]:
        """Yield, for each channel, latents (bin, latent) and observations (bin,) in its observed ``bins``."""
        latent = self.infer(given)
        values, observed = self.training.values[self.modality], self.training.observed[self.modality]
        for c in range(values.shape[-1]):
            known = bins & observed[..., c]
            regressors = latent[known]
            if self.course is not None:
                regressors = np.column_stack([regressors, self.course.left_out[known, c]])
            yield regressors, values[known, c]


def _stacked(readouts: list[ChannelReadout]) -> ChannelReadout:
    return ChannelReadout(*(np.stack(arrays) for arrays in zip(*readouts, strict=True)))
