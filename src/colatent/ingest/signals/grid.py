"""Series that were sampled regularly except for gaps, on one regular clock with missing rows."""

from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from colatent.ingest.signals.clocks import NANOSECONDS, IrregularClock, RegularClock
from colatent.ingest.signals.series import Series

_SCAN_ROWS = 2**20
_TOLERANCE = 0.1  # steps that samples may be off their regular times
_GAP = 1.5  # steps
STRAY_NS = 5_000_000


def on_regular_grid(series: Series) -> Series | None:
    """Return the series on a regular clock, NaN in its gaps, or None if it is irregular otherwise.

    Rows keep their order, and no sample moves by more than half a step, or `STRAY_NS` if that is more:
    a clock that drifts or changes its rate by more is not regular.
    """
    if isinstance(series.clock, RegularClock):
        return series
    assert isinstance(series.clock, IrregularClock)
    found = _segments(series.clock)
    if found is None:
        return None
    first_row, start, step = found
    position = np.rint((start - start[0]) / step).astype(np.int64)  # on the grid, of each segment
    length = np.diff(np.append(first_row, series.clock.size))
    size = int(position[-1] + length[-1])
    if _strays(series.clock, start[0] + step * (position - first_row), first_row, step):
        return None
    regular = RegularClock(int(start[0]), NANOSECONDS / step, size, len(start) - 1)

    runs = _Runs(first_row, position, length)
    read = partial(_read, series, runs, series.read(0, 1).dtype)
    return replace(series, clock=regular, read=read)


class _Runs(NamedTuple):
    """Runs of rows without a gap: first row, its position on the grid, and number of rows, each (run,)."""

    first_row: NDArray[np.int64]
    position: NDArray[np.int64]
    length: NDArray[np.int64]


def _read(series: Series, runs: _Runs, dtype: np.dtype, first: int, last: int) -> NDArray[np.floating]:
    """Return rows first to last - 1 of the grid, NaN where the series has none."""
    rows = np.full((last - first, len(series.channels)), np.nan, dtype)
    end = runs.position + runs.length
    for run in np.flatnonzero((runs.position < last) & (end > first)):
        low, high = max(first, int(runs.position[run])), min(last, int(end[run]))
        shift = int(runs.first_row[run] - runs.position[run])
        rows[low - first : high - first] = series.read(low + shift, high + shift)
    return rows


def _strays(
    clock: IrregularClock, origin: NDArray[np.float64], first_row: NDArray[np.int64], step: float
) -> bool:
    """Return whether a sample is too far from its time on the grid, origin[segment] + row * step (ns)."""
    allowed = max(0.5 * step + 1, STRAY_NS)
    for first in range(0, clock.size, _SCAN_ROWS):
        times = clock.times(first, min(first + _SCAN_ROWS, clock.size))
        rows = np.arange(first, first + len(times))
        place = origin[np.searchsorted(first_row, rows, side="right") - 1] + step * rows
        if np.abs(times - place).max() > allowed:
            return True
    return False


def _segments(clock: IrregularClock) -> tuple[NDArray[np.int64], NDArray[np.int64], float] | None:
    """Return first row and first time (ns) of each run without a gap, and the step within runs (ns)."""
    first_row, start = [0], [int(clock.times(0, 1)[0])]
    n_steps, duration = 0, 0
    previous = start[0]
    for first in range(0, clock.size, _SCAN_ROWS):
        times = clock.times(first, min(first + _SCAN_ROWS, clock.size))
        steps = np.diff(times, prepend=previous)
        gap = np.flatnonzero(steps > _GAP * clock.step)
        within = np.delete(steps, gap)
        within = within[1:] if first == 0 else within  # the first sample has no step
        if within.size and np.abs(within - clock.step).max() > _TOLERANCE * clock.step:
            return None
        first_row += (gap + first).tolist()
        start += times[gap].tolist()
        n_steps, duration = n_steps + within.size, duration + int(within.sum())
        previous = int(times[-1])
    if n_steps == 0:
        return None
    return np.array(first_row), np.array(start), duration / n_steps
