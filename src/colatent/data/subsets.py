"""Nested subsets of training trials and channels: each larger share contains the smaller ones."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from colatent.data.trials import Trials

Mask = NDArray[np.bool_]


def trial_subsets(
    condition: NDArray[np.str_] | None, n_trials: int, shares: Sequence[float], seed: Sequence[int]
) -> list[Mask]:
    """Return a random mask of trials (trial,) for each share, stratified by condition."""
    order = np.random.default_rng(seed).permutation(n_trials)
    if condition is not None:
        # trial i of a condition's n trials enters once the share reaches (i + 1/2) / n
        enters = np.empty(n_trials)
        for label in np.unique(condition):
            own = order[condition[order] == label]
            enters[own] = (np.arange(len(own)) + 0.5) / len(own)
        order = order[np.argsort(enters[order], kind="stable")]
    return [_mask(order[: _n_kept(share, n_trials)], n_trials) for share in shares]


def window_subsets(n_windows: int, shares: Sequence[float], seed: Sequence[int]) -> list[Mask]:
    """Return a mask of windows (window,) for each share: a contiguous block, like a shorter recording.

    A random point determines how much of the omitted recording lies before and after the block.
    """
    point = np.random.default_rng(seed).random()
    blocks = []
    for share in shares:
        n = _n_kept(share, n_windows)
        # growing n by one extends the block by one window at one end, so blocks are nested
        start = int(point * (n_windows - n))
        blocks.append(_mask(np.arange(start, start + n), n_windows))
    return blocks


def channel_subsets(always: Mask, shares: Sequence[float], seed: Sequence[int]) -> list[Mask]:
    """Return a mask of channels (channel,) for each share: ``always`` plus a random share of the others."""
    others = np.random.default_rng(seed).permutation(np.flatnonzero(~always))
    return [always | _mask(others[: _n_kept(share, len(others))], len(always)) for share in shares]


def with_channels(trials: Trials, kept: Mapping[str, Mask]) -> Trials:
    """Return the trials as if only these channels (modality -> (channel,)) had been recorded."""
    values, observed, channels = dict(trials.values), dict(trials.observed), dict(trials.channels)
    for modality, keep in kept.items():
        # keep the memory order: sums in another order differ in the last digit
        values[modality] = np.ascontiguousarray(values[modality][..., keep])
        observed[modality] = np.ascontiguousarray(observed[modality][..., keep])
        channels[modality] = tuple(np.array(channels[modality], dtype=object)[keep])
    return replace(trials, values=values, observed=observed, channels=channels)


def _n_kept(share: float, n: int) -> int:
    return min(max(round(share * n), 1), n)


def _mask(chosen: NDArray[np.intp], n: int) -> Mask:
    return np.isin(np.arange(n), chosen)
