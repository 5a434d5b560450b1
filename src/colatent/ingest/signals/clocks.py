"""When samples were taken: integer nanoseconds, regular or as the file lists them."""

from dataclasses import dataclass
from typing import Any, Protocol

import h5py
import numpy as np
from numpy.typing import ArrayLike, NDArray

from colatent.errors import InputError
from colatent.ingest.nwb.file import number, place, wrong

NANOSECONDS = 1_000_000_000
LEAST_ROUNDING = 1000  # ns
ALWAYS = (-(2**62), 2**62)  # extent (ns) of a signal that is known at all times
_FURTHEST_S = 9e9  # nanoseconds in 64 bits end at 9.2e9 s
_SCAN_ROWS = 2**20
_STRIDE = 4096


def to_ns(seconds: ArrayLike, of: str = "") -> NDArray[np.int64]:
    """Round times in seconds to integer nanoseconds.

    Args:
        seconds: the times.
        of: where they are from, as `nwb.file.place` says it, to begin an error message with.

    Raises:
        InputError: a time beyond what 64 bits can count.
    """
    times = np.asarray(seconds, dtype=np.float64)
    far = times[np.abs(times) > _FURTHEST_S]
    if far.size:
        raise InputError(
            f"{of}a time of {far[0]:g} s is centuries away: correct the file's times, which NWB gives in "
            "seconds"
        )
    return np.rint(times * NANOSECONDS).astype(np.int64)


def rounding_ns(seconds: NDArray) -> int:
    """Return by how much (ns) the difference of two of these times may be off because they were rounded.

    It is the step between neighbouring numbers of their type, at the largest; at least 1 µs, as times are
    often computed from others.
    """
    finite = seconds[np.isfinite(seconds)] if seconds.dtype.kind == "f" else seconds[:0]
    step = float(np.spacing(np.abs(finite).max())) if finite.size else 0.0
    return max(int(np.ceil(step * NANOSECONDS)), LEAST_ROUNDING)


class Clock(Protocol):
    """Times of the samples of one series.

    Attributes:
        size: number of samples.
        step: typical time between samples (ns).
        extent: first time and end (last time + step), ns.
        gaps: number of steps much longer than the typical one.
        rows: positions of the samples in the file, if some were dropped.
        dropped: number of these.
    """

    @property
    def size(self) -> int: ...
    @property
    def step(self) -> float: ...
    @property
    def extent(self) -> tuple[int, int]: ...
    @property
    def gaps(self) -> int: ...
    @property
    def rows(self) -> NDArray[np.int64] | None: ...
    @property
    def dropped(self) -> int: ...

    def times(self, first: int, last: int) -> NDArray[np.int64]:
        """Return the times (ns) of samples first to last - 1."""
        ...

    def span(self, begin: int, end: int) -> tuple[int, int]:
        """Return rows (first, last) that hold all samples in [begin, end) ns and one to each side."""
        ...


@dataclass(frozen=True)
class RegularClock:
    """Samples at start + i / rate."""

    start: int
    rate: float
    size: int
    gaps: int = 0
    rows: None = None
    dropped: int = 0

    @property
    def step(self) -> float:
        return NANOSECONDS / self.rate

    @property
    def extent(self) -> tuple[int, int]:
        return self.start, self.start + round(self.size * self.step)

    def times(self, first: int, last: int) -> NDArray[np.int64]:
        samples = np.arange(first, last, dtype=np.float64)
        return self.start + np.rint(samples * NANOSECONDS / self.rate).astype(np.int64)

    def span(self, begin: int, end: int) -> tuple[int, int]:
        first = int((begin - self.start) // self.step) - 1
        last = int((end - self.start) // self.step) + 3
        return min(max(first, 0), self.size), min(max(last, 0), self.size)


@dataclass(frozen=True)
class IrregularClock:
    """Samples at times that the file lists; only every 4096th is kept in memory.

    Attributes:
        rows: positions of the samples in the file, if some were dropped.
    """

    timestamps: h5py.Dataset
    coarse: NDArray[np.int64]
    last: int
    step: float
    gaps: int
    rows: NDArray[np.int64] | None = None

    @property
    def size(self) -> int:
        return int(self.timestamps.shape[0]) if self.rows is None else len(self.rows)

    @property
    def dropped(self) -> int:
        """Number of samples that were dropped."""
        return int(self.timestamps.shape[0]) - self.size

    @property
    def extent(self) -> tuple[int, int]:
        return int(self.coarse[0]), self.last + round(self.step)

    def times(self, first: int, last: int) -> NDArray[np.int64]:
        return to_ns(kept_rows(self.timestamps, self.rows, first, last), place(self.timestamps))

    def span(self, begin: int, end: int) -> tuple[int, int]:
        first = (int(np.searchsorted(self.coarse, begin, side="right")) - 1) * _STRIDE
        last = int(np.searchsorted(self.coarse, end)) * _STRIDE + 1
        return max(first, 0), min(last, self.size)


def kept_rows(data: Any, rows: NDArray[np.int64] | None, first: int, last: int) -> NDArray:
    """Return rows first to last - 1 of a file's data, of those that were kept."""
    if rows is None:
        found: NDArray = data[first:last]
        return found
    chosen = rows[first:last]
    if len(chosen) == 0:
        return np.asarray(data[:0])
    return np.asarray(data[chosen[0] : chosen[-1] + 1])[chosen - chosen[0]]


def read_clock(series: h5py.Group, size: int, max_gap: float = 3.0, drop: bool = False) -> Clock:
    """Read the clock of a TimeSeries: `timestamps` where present, else `starting_time` and its rate.

    Args:
        series: group of the TimeSeries.
        size: number of samples in its data.
        max_gap: steps longer than this many typical ones are counted as gaps.
        drop: drop samples whose time is not finite or not later than all before.

    Raises:
        InputError: no clock, a wrong length, a bad rate, or times that are not finite and increasing.
    """
    timestamps = series.get("timestamps")
    if isinstance(timestamps, h5py.Dataset):
        if timestamps.shape != (size,):
            raise wrong(series, f"{timestamps.size} timestamps for {size} samples", "repair the series")
        if timestamps.dtype.kind not in "iuf":
            raise wrong(timestamps, f"they are {timestamps.dtype}, not numbers", "repair the series")
        rows = _increasing(timestamps) if drop else None
        return _scan(timestamps, max_gap, rows)
    start = series.get("starting_time")
    if not isinstance(start, h5py.Dataset):
        raise wrong(series, "there are neither timestamps nor a starting_time", "a series needs a clock")
    rate, begin = number(start.attrs.get("rate", 0.0), start, "rate"), number(start[()], start, "value")
    if not (np.isfinite(rate) and rate > 0 and np.isfinite(begin)):
        raise wrong(series, f"starting_time {begin} with rate {rate} Hz is no clock", "correct the file")
    if size / rate > _FURTHEST_S or rate > NANOSECONDS:
        raise wrong(series, f"{size} samples at {rate:g} Hz make no recording", "correct the rate")
    return RegularClock(int(to_ns(begin, place(start))), rate, size)


def _increasing(timestamps: h5py.Dataset) -> NDArray[np.int64] | None:
    """Return the positions of the times that are later than all before, None if all are."""
    seconds = timestamps[:].astype(np.float64)
    before = np.fmax.accumulate(np.concatenate([[-np.inf], seconds[:-1]]))
    later = np.isfinite(seconds) & (seconds > before)
    if later.all():
        return None
    if 2 * later.sum() < len(later):
        raise wrong(
            timestamps, f"{(~later).sum()} of {len(later)} times do not increase", "repair the series"
        )
    return np.flatnonzero(later)


def _scan(timestamps: h5py.Dataset, max_gap: float, rows: NDArray[np.int64] | None) -> IrregularClock:
    """Scan all timestamps once, in blocks, for order, typical step and gaps."""
    coarse, previous, step, gaps = [], 0, 0.0, 0
    size = timestamps.shape[0] if rows is None else len(rows)
    remedy = "repair the series, or set `checks: {timestamps: mask}` to drop such samples"
    for first in range(0, size, _SCAN_ROWS):
        seconds = kept_rows(timestamps, rows, first, min(first + _SCAN_ROWS, size))
        if not np.isfinite(seconds).all():
            raise wrong(timestamps, "some timestamps are not finite", remedy)
        times = to_ns(seconds, place(timestamps))
        coarse.append(times[::_STRIDE])
        steps = np.diff(times, prepend=previous) if first else np.diff(times)
        if (steps <= 0).any():
            at = max(first, 1) + int(np.argmax(steps <= 0))
            raise wrong(timestamps, f"times do not increase near sample {at}", remedy)
        if steps.size:
            step = step or float(np.median(steps))
            gaps += int((steps > max_gap * step).sum())
        previous = int(times[-1])
    if size < 2:
        raise wrong(timestamps, f"{size} samples are too few for a series", "choose another series")
    return IrregularClock(timestamps, np.concatenate(coarse), previous, step, gaps, rows)
