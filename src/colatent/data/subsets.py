"""Nested subsets of the training trials and of the channels, by share: the larger contains the smaller."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from colatent.data.trials import Trials

Mask = NDArray[np.bool_]


def trial_subsets(
    condition: NDArray[np.str_] | None, n_trials: int, shares: Sequence[float], seed: Sequence[int]
) -> list[Mask]:
    """Return the trials (trial,) of each share: random, each condition in proportion to its number."""
    order = np.random.default_rng(seed).permutation(n_trials)
    if condition is not None:
        # the i-th of a condition's n trials enters when a share of (i + 1/2) / n is reached
        enters = np.empty(n_trials)
        for label in np.unique(condition):
            own = order[condition[order] == label]
            enters[own] = (np.arange(len(own)) + 0.5) / len(own)
        order = order[np.argsort(enters[order], kind="stable")]
    return [_mask(order[: _number(share, n_trials)], n_trials) for share in shares]


def window_subsets(n_windows: int, shares: Sequence[float], seed: Sequence[int]) -> list[Mask]:
    """Return the windows (window,) of each share: a contiguous block, as of a shorter recording.

    A random point divides what is left out into what lies before the block and what lies after it.
    """
    point = np.random.default_rng(seed).random()
    blocks = []
    for share in shares:
        n = _number(share, n_windows)
        # as n grows by one, the block grows by one window at one end: blocks are nested
        start = int(point * (n_windows - n))
        blocks.append(_mask(np.arange(start, start + n), n_windows))
    return blocks


def channel_subsets(always: Mask, shares: Sequence[float], seed: Sequence[int]) -> list[Mask]:
    """Return the channels (channel,) of each share: ``always``, and a random share of the others."""
    others = np.random.default_rng(seed).permutation(np.flatnonzero(~always))
    return [always | _mask(others[: _number(share, len(others))], len(always)) for share in shares]


def with_channels(trials: Trials, kept: Mapping[str, Mask]) -> Trials:
    """Return the trials as if only these channels (modality -> (channel,)) had been recorded."""
    values, observed, channels = dict(trials.values), dict(trials.observed), dict(trials.channels)
    for modality, keep in kept.items():
        # in the order of memory that they had: sums over another differ in the last digit
        values[modality] = np.ascontiguousarray(values[modality][..., keep])
        observed[modality] = np.ascontiguousarray(observed[modality][..., keep])
        channels[modality] = tuple(np.array(channels[modality], dtype=object)[keep])
    return replace(trials, values=values, observed=observed, channels=channels)


def _number(share: float, n: int) -> int:
    return min(max(round(share * n), 1), n)


def _mask(chosen: NDArray[np.intp], n: int) -> Mask:
    return np.isin(np.arange(n), chosen)
