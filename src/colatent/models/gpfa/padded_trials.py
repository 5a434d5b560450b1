"""Trials of any shape as one padded array, grouped by observation pattern.

Whatever depends only on *where* trials were observed, above all Cholesky factors, is computed once
for all trials with the same pattern.
"""

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import xarray as xr

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Index = NDArray[np.intp]
TrialsLike: TypeAlias = "Array | Sequence[Array] | xr.DataArray | Mapping[str, Any]"


@dataclass(frozen=True)
class PaddedTrials:
    """Padded trials.

    Attributes:
        value: (trial, time, channel), zero where nothing was observed.
        observed: boolean, the same shape.
        length: bins of each trial (trial,); bins beyond it do not exist.
        ragged: True if the trials came as a list.
    """

    value: Array
    observed: Mask
    length: Index
    ragged: bool = False

    def unpad(self, array: Array) -> Array | list[Array]:
        """Return results (trial, time, ...) in the original form of the trials.

        A list without padding for a list; otherwise the array with NaN past each trial's end.
        """
        if self.ragged:
            return [a[:n] for a, n in zip(array, self.length, strict=True)]
        past_end = np.arange(array.shape[1]) >= self.length[:, None]
        return np.where(past_end[:, :, None], np.nan, array) if past_end.any() else array


def as_padded_trials(trials: TrialsLike) -> PaddedTrials:
    """Return trials as ``PaddedTrials``; NaN means missing.

    Args:
        trials: array (trial, time, channel); list of arrays (time, channel) of any lengths; or
            DataArray with dims trial, time and channel in any order. In an array, a trial ends at its
            last bin with an observation (a trial without any observation keeps its full length).

    Raises:
        ValueError: wrong number of dimensions or channels, no trials, or infinite values.
    """
    # xarray is slow to import; if ``trials`` is a DataArray, it is loaded already
    xarray = sys.modules.get("xarray")
    if xarray is not None and isinstance(trials, xarray.DataArray):
        if set(trials.dims) != {"trial", "time", "channel"}:
            raise ValueError(f"a DataArray needs the dims trial, time and channel, not {trials.dims}")
        trials = np.asarray(trials.transpose("trial", "time", "channel").values, dtype=float)
    if isinstance(trials, np.ma.MaskedArray):
        trials = np.ma.filled(trials.astype(float), np.nan)
    if isinstance(trials, np.ndarray) and np.iscomplexobj(trials):
        raise ValueError("trials must be real numbers")
    if isinstance(trials, Mapping):
        raise ValueError("trials of several modalities need latents by group, such as latents={'a+b': 2}")
    if trials is None or np.isscalar(trials):
        raise ValueError("trials must be an array (trial, time, channel) or a list of arrays")
    ragged = not isinstance(trials, np.ndarray)
    padded, length = _pad(trials) if ragged else (np.asarray(trials, dtype=float), None)
    if padded.ndim != 3 or 0 in padded.shape:
        raise ValueError(f"trials must be a non-empty (trial, time, channel), not of shape {padded.shape}")
    observed = np.asarray(~np.isnan(padded))
    value = padded if observed.all() else np.where(observed, padded, 0.0)
    if not np.isfinite(value).all():
        raise ValueError("trials contain infinite values; mark missing values by NaN")
    if length is None:
        length = last_observed_bin(observed)
    return PaddedTrials(value, observed, length, ragged)


def _pad(trials: Iterable[Any]) -> tuple[Array, Index]:
    pieces = [np.asarray(trial, dtype=float) for trial in trials]
    if not pieces or any(piece.ndim != 2 for piece in pieces):
        raise ValueError("a list of trials must hold arrays (time, channel)")
    if len({piece.shape[1] for piece in pieces}) > 1:
        raise ValueError("all trials must have the same channels")
    length = np.array([len(piece) for piece in pieces], dtype=np.intp)
    padded = np.full((len(pieces), int(length.max()), pieces[0].shape[1]), np.nan)
    for row, piece in zip(padded, pieces, strict=True):
        row[: len(piece)] = piece
    return padded, length


def last_observed_bin(observed: Mask) -> Index:
    """Return the bins up to the last with an observation (trial,), all if there is none."""
    n_bins = observed.shape[1]
    bins: Mask = np.any(observed, axis=2)
    last = n_bins - np.argmax(bins[:, ::-1], axis=1)
    return np.where(bins.any(axis=1), last, n_bins).astype(np.intp)


@dataclass(frozen=True)
class Pattern:
    """Trials observed in the same bins and channels.

    Attributes:
        trial: indices of the trials.
        bins: bins with any observation (bin,), increasing.
        channels: distinct masks of observed channels (mask, channel).
        mask: for each of ``bins``, the row of its mask in ``channels`` (bin,).
    """

    trial: Index
    bins: Index
    channels: Mask
    mask: Index

    @property
    def is_tail_missing(self) -> bool:
        """Whether only bins at the end are missing, with the same channels observed in all others."""
        return not self.is_scattered and len(self.bins) > 0 and self.bins[-1] == len(self.bins) - 1

    @property
    def is_scattered(self) -> bool:
        """Whether the observed channels change within the trial."""
        return len(self.channels) > 1

    @property
    def n_bins(self) -> int:
        """Number of bins up to the last observed one."""
        return int(self.bins[-1]) + 1 if len(self.bins) else 0


def find_patterns(observed: Mask) -> list[Pattern]:
    """Return the distinct observation patterns of a mask (trial, time, channel)."""
    n_trials = len(observed)
    if observed.all():
        return [_pattern(observed[0], np.arange(n_trials))]
    first, kind = _distinct(observed.reshape(n_trials, -1))
    return [_pattern(observed[f], np.flatnonzero(kind == i)) for i, f in enumerate(first)]


def kinds_of(observed: Mask) -> Index:
    """Return the number of each trial's observation pattern (trial,), for a mask (trial, time, channel)."""
    return _distinct(observed.reshape(len(observed), -1))[1]


def _distinct(rows: Mask) -> tuple[Index, Index]:
    """Return the first index of each distinct row, and every row's number among the distinct ones."""
    if (rows == rows[0]).all():
        return np.zeros(1, dtype=np.intp), np.zeros(len(rows), dtype=np.intp)
    kinds: dict[bytes, int] = {}
    packed = np.packbits(rows, axis=1)
    kind = np.array([kinds.setdefault(row.tobytes(), len(kinds)) for row in packed], dtype=np.intp)
    return np.unique(kind, return_index=True)[1], kind


def _pattern(observed: Mask, trial: Index) -> Pattern:
    bins = np.flatnonzero(observed.any(axis=1))
    if len(bins) == 0:
        return Pattern(trial, bins, np.zeros((1, observed.shape[1]), dtype=bool), bins)
    first, mask = _distinct(observed[bins])
    return Pattern(trial, bins, observed[bins[first]], mask)


def chain_patterns(patterns: Sequence[Pattern], max_spread: float) -> list[list[Pattern]]:
    """Group patterns that are evaluated together, longest first, with lengths within ``max_spread`` bins.

    The patterns of a chain either differ only in trial length, so that their observed bins are nested, or
    are all scattered. Every other pattern forms its own chain.
    """
    chains = [[p] for p in patterns if not (p.is_tail_missing or p.is_scattered)]
    alike: dict[bytes, list[Pattern]] = {}
    for p in patterns:
        if p.is_tail_missing or p.is_scattered:
            alike.setdefault(b"" if p.is_scattered else p.channels.tobytes(), []).append(p)
    for kind in alike.values():
        kind.sort(key=lambda p: -p.n_bins)
        chain = [kind[0]]
        for p in kind[1:]:
            if chain[0].n_bins - p.n_bins > max_spread:
                chains.append(chain)
                chain = []
            chain.append(p)
        chains.append(chain)
    return chains


def channel_masks(patterns: Sequence[Pattern]) -> tuple[Mask, Index]:
    """Return the distinct channel masks of a chain, and the mask of each bin.

    Returns:
        Masks (mask, channel), and for each pattern and bin the row of its mask, -1 where nothing was
        observed (pattern, bin).
    """
    every = np.concatenate([p.channels for p in patterns])
    first, row = _distinct(every)
    of_bin = np.full((len(patterns), max(p.n_bins for p in patterns)), -1, dtype=np.intp)
    start = 0
    for index, p in zip(of_bin, patterns, strict=True):
        index[p.bins] = row[start + p.mask]
        start += len(p.channels)
    return every[first], of_bin
