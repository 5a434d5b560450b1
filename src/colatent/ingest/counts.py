"""Spikes counted in half-open bins of integer nanoseconds."""

from collections.abc import Iterable

import numba
import numpy as np
from numpy.typing import NDArray

from colatent.ingest.alignment import Windows

_MOST = np.iinfo(np.uint16).max


def count_spikes(
    trains: Iterable[NDArray[np.int64]], n_units: int, windows: Windows
) -> NDArray[np.unsignedinteger]:
    """Count spikes in half-open bins.

    A spike belongs to bin k of trial j if starts[j] + k w <= spike < starts[j] + (k+1) w, all in
    integer nanoseconds, so each spike within a trial is counted once in it.

    Args:
        trains: sorted spike times (ns) of each unit; consumed one at a time.
        n_units: number of trains.
        windows: the bins; trials may overlap.

    Returns:
        Counts, shape (trial, time, unit), with each unit's counts contiguous in memory.
    """
    # Two bytes per bin: memory access takes most of the time.
    counts: NDArray[np.unsignedinteger] = np.zeros((n_units, windows.n_trials, windows.longest), np.uint16)
    for unit, spikes in enumerate(trains):
        if counts.dtype == np.uint16 and _is_crowded(spikes, windows.bin_width):
            counts = counts.astype(np.uint64)
        first, last = np.searchsorted(spikes, windows.starts), np.searchsorted(spikes, windows.stops)
        _count(spikes, first, last, windows.starts, windows.bin_width, counts[unit])
    return counts.transpose(1, 2, 0)


def _is_crowded(spikes: NDArray[np.int64], width: int) -> bool:
    """Whether a bin may hold more spikes than two bytes can count."""
    return bool((spikes[_MOST:] - spikes[:-_MOST] < width).any()) if spikes.size > _MOST else False


@numba.njit(nogil=True)
def _count(spikes, first, last, starts, width, counts):  # type: ignore[no-untyped-def]
    """Add the spikes first[j] to last[j] - 1 of every trial to its counts (trial, time).

    The bins of a block of spikes are computed before any is counted, which lets the processor vectorise.
    Multiplying by 1 / width is faster than dividing; the remainder corrects rounding across an edge.
    """
    block = np.empty(512, np.int64)
    inverse = 1.0 / width
    for trial in range(starts.size):
        for begin in range(first[trial], last[trial], block.size):
            size = min(block.size, last[trial] - begin)
            for i in range(size):
                since = spikes[begin + i] - starts[trial]
                bin_ = np.int64(since * inverse)
                rest = since - bin_ * width
                block[i] = bin_ + np.int64(rest >= width) - np.int64(rest < 0)
            for i in range(size):
                counts[trial, np.uint64(block[i])] += 1
