"""Predicting observations from latents that a Gaussian model inferred: the read-out.

GPFA and factor analysis describe square-rooted counts by a Gaussian, which is no distribution of
counts. What they say of a channel's counts is therefore read out of their latents by a Poisson
regression, fitted on the training trials with the latents inferred as they are in the held-out
trials: without the channels of which a held-out trial shows nothing (for co-smoothing: from the
held-in channels alone). For a hidden end of the trials it is adapted to that end of the training
trials, with latents inferred from what came before it: where little is seen, latents are drawn
towards their prior mean, and a regression on latents of which all is seen takes that for few spikes.

Of a held-out trial only what is hidden enters, never a value, and no other held-out trial does.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from colatent.data.predictive import Predictive
from colatent.data.trials import Trials, running
from colatent.errors import InputError
from colatent.models.readout.channel import (
    ChannelReadout,
    adapted,
    count_readout,
    value_readout,
)

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
# Sets of missing channels among the training trials up to which a trial's own has its own read-out. With
# more, gaps are scattered: training trials have such gaps too, and one fit for each would take long.
MAX_PATTERNS = 16


class OneModalityModel(ABC):
    """A model of the latents of one modality, inferred from an array (trial, time, channel) with NaN.

    Attributes:
        state_dims: the dims, "channel" and "latent", of each array of a fit.
        latent_groups: the group of each latent: always the one modality.
        history: rows for training curves.
    """

    state_dims: ClassVar[Mapping[str, tuple[str, ...]]]

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

    @classmethod
    def state_shapes(cls, options: dict[str, Any], training: Trials) -> dict[str, tuple[int, ...]]:
        """Return the shape of each array of a fit to these training trials."""
        n_channels = training.values[options["modality"]].shape[2]
        size = {"channel": n_channels, "latent": options["n_latents"]}
        return {name: tuple(size[dim] for dim in dims) for name, dims in cls.state_dims.items()}

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
        self._readouts: dict[tuple[bytes, float], list[ChannelReadout]] = {}

    def fit(self, trials: Trials, seed: int = 0, progress: Callable[[str], None] = print) -> Self:
        """Fit to the training trials."""
        self._training = trials
        self._readouts.clear()
        return super().fit(trials, seed, progress)

    def predict(self, trials: Trials, given: tuple[str, ...], predicted: str) -> Predictive:
        """Return the read-out of the modality; what was not observed is predicted too."""
        self._only_own((*given, predicted))
        latent, _ = self._infer(self._observation(trials))
        patterns, pattern = np.unique(self._missing(trials), axis=0, return_inverse=True)
        unseen = self._unseen(trials)
        spikes = trials.kinds[self.modality] == "spikes"
        mean = np.empty(trials.values[self.modality].shape)
        residual = np.empty_like(mean)
        for i, missing in enumerate(patterns):
            for end, part in ((0.0, ~unseen), (trials.hidden_end, unseen)):
                bins = part & (pattern.ravel() == i)[:, None]
                if not bins.any():
                    continue
                channels = self._readout(missing, end)
                mean[bins] = np.stack([c.predict(latent[bins]) for c in channels], axis=-1)
                if not spikes:
                    residual[bins] = [c.residual_ for c in channels]
        return Predictive("poisson", mean[None]) if spikes else Predictive("gaussian", mean[None], residual)

    def _missing(self, trials: Trials) -> Mask:
        """Return the channels (trial, channel) without which a trial's latents count as inferred."""
        if self._scattered:
            none = np.zeros(len(trials.channels[self.modality]), dtype=bool)
            return np.tile(trials.hidden.get(self.modality, none), (trials.n_trials, 1))
        return _never_observed(trials.observed[self.modality])

    @property
    def _scattered(self) -> bool:
        missing = _never_observed(self._training.observed[self.modality])
        return len(np.unique(missing, axis=0)) > MAX_PATTERNS

    def _unseen(self, trials: Trials) -> Mask:
        """Return the bins (trial, time) of a hidden end: none if none was hidden."""
        if not trials.hidden_end:
            return np.zeros((trials.n_trials, trials.n_bins), dtype=bool)
        return ~running([trials.observed[self.modality]])

    def _readout(self, missing: Mask, end: float) -> list[ChannelReadout]:
        """Return one regression a channel, fitted with latents inferred without what is missing.

        Args:
            missing: channels (channel,) kept from inference.
            end: the share of each trial that is kept from inference at its end, if the read-out is for
                that end; 0 if it is for what is seen.
        """
        key = (missing.tobytes(), end)
        if key not in self._readouts:
            self._readouts[key] = self._end_readout(missing, end) if end else self._fit_readout(missing)
        return self._readouts[key]

    def _fit_readout(self, missing: Mask) -> list[ChannelReadout]:
        given = self._training.hide({self.modality: missing})
        regress = count_readout if given.kinds[self.modality] == "spikes" else value_readout
        everywhere = np.ones((given.n_trials, given.n_bins), dtype=bool)
        return [regress(*found) for found in self._pairs(given, everywhere)]

    def _end_readout(self, missing: Mask, end: float) -> list[ChannelReadout]:
        given = self._training.hide_end(end).hide({self.modality: missing})
        pairs = self._pairs(given, self._unseen(given))
        ordinary = self._readout(missing, 0.0)
        return [adapted(one, *found) for one, found in zip(ordinary, pairs, strict=True)]

    def _pairs(self, given: Trials, bins: Mask) -> Iterator[tuple[Array, Array]]:
        """Yield, of each channel, the latents (bin, latent) and what was recorded in some training bins."""
        latent, _ = self._infer(self._observation(given))
        values, observed = self._training.values[self.modality], self._training.observed[self.modality]
        for c in range(values.shape[-1]):
            known = bins & observed[..., c]
            yield latent[known], values[known, c]


def _never_observed(observed: Mask) -> Mask:
    return np.logical_not(observed.any(axis=1))
