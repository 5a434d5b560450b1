"""Spike trains of a units table: which units, when they were observed, their counts in bins."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from colatent.ingest.alignment import Windows
from colatent.ingest.clocks import NANOSECONDS, to_ns
from colatent.ingest.counts import count_spikes
from colatent.ingest.findings import Findings
from colatent.ingest.nwb import find, wrong
from colatent.ingest.observations import Observations
from colatent.ingest.tables import (
    n_rows,
    ragged,
    ragged_bounds,
    scalar_columns,
    select_rows,
)


def within_intervals(intervals: NDArray[np.float64], windows: Windows) -> NDArray[np.bool_]:
    """Return which bins lie wholly inside the intervals of observation, (trial, time).

    Args:
        intervals: begin and end (s), shape (interval, 2); half-open, in any order.
        windows: the bins.
    """
    if len(intervals) == 0:
        return np.zeros(windows.inside.shape, dtype=bool)
    begin, end = to_ns(intervals[np.argsort(intervals[:, 0])]).T
    end = np.maximum.accumulate(end)
    # Intervals that touch are one: a bin across their border is observed.
    fresh = np.concatenate([[True], begin[1:] > end[:-1]])
    begin, end = begin[fresh], end[np.concatenate([fresh[1:], [True]])]
    edges = windows.bin_starts
    at = np.searchsorted(begin, edges, side="right") - 1
    return (at >= 0) & (edges + windows.bin_width <= end[np.maximum(at, 0)])


@dataclass(frozen=True)
class SpikeSource:
    """The selected units of a table; their spikes are read one unit at a time.

    Attributes:
        modality: its name in the config.
        table: the units table.
        rows: positions of the selected units.
        channels: their names.
        intervals: each unit's intervals of observation (s), or None where the table has none.
        extent: first and last time at which any unit is known to have been observed (ns).
        attrs: how they were selected, JSON-compatible.
    """

    modality: str
    table: h5py.Group
    rows: NDArray[np.intp]
    channels: tuple[str, ...]
    intervals: list[NDArray[np.float64]] | None
    extent: tuple[int, int]
    attrs: dict[str, Any]

    def observe(self, windows: Windows, findings: Findings) -> Observations:
        """Count the spikes of all units in all bins."""
        values = count_spikes(self._trains(findings), len(self.rows), windows).astype(np.float64)
        observed = self._observed(windows)
        for unit in np.flatnonzero(~values.any(axis=(0, 1))):
            message = "the unit has no spike in any trial"
            if findings.add("no-spikes", message, self.modality, self.channels[unit]):
                observed[..., unit] = False
        values[~observed] = 0.0
        return Observations(values, observed, self.channels, "spikes", "spikes/bin", self.attrs)

    def _trains(self, findings: Findings) -> Iterator[NDArray[np.int64]]:
        for times, name in zip(ragged(self.table, "spike_times", self.rows), self.channels, strict=True):
            yield clean(times, self.modality, name, findings)

    def _observed(self, windows: Windows) -> NDArray[np.bool_]:
        if self.intervals is not None:
            known = np.stack([within_intervals(i, windows) for i in self.intervals], axis=-1)
            return known & windows.inside[..., None]
        # Without intervals, all that is known is that some unit was recorded from the first spike of
        # any to the last.
        begin = windows.bin_starts
        seen = windows.inside & (begin + windows.bin_width > self.extent[0]) & (begin < self.extent[1])
        return np.repeat(seen[..., None], len(self.rows), axis=-1)


def open_spikes(file: h5py.File, modality: str, config: Any) -> SpikeSource:
    """Select units by query and rate.

    Args:
        file: the NWB file.
        modality: name of the modality.
        config: `colatent.config.SpikesModality`.

    Raises:
        InputError: no units table, no spike times, a damaged ragged index, or no unit left.
    """
    table = require_units(find(file, config.source))
    frame = scalar_columns(table)
    rows = select_rows(table, frame, config.where)
    intervals = _intervals(table, rows)
    # without intervals, units that are not selected, too, show when the recording ran
    read = rows if intervals is not None else np.arange(n_rows(table))
    everyone = np.array([_summary(times) for times in ragged(table, "spike_times", read)])
    summaries = everyone if intervals is not None else everyone[rows]
    extent = _extent(table, everyone, intervals)
    duration = (
        np.full(len(rows), (extent[1] - extent[0]) / NANOSECONDS)
        if intervals is None
        else np.array([_total(i) for i in intervals])
    )
    kept = np.flatnonzero(summaries[:, 0] >= config.min_rate * duration)
    if kept.size == 0:
        raise wrong(table, f"none of {len(rows)} units fires at {config.min_rate} Hz", "lower min_rate")
    attrs = {
        "source": config.source,
        "units_in_file": len(frame),
        "units_selected": len(rows),
        "units_below_min_rate": len(rows) - len(kept),
        "min_rate_hz": config.min_rate,
        "obs_intervals": intervals is not None,
    }
    return SpikeSource(
        modality,
        table,
        rows[kept],
        tuple(f"unit_{i}" for i in frame.index[rows[kept]]),
        None if intervals is None else [intervals[u] for u in kept],
        extent,
        attrs,
    )


def require_units(table: h5py.Group | h5py.Dataset) -> h5py.Group:
    """Return the table if it holds spike times whose ragged index is sound."""
    n_rows(table)
    if "spike_times" not in table:
        raise wrong(table, "the units table has no spike_times", "choose a table of sorted units")
    ragged_bounds(table, "spike_times")
    if table["spike_times"].shape[0] == 0:
        raise wrong(table, "its spike_times are empty", "choose a table of sorted units")
    return table


def clean(times: NDArray, modality: str, name: str, findings: Findings) -> NDArray[np.int64]:
    """Return one unit's spike times in sorted nanoseconds; what is wrong with them is said.

    Args:
        times: spike times (s) as the file has them.
        modality, name: of the unit, for the findings.
        findings: collects what is not finite, negative, out of order, or there twice.
    """
    times = np.asarray(times, dtype=np.float64)
    finite = np.isfinite(times)
    if not finite.all():
        count = int((~finite).sum())
        findings.add("spike-times", f"{count} spike times are not finite: dropped", modality, name, count)
    spikes = to_ns(times[finite])
    if (negative := int((spikes < 0).sum())) and findings.add(
        "spike-times", f"{negative} spike times are negative", modality, name, negative
    ):
        spikes = spikes[spikes >= 0]
    if unordered := int((np.diff(spikes) < 0).sum()):
        findings.add("unsorted-spikes", "the spike times are not in order", modality, name, unordered)
        spikes = np.sort(spikes)
    if (twice := int((np.diff(spikes) == 0).sum())) and findings.add(
        "duplicate-spikes", f"{twice} spikes are at the time of another", modality, name, twice
    ):
        spikes = np.unique(spikes)
    return spikes


def _intervals(table: h5py.Group, rows: NDArray[np.intp]) -> list[NDArray[np.float64]] | None:
    """Intervals of observation of each row (s), or None where no row has any."""
    if "obs_intervals" not in table:
        return None
    intervals = [np.asarray(i, dtype=np.float64).reshape(-1, 2) for i in ragged(table, "obs_intervals", rows)]
    for row, each in zip(rows, intervals, strict=True):
        if not (np.isfinite(each).all() and (each[:, 0] <= each[:, 1]).all()):
            raise wrong(
                table,
                f"the obs_intervals of row {row} are not finite, or end before they begin",
                "correct the file",
            )
    return intervals if any(map(len, intervals)) else None


def _total(intervals: NDArray[np.float64]) -> float:
    """Time (s) in the union of intervals, (interval, 2)."""
    ordered = intervals[np.argsort(intervals[:, 0])]
    before = np.concatenate([[-np.inf], np.maximum.accumulate(ordered[:, 1])[:-1]])
    return float(np.maximum(ordered[:, 1] - np.maximum(ordered[:, 0], before), 0.0).sum())


def _summary(times: NDArray) -> tuple[float, float, float]:
    """Number, first and last of a unit's finite spike times (s)."""
    finite = times[np.isfinite(times)]
    return (len(finite), finite.min(), finite.max()) if len(finite) else (0, np.inf, -np.inf)


def _extent(
    table: h5py.Group, summaries: NDArray[np.float64], intervals: list[NDArray[np.float64]] | None
) -> tuple[int, int]:
    if intervals is not None:
        times = to_ns(np.concatenate(intervals))
        return int(times.min()), int(times.max())
    if not summaries[:, 0].any():
        raise wrong(table, "none of the units has a spike", "choose a table of sorted units")
    return int(to_ns(summaries[:, 1].min())), int(to_ns(summaries[:, 2].max())) + 1
