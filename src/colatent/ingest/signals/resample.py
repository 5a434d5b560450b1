"""From a series' own clock to common bins: exact bin means, or linear interpolation."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import dask
import numpy as np
from numpy.typing import ArrayLike, NDArray

from colatent.ingest.alignment import Windows
from colatent.ingest.signals.series import Series


class Reading(NamedTuple):
    """How much is read at once, which bounds memory whatever the size of a file.

    Attributes:
        threads: blocks of rows worked on at a time.
        block_bytes: rows in memory for each thread; temporaries of filters and means are a few times this.
        scheduler: of dask: "threads", or a client whose processes have one thread each.
    """

    threads: int = 1
    block_bytes: int = 32 * 2**20
    scheduler: Any = "threads"


SMALL_BLOCKS = Reading()


def onto_bins(
    series: Series, windows: Windows, max_gap: float, reading: Reading = SMALL_BLOCKS
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Put a series on the bins of all trials, a bounded block of rows at a time.

    Where a bin holds two sampling steps or more, its value is the mean of its samples; otherwise
    the value at its centre, interpolated between neighbouring samples. Where a clock becomes faster
    midway, bins of three samples or more, which span two steps, are averaged as well. A signal of steps has
    the mean of what it held over the bin.

    Args:
        series: the samples.
        windows: the bins.
        max_gap: longest step to interpolate over, in multiples of the typical step.
        reading: bounds of memory and threads.

    Returns:
        values and observed, both (trial, time, channel).
    """
    cells = windows.bin_starts[windows.inside]
    order = np.argsort(cells, kind="stable")
    blocks = list(_blocks(cells[order], series, windows.bin_width, reading.block_bytes))
    most_rows = 4 * max(reading.block_bytes // series.row_bytes, 1)
    shared = dask.delayed(series, traverse=False)  # sent once to a process, not with each block
    tasks = [
        dask.delayed(_put)(shared, cells[order[b]], windows.bin_width, max_gap, most_rows) for b in blocks
    ]
    parts = dask.compute(*tasks, scheduler=reading.scheduler, num_workers=reading.threads)
    binned = np.empty((len(cells), len(series.channels)))
    for block, part in zip(blocks, parts, strict=True):
        binned[order[block]] = part
    values = np.full((*windows.inside.shape, len(series.channels)), np.nan)
    values[windows.inside] = binned
    observed = np.isfinite(values)
    return np.where(observed, values, 0.0), observed


def method(series: Series, windows: Windows) -> str:
    """Describe in words how the series is put on the bins."""
    if series.held:
        return "mean over the bin of a signal that holds each value until the next"
    if _is_dense(series, windows.bin_width):
        return "bin mean"
    return "linear interpolation at bin centres, bin mean where a bin holds three samples"


def _is_dense(series: Series, width: int) -> bool:
    return 2 * series.clock.step <= width


def _blocks(starts: NDArray[np.int64], series: Series, width: int, block_bytes: int) -> Iterator[slice]:
    """Runs of sorted bins whose samples fit in memory together."""
    duration = max(block_bytes // series.row_bytes, 1) * series.clock.step
    first = 0
    while first < len(starts):
        last = max(int(np.searchsorted(starts, starts[first] + duration - width)), first + 1)
        yield slice(first, last)
        first = last


def _put(
    series: Series, starts: NDArray[np.int64], width: int, max_gap: float, most_rows: int
) -> NDArray[np.float64]:
    """Values of bins that begin at sorted `starts`, (bin, channel), NaN where not observed."""
    rows = series.clock.span(int(starts[0]), int(starts[-1]) + width)
    if rows[1] - rows[0] > most_rows and len(starts) > 1:  # a part that is sampled faster than the rest
        halves = np.array_split(starts, 2)
        return np.concatenate([_put(series, half, width, max_gap, most_rows) for half in halves])
    if rows[0] >= rows[1]:
        return np.full((len(starts), len(series.channels)), np.nan)
    times, values = series.clock.times(*rows), series.read(*rows).astype(np.float64, copy=False)
    values[np.isinf(values)] = np.nan
    if series.held:
        return held_means(times, values, starts, width, round(series.clock.step), series.outside)
    if _is_dense(series, width):
        return bin_means(times, values, starts, width, width / series.clock.step)
    binned = interpolate(times, values, starts + width // 2, max_gap * series.clock.step)
    first, last = np.searchsorted(times, starts), np.searchsorted(times, starts + width)
    full = np.flatnonzero(last - first > 2)
    if full.size:
        step = (times[last[full] - 1] - times[first[full]]) / (last[full] - first[full] - 1)
        binned[full] = bin_means(times, values, starts[full], width, (width / step)[:, None])
    return binned


def bin_means(
    times: NDArray[np.int64], values: NDArray, starts: NDArray[np.int64], width: int, expected: ArrayLike
) -> NDArray[np.float64]:
    """Return the mean of the samples in each half-open bin.

    Args:
        times: sorted sample times (ns), shape (row,).
        values: (row, channel), NaN where missing.
        starts: first edges of the bins (ns), sorted, shape (bin,).
        width: of a bin (ns).
        expected: samples that a whole bin should hold, one number or (bin, 1).

    Returns:
        (bin, channel); NaN where fewer than half of the expected samples are there.
    """
    bounds = np.stack([np.searchsorted(times, starts), np.searchsorted(times, starts + width)], axis=1)
    missing = np.isnan(values)
    count = np.broadcast_to((bounds[:, 1] - bounds[:, 0])[:, None], (len(starts), values.shape[1]))
    if missing.any():
        values = np.where(missing, 0.0, values)
        count = count - _sums(missing.astype(np.float64), bounds)
    enough = (count > 0) & (2 * count >= np.asarray(expected))
    return np.where(enough, _sums(values, bounds) / np.maximum(count, 1), np.nan)


def _sums(values: NDArray[np.float64], bounds: NDArray[np.intp]) -> NDArray[np.float64]:
    """Sums of rows bounds[i, 0] to bounds[i, 1] - 1; meaningless where that range is empty."""
    # reduceat takes no index past the end, where the last bin may end: add a row.
    padded = np.concatenate([values, np.zeros((1, values.shape[1]))])
    return np.add.reduceat(padded, bounds.ravel(), axis=0)[::2]


def held_means(
    times: NDArray[np.int64],
    values: NDArray,
    starts: NDArray[np.int64],
    width: int,
    step: int,
    outside: float = np.nan,
) -> NDArray[np.float64]:
    """Return the mean of a signal that holds each value until the next sample, over each bin.

    Args:
        times: sorted sample times (ns), shape (row,); unless the series begins or ends there, the first is
            before all bins and the last after.
        values: (row, channel), NaN where missing.
        starts: first edges of the bins (ns), shape (bin,).
        width: of a bin (ns).
        step: for how long the last value is held (ns).
        outside: value before the first sample and after the last.

    Returns:
        (bin, channel); NaN where the value is known for less than half of the bin.
    """
    if not np.isnan(outside):
        first, last = min(times[0], starts[0]) - 1, max(times[-1], starts[-1] + width) + 1
        times = np.concatenate([[first], times, [last]])
        edge = np.full((1, values.shape[1]), outside)
        values = np.concatenate([edge, values, edge])
    known = ~np.isnan(values)
    filled = np.where(known, values, 0.0)
    length = np.append(np.diff(times), step)[:, None]
    before = [
        np.cumsum(np.concatenate([np.zeros((1, x.shape[1])), x * length]), axis=0) for x in (filled, known)
    ]

    def until(edges: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Integral of the values, and the time for which they are known, up to each edge (bin, channel)."""
        at = np.searchsorted(times, edges, side="right") - 1
        row = np.maximum(at, 0)
        into = np.minimum(edges - times[row], length[row, 0])[:, None] * (at >= 0)[:, None]
        return before[0][row] + filled[row] * into, before[1][row] + known[row] * into

    (integral, time), (to_begin, time_before) = until(starts + width), until(starts)
    covered = time - time_before
    mean = np.where(2 * covered >= width, (integral - to_begin) / np.maximum(covered, 1), np.nan)
    # without rounding, where the value does not change
    inside = np.searchsorted(times, starts, side="right") - 1
    constant = (inside >= 0) & (np.searchsorted(times, starts + width) - 1 == inside)
    row = np.maximum(inside, 0)
    return np.where(constant[:, None] & np.isfinite(mean), values[row], mean)


def interpolate(
    times: NDArray[np.int64], values: NDArray, centres: NDArray[np.int64], longest: float
) -> NDArray[np.float64]:
    """Return values at `centres`, linear between the samples to either side.

    Args:
        times: sorted sample times (ns), shape (row,).
        values: (row, channel), NaN where missing.
        centres: times wanted (ns), shape (bin,).
        longest: longest step that is interpolated over (ns).

    Returns:
        (bin, channel); NaN before the first sample, after the last, in gaps and beside missing samples.
    """
    left = np.searchsorted(times, centres, side="right") - 1
    right = np.minimum(left + 1, len(times) - 1)
    left = np.maximum(left, 0)
    step = times[right] - times[left]
    weight = ((centres - times[left]) / np.maximum(step, 1))[:, None]
    between = values[left] + weight * (values[right] - values[left])
    within = ((centres >= times[left]) & (centres < times[right]) & (step <= longest))[:, None]
    exact = (centres == times[left])[:, None]
    return np.where(exact, values[left], np.where(within, between, np.nan))
