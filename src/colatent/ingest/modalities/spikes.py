"""Spike trains of a units table: which units, when they were observed, their counts in bins."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from colatent.config import SpikesModality
from colatent.errors import InputError
from colatent.ingest.alignment import Windows, union
from colatent.ingest.findings import Findings
from colatent.ingest.modalities.base import BinnedModality, Candidate, ChannelInFile, FileGroups, Reader
from colatent.ingest.nwb.file import find, place, wrong
from colatent.ingest.nwb.tables import (
    column,
    n_rows,
    ragged,
    ragged_bounds,
    scalar_columns,
    select_rows,
    with_linked_columns,
)
from colatent.ingest.signals.clocks import NANOSECONDS, to_ns

_SILENCE = 10.0  # of all units, in multiples of the recording before or after it
_SHORTEST_SILENCE_S = 100.0
_MOST_STRAYS = 10  # seconds with spikes beyond a silence
# a bin in which this share of all units fire, and this many times that of all but 1 % of the bins
_ALL_UNITS, _UNUSUAL = 0.9, 1.25
_FEWEST_UNITS = 20  # of fewer, all may well fire together


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

    def observe(self, windows: Windows, findings: Findings) -> BinnedModality:
        """Count the spikes of all units in all bins."""
        from colatent.ingest.counts import count_spikes  # Numba, which checking a file does not need

        dropped = np.zeros(len(self.rows), dtype=bool)
        trains = self._trains(findings, dropped)
        values = count_spikes(trains, len(self.rows), windows).astype(np.float64)
        # before zero, where spikes were dropped, counts are unknown rather than zero
        observed = self._observed(windows) & ~((windows.bin_starts < 0)[..., None] & dropped)
        values[~observed] = 0.0
        self._find_synchronous(values, observed, windows, findings)
        for unit in np.flatnonzero(~observed.any(axis=(0, 1))):
            message = "no bin of any trial is observed"
            findings.add("missing-channel", message, self.modality, self.channels[unit])
        for unit in np.flatnonzero(~values.any(axis=(0, 1))):
            message = "the unit has no spike in any trial"
            if findings.add("no-spikes", message, self.modality, self.channels[unit]):
                observed[..., unit] = False
        values[~observed] = 0.0
        return BinnedModality(values, observed, self.channels, "spikes/bin", self.attrs)

    def _trains(self, findings: Findings, dropped: NDArray[np.bool_]) -> Iterator[NDArray[np.int64]]:
        """Yield the spikes of each unit; set `dropped` for units whose negative times were removed."""
        every = ragged(self.table, "spike_times", self.rows)
        for unit, (times, name) in enumerate(zip(every, self.channels, strict=True)):
            spikes = clean(times, self.modality, name, findings)
            dropped[unit] = (times < 0).any() and not (spikes < 0).any()
            yield spikes

    def _find_synchronous(
        self,
        values: NDArray[np.float64],
        observed: NDArray[np.bool_],
        windows: Windows,
        findings: Findings,
    ) -> None:
        """Find bins in which nearly all units fire, where usually few do, and mask them in place."""
        seen = observed.sum(axis=-1)
        counted = seen >= _FEWEST_UNITS
        if not counted.any():
            return
        share = (values > 0).sum(axis=-1) / np.maximum(seen, 1)
        usual = np.percentile(share[counted], 99)
        at = counted & (share >= max(_ALL_UNITS, _UNUSUAL * usual))
        if not at.any():
            return
        message = (
            f"in {at.sum()} bins at least {_ALL_UNITS:.0%} of the units fire, while in 99% of the bins at "
            f"most {usual:.0%} do, first at {windows.bin_starts[at].min() / NANOSECONDS:g} s: an artefact?"
        )
        if findings.add("synchronous-spikes", message, self.modality, count=int(at.sum())):
            observed[at] = False
            values[at] = 0.0

    def _observed(self, windows: Windows) -> NDArray[np.bool_]:
        if self.intervals is not None:
            known = np.stack([windows.within(i) for i in self.intervals], axis=-1)
            return known & windows.inside[..., None]
        # Without intervals, units count as recorded from the first spike of any unit to the last.
        begin = windows.bin_starts
        seen = windows.inside & (begin + windows.bin_width > self.extent[0]) & (begin < self.extent[1])
        return np.repeat(seen[..., None], len(self.rows), axis=-1)


def open_spikes(
    file: h5py.File, modality: str, config: SpikesModality, findings: Findings, reading: object = None
) -> SpikeSource:
    """Select units by query and rate.

    Args:
        file: the NWB file.
        modality: name of the modality.
        config: which table, and which of its units.
        findings: collects spikes too far from all others to be part of the recording.
        reading: not used: memory holds one unit at a time.

    Raises:
        InputError: no units table, no spike times, a damaged ragged index, or no unit left.
    """
    table = require_units(find(file, config.source))
    frame = scalar_columns(table)
    rows = _selected(table, frame, config)
    intervals = _intervals(table, rows)
    extent = _extent(table, modality, findings) if intervals is None else _hull(table, intervals)
    known = [np.array([extent])] * len(rows) if intervals is None else [to_ns(i) for i in intervals]
    trains = ragged(table, "spike_times", rows)
    kept = np.flatnonzero([_fires(table, t, i, config.min_rate) for t, i in zip(trains, known, strict=True)])
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
        _names(frame.index.to_numpy(), rows[kept]),
        None if intervals is None else [intervals[u] for u in kept],
        extent,
        attrs,
    )


def select_units(file: h5py.File, config: SpikesModality) -> list[ChannelInFile]:
    """Return the rows of the units table that the query keeps."""
    table = require_units(find(file, config.source))
    return [(table, int(row)) for row in _selected(table, scalar_columns(table), config)]


def _selected(table: h5py.Group, frame: pd.DataFrame, config: SpikesModality) -> NDArray[np.intp]:
    """Return the rows that the query keeps, over the columns of units and of their electrodes."""
    return select_rows(table, with_linked_columns(table, frame) if config.where else frame, config.where)


def list_units(contents: FileGroups) -> Iterator[Candidate]:
    """Yield each units table."""
    for path, table in contents.of_type("Units"):
        settings = SpikesModality(kind="spikes", source=path)
        try:
            spikes = require_units(table)["spike_times"].shape[0]
        except InputError as error:
            yield Candidate(settings, problem=str(error).partition(": ")[2])
            continue
        rows = n_rows(table)
        columns = tuple(map(str, with_linked_columns(table, scalar_columns(table))))
        yield Candidate(settings, f"{rows} units, {spikes} spikes", rows, unit="s", columns=columns)


def require_units(table: h5py.Group | h5py.Dataset) -> h5py.Group:
    """Return the table if it holds spike times whose ragged index is sound."""
    n_rows(table)
    if "spike_times" not in table:
        raise wrong(table, "the units table has no spike_times", "choose a table of sorted units")
    ragged_bounds(table, "spike_times")
    _require_shape(table, "spike_times", ())
    if table["spike_times"].shape[0] == 0:
        raise wrong(table, "its spike_times are empty", "choose a table of sorted units")
    return table


def _require_shape(table: h5py.Group, name: str, shape: tuple[int, ...]) -> None:
    """Raise InputError unless each value of a column has a shape, such as (2,) for begin and end."""
    data = column(table, name)
    if data.shape[1:] != shape:
        raise wrong(data, f"its values have the shape {data.shape[1:]}, not {shape}", "repair the table")


def clean(times: NDArray, modality: str, name: str, findings: Findings) -> NDArray[np.int64]:
    """Return one unit's spike times in sorted nanoseconds, adding what is wrong to the findings.

    Args:
        times: spike times (s) as the file has them.
        modality, name: of the unit, for the findings.
        findings: collects times that are not finite, negative, out of order, or duplicated.
    """
    times = np.asarray(times, dtype=np.float64)
    finite = np.isfinite(times)
    if not finite.all():
        count = int((~finite).sum())
        findings.add("spike-times", f"{count} spike times are not finite: dropped", modality, name, count)
    spikes = to_ns(times[finite], f"{findings.file}: {modality}: {name}: ")
    if (negative := int((spikes < 0).sum())) and findings.add(
        "spike-times", f"{negative} spike times are negative", modality, name, negative
    ):
        spikes = spikes[spikes >= 0]
    if unordered := int((np.diff(spikes) < 0).sum()):
        findings.add("unsorted-spikes", "the spike times are not in order", modality, name, unordered)
        spikes = np.sort(spikes)
    if (twice := int((np.diff(spikes) == 0).sum())) and findings.add(
        "duplicate-spikes", f"{twice} spikes have the same time as another", modality, name, twice
    ):
        spikes = np.unique(spikes)
    return spikes


def _intervals(table: h5py.Group, rows: NDArray[np.intp]) -> list[NDArray[np.float64]] | None:
    """Intervals of observation of each row (s), or None where no row has any."""
    if "obs_intervals" not in table or table["obs_intervals"].shape is None:
        return None
    _require_shape(table, "obs_intervals", (2,))
    intervals = list(ragged(table, "obs_intervals", rows))  # in their own type, which tells their rounding
    for row, each in zip(rows, intervals, strict=True):
        if not (np.isfinite(each).all() and (each[:, 0] <= each[:, 1]).all()):
            raise wrong(
                table,
                f"the obs_intervals of row {row} are not finite, or end before they begin",
                "correct the file",
            )
    return intervals if any(map(len, intervals)) else None


def _names(ids: NDArray, rows: NDArray[np.intp]) -> tuple[str, ...]:
    """Return names of units from their ids, adding the row where an id is not unique."""
    unique, count = np.unique(ids, return_counts=True)
    shared = set(unique[count > 1].tolist())
    return tuple(
        f"unit_{i}_row_{r}" if i in shared else f"unit_{i}" for i, r in zip(ids[rows], rows, strict=True)
    )


def _fires(table: h5py.Group, times: NDArray, known: NDArray[np.int64], rate: float) -> bool:
    """Return whether a unit fires at `rate` (Hz) or above within its intervals of observation (ns)."""
    if rate == 0 or len(known) == 0:
        return rate == 0
    begin, end = union(known)
    spikes = to_ns(times[np.isfinite(times)], f"{place(table)}spike_times: ")
    at = np.searchsorted(begin, spikes, side="right") - 1
    count = ((at >= 0) & (spikes < end[np.maximum(at, 0)])).sum()
    duration = (end - begin).sum() / NANOSECONDS
    return bool(duration > 0 and count >= rate * duration)


def _hull(table: h5py.Group, intervals: list[NDArray[np.float64]]) -> tuple[int, int]:
    times = to_ns(np.concatenate(intervals), f"{place(table)}obs_intervals: ")
    return int(times.min()), int(times.max())


def _extent(table: h5py.Group, modality: str, findings: Findings) -> tuple[int, int]:
    """Return first and last spike (ns) of all units, selected or not: they show when the recording ran.

    A few spikes beyond a silence more than `_SILENCE` times as long as the recording are taken for
    placeholders, such as 999999 for none.
    """
    every = ragged(table, "spike_times", np.arange(n_rows(table)))
    seconds = [np.unique(np.floor(times[np.isfinite(times)])) for times in every]
    occupied = np.unique(np.concatenate(seconds))
    if occupied.size == 0:
        raise wrong(table, "none of the units has a spike", "choose a table of sorted units")
    core = _core(occupied)
    if len(core) < len(occupied):
        strays = np.setdiff1d(occupied, core)
        message = (
            f"spikes at {strays[0]:g} s{' and elsewhere' * (len(strays) > 1)} are far from all others, which "
            f"lie between {core[0]:g} and {core[-1] + 1:g} s: not counted as part of the recording"
        )
        if not findings.add("spike-times", message, modality, count=len(strays)):
            core = occupied
    low, high = np.inf, -np.inf
    for times in ragged(table, "spike_times", np.arange(n_rows(table))):
        inside = times[(times >= core[0]) & (times < core[-1] + 1)]
        if len(inside):
            low, high = min(low, inside.min()), max(high, inside.max())
    return int(to_ns(low)), int(to_ns(high)) + 1


def _core(occupied: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the occupied seconds (sorted) without those beyond far too long a silence."""
    while len(occupied) > 1:
        gap = np.diff(occupied)
        at = int(np.argmax(gap))
        few, many = sorted((occupied[: at + 1], occupied[at + 1 :]), key=len)
        longest = max(_SILENCE * (many[-1] - many[0] + 1), _SHORTEST_SILENCE_S)
        if gap[at] <= longest or len(few) > _MOST_STRAYS:  # or a second block of recording
            break
        occupied = many
    return occupied


READER = Reader(select_units, open_spikes, list_units)
