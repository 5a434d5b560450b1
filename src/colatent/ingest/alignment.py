"""Where the trials lie: windows of bins with half-open edges in integer nanoseconds."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import h5py
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from colatent.errors import InputError
from colatent.ingest.findings import Findings
from colatent.ingest.nwb.file import find, place, wrong
from colatent.ingest.nwb.tables import (
    INTERVAL,
    require_columns,
    scalar_columns,
    select_rows,
    with_linked_columns,
)
from colatent.ingest.signals.clocks import LEAST_ROUNDING, NANOSECONDS, rounding_ns, to_ns

INVALID_TIMES = "intervals/invalid_times"
_MOST_BINS = 10**8


@dataclass(frozen=True)
class Windows:
    """The bins of every trial: bin k of trial j is [starts[j] + k w, starts[j] + (k+1) w).

    Attributes:
        starts: first edge of each trial (ns), shape (trial,).
        n_bins: whole bins that each trial has, shape (trial,).
        bin_width: w (ns).
        offset: time from the alignment event to the first edge (ns), the same for all trials.
        rounding: by how much edges may be off because the file rounds its times (ns).
        left_out: bins in times that the file tells to leave out, shape (trial, time); None for none.
    """

    starts: NDArray[np.int64]
    n_bins: NDArray[np.int64]
    bin_width: int
    offset: int = 0
    rounding: int = LEAST_ROUNDING
    left_out: NDArray[np.bool_] | None = None

    @property
    def n_trials(self) -> int:
        return len(self.starts)

    @property
    def longest(self) -> int:
        """Bins of the longest trial: the length of the common time axis."""
        return int(self.n_bins.max())

    @property
    def stops(self) -> NDArray[np.int64]:
        """Last edge of each trial (ns), shape (trial,)."""
        return self.starts + self.n_bins * self.bin_width

    @property
    def inside(self) -> NDArray[np.bool_]:
        """Whether a bin is one of its trial's, or past its end or left out, shape (trial, time)."""
        within: NDArray[np.bool_] = np.arange(self.longest) < self.n_bins[:, None]
        return within if self.left_out is None else within & ~self.left_out

    def within(self, intervals: NDArray[np.floating]) -> NDArray[np.bool_]:
        """Return which bins lie wholly in one of the intervals, begin and end (s), (interval, 2)."""
        if len(intervals) == 0:
            return np.zeros((self.n_trials, self.longest), dtype=bool)
        slack = self._slack(intervals)
        begin, end = union(to_ns(intervals), slack)
        at = np.searchsorted(begin - slack, self.bin_starts, side="right") - 1
        found: NDArray[np.bool_] = self.bin_starts + self.bin_width <= end[np.maximum(at, 0)] + slack
        return found & (at >= 0)

    def touching(self, intervals: NDArray[np.floating]) -> NDArray[np.bool_]:
        """Return which bins overlap one of the intervals, begin and end (s), (interval, 2)."""
        if len(intervals) == 0:
            return np.zeros((self.n_trials, self.longest), dtype=bool)
        slack = self._slack(intervals)
        begin, end = union(to_ns(intervals), slack)
        at = np.searchsorted(begin, self.bin_starts + self.bin_width - slack) - 1
        found: NDArray[np.bool_] = end[np.maximum(at, 0)] > self.bin_starts + slack
        return found & (at >= 0)

    def _slack(self, intervals: NDArray[np.floating]) -> int:
        """By how much edges of bins and of intervals may differ though they were the same (ns)."""
        return min(self.rounding + rounding_ns(intervals), self.bin_width // 2)

    @property
    def bin_starts(self) -> NDArray[np.int64]:
        """First edge of every bin (ns), shape (trial, time)."""
        return self.starts[:, None] + np.arange(self.longest) * self.bin_width

    @property
    def time(self) -> NDArray[np.float64]:
        """Bin centres relative to the alignment event (s), shape (time,)."""
        edges = self.offset + np.arange(self.longest) * self.bin_width
        return (edges + self.bin_width / 2) / NANOSECONDS


def union(intervals: NDArray[np.int64], slack: int = 0) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return begins and ends of intervals (interval, 2) in order, merging those that touch or overlap.

    Args:
        slack: gap between two that touch (ns).
    """
    begin, end = intervals[np.argsort(intervals[:, 0])].T
    end = np.maximum.accumulate(end)
    fresh = np.concatenate([[True], begin[1:] > end[:-1] + slack])
    return begin[fresh], end[np.concatenate([fresh[1:], [True]])]


def without_invalid_times(file: h5py.File, windows: Windows, findings: Findings) -> Windows:
    """Leave out the bins that overlap NWB's own table of times not to be analysed, `invalid_times`."""
    table = file.get(INVALID_TIMES)
    if not isinstance(table, h5py.Group):
        return windows
    frame = scalar_columns(table)
    require_columns(table, frame, INTERVAL)
    times = frame[list(INTERVAL)].to_numpy()
    touched = windows.touching(times[np.isfinite(times).all(axis=1)]) & windows.inside
    if not touched.any():
        return windows
    masked = findings.add(
        "invalid-times",
        f"{touched.sum()} bins of {touched.any(axis=1).sum()} trials lie in {INVALID_TIMES}, times that are "
        "not to be analysed",
        count=int(touched.sum()),
    )
    return replace(windows, left_out=touched) if masked else windows


def trial_windows(
    file: h5py.File, alignment: Any, findings: Findings
) -> tuple[Windows, pd.DataFrame, NDArray[np.str_] | None]:
    """Cut windows from a table of intervals.

    Args:
        file: the NWB file.
        alignment: `colatent.config.TrialAlignment`.
        findings: collects trials without times, and overlaps.

    Returns:
        windows; the trials' own columns with `start`, `stop` (s) and `condition`; and the condition
        labels, or None.

    Raises:
        InputError: no such table or column, no trial left, or trials that overlap.
    """
    table = find(file, alignment.intervals)
    frame = scalar_columns(table)
    if alignment.where or alignment.condition not in (None, *frame.columns):
        frame = with_linked_columns(table, frame)
    columns = [alignment.start] + ([] if alignment.window else [alignment.stop])
    require_columns(table, frame, [*columns, *([alignment.condition] if alignment.condition else [])])
    rows = frame.iloc[select_rows(table, frame, alignment.where)]
    begin, end = _window_seconds(rows, alignment, table)
    width = int(to_ns(alignment.bin_width))
    rounding = min(_rounding(rows, columns), width // 2)
    timed = np.isfinite(begin) & np.isfinite(end)
    timed &= end - begin >= alignment.bin_width - rounding / NANOSECONDS
    if not timed.all():
        findings.add(
            "trial-times",
            f"{(~timed).sum()} of {len(timed)} trials have no time, or are shorter than a bin: left out",
            count=int((~timed).sum()),
        )
    if not timed.any():
        raise wrong(table, "no trial is left to align", "loosen `where` or choose another start column")
    labelled = np.ones(len(rows), dtype=bool)
    if alignment.condition is not None:
        labelled = labels(rows[alignment.condition]) != ""
    if not labelled.all():
        findings.add(
            "no-condition",
            f"{(~labelled).sum()} of {len(labelled)} trials have no {alignment.condition!r}: left out",
            count=int((~labelled).sum()),
        )
    timed &= labelled
    if not timed.any():
        raise wrong(table, "no trial is left that has a condition", "choose another condition column")
    timed &= ~_doubtful_events(rows, timed, alignment, table, findings)
    if not timed.any():
        raise wrong(table, "no trial is left whose event lies within it", "choose another start column")
    rows = rows[timed]
    starts, stops = (to_ns(t[timed], place(table)) for t in (begin, end))
    offset = int(to_ns((alignment.window[0] if alignment.window else 0.0) - alignment.pad[0]))
    n_bins = (stops - starts + rounding) // width
    if len(starts) * int(n_bins.max()) > _MOST_BINS:
        raise wrong(table, f"trials of up to {n_bins.max()} bins", "correct their times, or widen bin_width")
    windows = Windows(starts, n_bins, width, offset, rounding)
    _find_overlaps(windows, findings)
    condition = None if alignment.condition is None else labels(rows[alignment.condition])
    return windows, _trial_table(rows, windows, condition), condition


def _rounding(rows: pd.DataFrame, columns: Iterable[str]) -> int:
    """By how much times in these columns may be off (ns)."""
    return max(rounding_ns(rows[name].to_numpy()) for name in columns)


def _seconds(rows: pd.DataFrame, name: str, table: h5py.Group) -> NDArray[np.float64]:
    try:
        return rows[name].to_numpy(dtype=np.float64)
    except (TypeError, ValueError):
        raise wrong(table, f"the column {name!r} holds no times", "choose a column of seconds") from None


def _window_seconds(
    rows: pd.DataFrame, alignment: Any, table: h5py.Group
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    event = _seconds(rows, alignment.start, table)
    if alignment.window:
        begin, end = event + alignment.window[0], event + alignment.window[1]
    else:
        begin, end = event, _seconds(rows, alignment.stop, table)
    return begin - alignment.pad[0], end + alignment.pad[1]


def _doubtful_events(
    rows: pd.DataFrame, timed: NDArray[np.bool_], alignment: Any, table: h5py.Group, findings: Findings
) -> NDArray[np.bool_]:
    """Return which trials to leave out because their event lies outside them."""
    event = _seconds(rows, alignment.start, table)
    if set(INTERVAL) <= set(rows.columns):
        begin, end = (_seconds(rows, name, table) for name in INTERVAL)
        slack = _rounding(rows, [alignment.start, *INTERVAL]) / NANOSECONDS
        doubtful = (event < begin - slack) | (event > end + slack)
    else:
        doubtful = event < 0
    doubtful &= timed
    if not doubtful.any():
        return doubtful
    first = event[doubtful][0]
    masked = findings.add(
        "event-times",
        f"{doubtful.sum()} of {timed.sum()} trials have a {alignment.start!r} outside the trial itself, or "
        f"before zero, first {first:g} s: no event?",
        count=int(doubtful.sum()),
    )
    return doubtful if masked else np.zeros_like(doubtful)


def _find_overlaps(windows: Windows, findings: Findings) -> None:
    order = np.argsort(windows.starts, kind="stable")
    ends = np.maximum.accumulate(windows.stops[order])
    overlaps = int((windows.starts[order][1:] + windows.rounding < ends[:-1]).sum())
    if overlaps:
        begins, times = np.unique(windows.starts, return_counts=True)
        alike = ""
        if times.max() > 1:
            begin = (begins[times.argmax()] - windows.offset) / NANOSECONDS
            alike = (
                f" ({times.max()} of them are aligned to {begin:g} s: if that means no event, leave them out "
                "with `where`)"
            )
        findings.add(
            "trial-overlap",
            f"{overlaps} trials begin before an earlier one ends{alike}, so that the same data would be in "
            "training and held-out trials: shorten `window` or `pad`, or select trials with `where`",
            count=overlaps,
        )


def continuous_windows(extent: tuple[int, int], alignment: Any) -> tuple[Windows, pd.DataFrame]:
    """Cut a recording without trials into windows with a gap between them.

    Args:
        extent: begin and end (ns) of the time that all modalities have in common.
        alignment: `colatent.config.ContinuousAlignment`.

    Raises:
        InputError: a window shorter than a bin, or a recording shorter than a window.
    """
    width, length, gap = (int(to_ns(s)) for s in (alignment.bin_width, alignment.window, alignment.gap))
    count = (extent[1] - extent[0] + gap) // (length + gap)
    if length < width or count < 1:
        raise InputError(
            f"alignment.window: {alignment.window} s holds no bin of {alignment.bin_width} s, or is longer "
            f"than the {(extent[1] - extent[0]) / NANOSECONDS:.3f} s that all modalities have in common"
        )
    if count * (length // width) > _MOST_BINS:
        raise InputError(
            f"alignment: {count} windows of {length // width} bins between {extent[0] / NANOSECONDS:g} and "
            f"{extent[1] / NANOSECONDS:g} s; correct the recording's first or last time, or widen bin_width"
        )
    starts = extent[0] + np.arange(count) * (length + gap)
    windows = Windows(starts, np.full(count, length // width), width)
    return windows, _trial_table(pd.DataFrame(index=pd.RangeIndex(count, name="id")), windows, None)


def _trial_table(rows: pd.DataFrame, windows: Windows, condition: NDArray[np.str_] | None) -> pd.DataFrame:
    """Return `start` and `stop` (s, of the window) and `condition`, then the table's own columns."""
    own = rows.drop(columns=["start", "stop", "condition"], errors="ignore")
    own.insert(0, "start", windows.starts / NANOSECONDS)
    own.insert(1, "stop", windows.stops / NANOSECONDS)
    if condition is not None:
        own.insert(2, "condition", condition)
    return own


def labels(values: pd.Series) -> NDArray[np.str_]:
    """Return labels as text, empty where there is none: NaN, an empty text, or "nan" in a column of texts.

    Whole numbers have no decimal point, so that 3.0 and 3 are one label; others have six digits, so that
    numbers that differ by rounding are one.
    """
    if values.dtype.kind == "f":
        return np.array(["" if np.isnan(v) else _number_label(v) for v in values], dtype=np.str_)
    return np.array(["" if t.lower() == "nan" else t for t in values.astype(str)], dtype=np.str_)


def _number_label(value: float) -> str:
    return str(int(value)) if np.isfinite(value) and value == np.rint(value) else f"{value:.6g}"
