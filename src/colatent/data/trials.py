"""The observations of one session on common time bins."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Layout(NamedTuple):
    """What all trials of a session have in common, without their observations.

    Attributes:
        channels: modality -> names of its channels.
        kinds: modality -> "spikes" (counts) or "continuous".
        bin_width: seconds.
        n_bins: bins per trial.
        time_locked: False for windows of a continuous recording, which share no time course.
    """

    channels: Mapping[str, tuple[str, ...]]
    kinds: Mapping[str, str]
    bin_width: float
    n_bins: int
    time_locked: bool = True

    @property
    def modalities(self) -> tuple[str, ...]:
        return tuple(self.channels)

    def n_channels(self, modality: str) -> int:
        """Return the number of channels of a modality."""
        return len(self.channels[modality])


@dataclass(frozen=True)
class Trials:
    """Trials of one session, with all modalities on the same bins.

    Attributes:
        values: modality -> array (trial, time, channel), float64. Unobserved values are placeholders
            (zero, so that arithmetic stays finite): use ``observed``.
        observed: modality -> boolean array of the same shape.
        channels: modality -> names of its channels.
        kinds: modality -> "spikes" (counts) or "continuous".
        bin_width: seconds.
        condition: label of each trial, shape (trial,), or None.
        time_locked: False for windows of a continuous recording, which share no time course.
        hidden: modality -> (channel,), True for channels hidden in every trial by `hide`.
        hidden_end: share of each trial hidden by `hide_end`.
    """

    values: Mapping[str, NDArray[np.float64]]
    observed: Mapping[str, NDArray[np.bool_]]
    channels: Mapping[str, tuple[str, ...]]
    kinds: Mapping[str, str]
    bin_width: float
    condition: NDArray[np.str_] | None = None
    time_locked: bool = True
    hidden: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)
    hidden_end: float = 0.0

    def __post_init__(self) -> None:
        for name, value in self.values.items():
            if value.ndim != 3 or self.observed[name].shape != value.shape:
                raise ValueError(
                    f"modality {name!r}: values {value.shape} and observed {self.observed[name].shape} "
                    "must both be (trial, time, channel)"
                )
            if not np.isfinite(value).all():
                raise ValueError(
                    f"modality {name!r}: values must be finite; mark missing values in `observed`"
                )

    def with_nan(self, modality: str) -> NDArray[np.float64]:
        """Return the values of a modality, NaN where nothing was observed."""
        return np.where(self.observed[modality], self.values[modality], np.nan)

    @property
    def layout(self) -> Layout:
        """What these trials have in common with all others of the session."""
        return Layout(self.channels, self.kinds, self.bin_width, self.n_bins, self.time_locked)

    @property
    def modalities(self) -> tuple[str, ...]:
        return tuple(self.values)

    @property
    def n_trials(self) -> int:
        return int(next(iter(self.values.values())).shape[0])

    @property
    def n_bins(self) -> int:
        return int(next(iter(self.values.values())).shape[1])

    def never_observed(self, modality: str) -> NDArray[np.bool_]:
        """Return which channels each trial lacks throughout, boolean (trial, channel)."""
        return np.logical_not(self.observed[modality].any(axis=1))

    def select(self, trial: NDArray) -> "Trials":
        """Return the trials selected by an index or boolean array."""
        return replace(
            self,
            values={m: v[trial] for m, v in self.values.items()},
            observed={m: v[trial] for m, v in self.observed.items()},
            condition=None if self.condition is None else self.condition[trial],
        )

    def hide(self, hidden: Mapping[str, NDArray[np.bool_]]) -> "Trials":
        """Return a copy in which channels (modality -> boolean (channel,)) are unobserved.

        Their values are zeroed too, so that no model can use them by mistake.
        """
        values, observed, all_hidden = dict(self.values), dict(self.observed), dict(self.hidden)
        for modality, channel in hidden.items():
            values[modality] = np.where(channel, 0.0, values[modality])
            observed[modality] = observed[modality] & ~channel
            all_hidden[modality] = channel | all_hidden.get(modality, np.zeros_like(channel))
        return replace(self, values=values, observed=observed, hidden=all_hidden)

    def last_part(self, share: float) -> NDArray[np.bool_]:
        """Return a mask (trial, time) of the last ``share`` of each trial (at least one bin) and beyond."""
        length = running(self.observed.values()).sum(axis=1)
        kept = np.minimum(np.round((1 - share) * length), length - 1)
        return np.arange(self.n_bins) >= kept[:, None]

    def hide_end(self, share: float) -> "Trials":
        """Return a copy in which the `last_part` of each trial is unobserved."""
        end = self.last_part(share)[..., None]
        return replace(
            self,
            values={m: np.where(end, 0.0, v) for m, v in self.values.items()},
            observed={m: seen & ~end for m, seen in self.observed.items()},
            hidden_end=share,
        )

    def only(self, given: tuple[str, ...]) -> "Trials":
        """Return a copy in which only the modalities ``given`` are observed."""
        others = {m: np.ones(len(self.channels[m]), dtype=bool) for m in self.modalities if m not in given}
        return self.hide(others)


def running(observed: Iterable[NDArray[np.bool_]]) -> NDArray[np.bool_]:
    """Return a mask (trial, time) of each trial up to its last bin with any observation.

    Args:
        observed: masks of all modalities, each (trial, time, channel).
    """
    anything = np.any([seen.any(axis=2) for seen in observed], axis=0)
    return np.flip(np.logical_or.accumulate(np.flip(anything, axis=1), axis=1), axis=1)
