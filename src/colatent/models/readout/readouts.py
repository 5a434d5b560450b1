"""Predicting observations from latents that a Gaussian model inferred: the read-outs.

GPFA and factor analysis describe square-rooted counts by a Gaussian, which is no distribution of
counts. What they say of a channel's counts is therefore read out of their latents by a Poisson
regression, fitted on the training trials with the latents inferred as they are in the held-out
trials: without the channels of which a held-out trial shows nothing (for co-smoothing: from the
held-in channels alone). For a hidden end of the trials it is adapted to that end of the training
trials, with latents inferred from what came before it: where little is seen, latents are drawn
towards their prior mean, and a regression on latents of which all is seen takes that for few spikes.

Of a held-out trial only what is hidden enters, never a value.
"""

from collections.abc import Callable, Iterator
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from colatent.data.predictive import Predictive
from colatent.data.tasks import Withheld
from colatent.data.trials import Trials, running
from colatent.models.base import Array, State, array_of, part_of, with_prefix
from colatent.models.readout.channel import (
    ChannelReadout,
    adapt_count,
    adapt_value,
    expected_count,
    expected_value,
    fit_count,
    fit_value,
)

Mask = NDArray[np.bool_]
PREFIX = "readout."
Infer = Callable[[Trials], Array]
# Sets of missing channels among the training trials up to which a trial's own has its own read-outs. With
# more, gaps are scattered: training trials have such gaps too, and one fit for each would take long.
MAX_PATTERNS = 16


class Readouts:
    """Read-outs from the latents of one modality to its channels, for each pattern of what is missing.

    Attributes:
        missing: (pattern, channel), the channels without which latents are inferred.
        end: (pattern,), whether a pattern is for the hidden end of trials.
        readout: of all patterns and channels, (pattern, channel, ...).
        scattered: whether gaps of single trials are left to the read-outs for trials without gaps.
    """

    def __init__(
        self, modality: str, counts: bool, missing: Mask, end: Mask, readout: ChannelReadout, scattered: bool
    ) -> None:
        self.modality, self.counts = modality, counts
        self.missing, self.end, self.readout, self.scattered = missing, end, readout, scattered

    @classmethod
    def fit(cls, infer: Infer, modality: str, training: Trials, withheld: Withheld) -> Self:
        """Fit all that will be asked for.

        Args:
            infer: returns the latents (trial, time, latent) of trials.
            modality: that is read out.
            training: the training trials.
            withheld: what will be missing in other trials.
        """
        hidden, foreseen = withheld.channels.get(modality), withheld.missing.get(modality)
        scattered = len(np.unique(training.never_observed(modality), axis=0)) > MAX_PATTERNS
        nothing = np.zeros((1, len(training.channels[modality])), dtype=bool)
        lacking = nothing if scattered or foreseen is None else np.concatenate([nothing, foreseen])
        inside = lacking if hidden is None else np.unique([*lacking, *(lacking | hidden)], axis=0)
        source = _Source(infer, modality, training)
        found = {missing.tobytes(): source.readouts(missing) for missing in inside}
        rows = [found[missing.tobytes()] for missing in inside]
        missing, end = inside, np.zeros(len(inside), dtype=bool)
        if withheld.time:
            rows += [source.adapted(found[m.tobytes()], m, withheld.time) for m in lacking]
            missing = np.concatenate([inside, lacking])
            end = np.arange(len(missing)) >= len(inside)
        return cls(modality, source.counts, missing, end, _stacked(rows), scattered)

    def predict(self, latent: Array, trials: Trials) -> Predictive:
        """Return the prediction of all channels from latents (trial, time, latent) of these trials."""
        unseen = self._unseen(trials)
        patterns, pattern = np.unique(self._missing(trials), axis=0, return_inverse=True)
        mean, spread = np.empty((2, *trials.values[self.modality].shape))
        for i, missing in enumerate(patterns):
            for end, part in ((False, ~unseen), (True, unseen)):
                bins = part & (pattern.ravel() == i)[:, None]
                if bins.any():
                    readout = self._nearest(missing, end)
                    mean[bins] = self._expected(readout, latent[bins])
                    spread[bins] = readout.spread
        return (
            Predictive("poisson", mean[None]) if self.counts else Predictive("gaussian", mean[None], spread)
        )

    def decode(self, latent: Array) -> Array:
        """Return what is expected (trial, time, channel) at latents of trials of which nothing is missing."""
        nothing = np.zeros(self.missing.shape[1], dtype=bool)
        flat = self._expected(self._nearest(nothing, False), latent.reshape(-1, latent.shape[-1]))
        return flat.reshape(*latent.shape[:2], -1)

    def _expected(self, readout: ChannelReadout, latent: Array) -> Array:
        return expected_count(readout, latent) if self.counts else expected_value(readout, latent)

    def _missing(self, trials: Trials) -> Mask:
        """Return the channels (trial, channel) without which a trial's latents count as inferred."""
        if self.scattered:
            none = np.zeros(len(trials.channels[self.modality]), dtype=bool)
            return np.tile(trials.hidden.get(self.modality, none), (trials.n_trials, 1))
        return trials.never_observed(self.modality)

    def _unseen(self, trials: Trials) -> Mask:
        """Return the bins (trial, time) of a hidden end: none if none was hidden."""
        if not trials.hidden_end:
            return np.zeros((trials.n_trials, trials.n_bins), dtype=bool)
        return ~running([trials.observed[self.modality]])

    def _nearest(self, missing: Mask, end: bool) -> ChannelReadout:
        """Return the read-outs of the pattern that differs in the fewest channels."""
        rows = np.flatnonzero(self.end == end)
        if not len(rows):
            raise ValueError(f"no read-out of {self.modality!r} was fitted to the end of trials")
        row = rows[(self.missing[rows] != missing).sum(axis=1).argmin()]
        return ChannelReadout(*(array[row] for array in self.readout))

    def state(self) -> dict[str, NDArray[Any]]:
        """Return all that was fitted, as arrays."""
        masks = {"missing": self.missing, "end": self.end, "scattered": np.array(self.scattered)}
        return with_prefix(PREFIX, masks | self.readout._asdict())

    @staticmethod
    def shapes(state: State, n_channels: int, n_latents: int) -> dict[str, tuple[int | None, ...]]:
        """Return the shapes of the arrays of `state`, of which there is one row for each pattern."""
        n = len(array_of(state, f"{PREFIX}end", None))
        one = (n, n_channels)
        shapes = {
            "end": (n,),
            "scattered": (),
            "weight": (*one, n_latents),
            "adaptation": (*one, n_latents + 1),
        }
        named = shapes | dict.fromkeys(("missing", "intercept", "spread"), one)
        return {PREFIX + name: shape for name, shape in named.items()}

    @classmethod
    def from_state(cls, modality: str, counts: bool, state: State) -> Self:
        """Rebuild what `state` gave, from arrays of the right shapes."""
        own = part_of(state, PREFIX)
        readout = ChannelReadout(*(own[name] for name in ChannelReadout._fields))
        return cls(modality, counts, own["missing"], own["end"], readout, bool(own["scattered"]))


class _Source:
    """The training trials, from which read-outs are fitted."""

    def __init__(self, infer: Infer, modality: str, training: Trials) -> None:
        self.infer, self.modality, self.training = infer, modality, training
        self.counts = training.kinds[modality] == "spikes"

    def readouts(self, missing: Mask) -> ChannelReadout:
        """Return the read-outs (channel, ...) from latents inferred without ``missing`` (channel,)."""
        given = self.training.hide({self.modality: missing})
        everywhere = np.ones((given.n_trials, given.n_bins), dtype=bool)
        regress = fit_count if self.counts else fit_value
        return _stacked([regress(*found) for found in self._pairs(given, everywhere)])

    def adapted(self, ordinary: ChannelReadout, missing: Mask, end: float) -> ChannelReadout:
        """Return read-outs for the last share of each trial, of which inference sees nothing."""
        given = self.training.hide_end(end).hide({self.modality: missing})
        unseen = ~running([given.observed[self.modality]])
        adapt = adapt_count if self.counts else adapt_value
        channels = (ChannelReadout(*one) for one in zip(*ordinary, strict=True))
        pairs = self._pairs(given, unseen)
        return _stacked([adapt(one, *found) for one, found in zip(channels, pairs, strict=True)])

    def _pairs(self, given: Trials, bins: Mask) -> Iterator[tuple[Array, Array]]:
        """Yield, of each channel, the latents (bin, latent) and what was recorded in some training bins."""
        latent = self.infer(given)
        values, observed = self.training.values[self.modality], self.training.observed[self.modality]
        for c in range(values.shape[-1]):
            known = bins & observed[..., c]
            yield latent[known], values[known, c]


def _stacked(readouts: list[ChannelReadout]) -> ChannelReadout:
    return ChannelReadout(*(np.stack(arrays) for arrays in zip(*readouts, strict=True)))
