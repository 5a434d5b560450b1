"""What must hold for every recording, from the file's own clocks to the bins (hypothesis draws them).

The functions on arrays have properties of their own in `test_ingest_binning.py`.
"""

from contextlib import contextmanager
from dataclasses import dataclass, replace

import h5py
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from colatent.config import ContinuousModality, SpikesModality, TrialAlignment
from colatent.ingest.alignment import Windows, trial_windows
from colatent.ingest.findings import Findings
from colatent.ingest.modalities.base import BinnedModality
from colatent.ingest.modalities.continuous import open_continuous
from colatent.ingest.modalities.spikes import open_spikes
from colatent.ingest.signals.resample import SMALL_BLOCKS

NS = 1_000_000_000
SPIKES = SpikesModality(kind="spikes")
SERIES = ContinuousModality(kind="continuous", source="series")
many = settings(deadline=None, max_examples=60)


@dataclass(frozen=True)
class Recording:
    """Times in integer nanoseconds, so that a shift is exact.

    Attributes:
        spikes: of each unit, sorted.
        intervals: of observation, of all units, (interval, 2), or None.
        times: of the samples, irregular and with gaps; or None for a regular clock of `rate` Hz.
        start: of the regular clock.
        values: (sample, channel), NaN where missing.
        trials: start and stop of each, (trial, 2).
        width: of a bin.
    """

    spikes: list[np.ndarray]
    intervals: np.ndarray | None
    times: np.ndarray | None
    start: int
    rate: float
    values: np.ndarray
    trials: np.ndarray
    width: int


@st.composite
def recordings(draw: st.DrawFn) -> Recording:
    instants = st.integers(0, 20 * NS)
    # the first unit has a spike, or nothing would be known of the recording
    spikes = [draw(st.lists(instants, min_size=i == 0, max_size=60)) for i in range(draw(st.integers(1, 3)))]
    edges = sorted(draw(st.sets(instants, min_size=2, max_size=6)))
    intervals = np.array(edges[: len(edges) // 2 * 2]).reshape(-1, 2)
    rate = draw(st.sampled_from([3.0, 10.0, 33.3, 100.0]))
    n = draw(st.integers(2, 200))
    steps = draw(st.lists(st.sampled_from([0.9, 1.0, 1.0, 1.1, 7.0]), min_size=n, max_size=n))
    times = draw(st.integers(-NS, 5 * NS)) + np.cumsum(np.rint(np.array(steps) * NS / rate)).astype(np.int64)
    values = draw(
        st.lists(
            st.floats(-100, 100) | st.sampled_from([np.nan, np.inf, 0.0]), min_size=2 * n, max_size=2 * n
        )
    )
    lengths = draw(st.lists(st.integers(NS // 2, 3 * NS), min_size=1, max_size=5))
    gaps = draw(st.lists(st.integers(0, 2 * NS), min_size=len(lengths), max_size=len(lengths)))
    begin = np.cumsum(gaps) + np.cumsum([0, *lengths[:-1]])
    return Recording(
        [np.sort(np.array(s, dtype=np.int64)) for s in spikes],
        intervals if draw(st.booleans()) else None,
        times if draw(st.booleans()) else None,
        draw(st.integers(-NS, 5 * NS)),
        rate,
        np.array(values).reshape(n, 2),
        np.stack([begin, begin + lengths], axis=1),
        draw(st.sampled_from([NS // 50, NS // 8, NS // 5, NS // 2])),
    )


def shifted(r: Recording, by: int) -> Recording:
    """Return the recording with all clocks moved."""
    return replace(
        r,
        spikes=[s + by for s in r.spikes],
        intervals=None if r.intervals is None else r.intervals + by,
        times=None if r.times is None else r.times + by,
        start=r.start + by,
        trials=r.trials + by,
    )


@contextmanager
def file_of(r: Recording):
    """The recording as an HDF5 file in memory, laid out as NWB lays it out."""
    with h5py.File("recording.nwb", "w", driver="core", backing_store=False) as file:
        units, rows = file.create_group("units"), np.arange(len(r.spikes))
        units["id"] = rows
        units["spike_times"] = np.concatenate(r.spikes) / NS
        units["spike_times_index"] = np.cumsum([len(s) for s in r.spikes])
        units["spike_times_index"].attrs["neurodata_type"] = "VectorIndex"
        if r.intervals is not None:
            units["obs_intervals"] = np.tile(r.intervals, (len(rows), 1)) / NS
            units["obs_intervals_index"] = len(r.intervals) * (rows + 1)
            units["obs_intervals_index"].attrs["neurodata_type"] = "VectorIndex"
        series = file.create_group("series")
        series["data"] = r.values
        if r.times is None:
            series["starting_time"] = r.start / NS
            series["starting_time"].attrs["rate"] = r.rate
        else:
            series["timestamps"] = r.times / NS
        trials = file.create_group("intervals/trials")
        trials["id"] = np.arange(len(r.trials))
        trials["start_time"], trials["stop_time"] = r.trials.T / NS
        yield file


def put_on_bins(r: Recording) -> tuple[Windows, dict[str, BinnedModality], list[dict]]:
    # by default spikes before the file's own zero are dropped
    findings = Findings("recording.nwb", {"spike-times": "warn"})
    alignment = TrialAlignment(bin_width=r.width / NS)
    with file_of(r) as file:
        windows = trial_windows(file, alignment, findings)[0]
        sources = (
            open_spikes(file, "spikes", SPIKES, Findings("x")),
            open_continuous(file, "series", SERIES, Findings("x"), SMALL_BLOCKS),
        )
        observed = {s.modality: s.observe(windows, findings) for s in sources}
    # a trial before the file's own zero is doubted: again what that zero matters to
    return windows, observed, [row for row in findings.rows if row["check"] != "event-times"]


@given(recordings(), st.data())
@many
def test_counts_are_conserved_under_any_split_of_the_time_axis(r, data):
    n_bins = data.draw(st.integers(1, 60))
    cuts = sorted({0, n_bins} | set(data.draw(st.lists(st.integers(0, n_bins), max_size=6))))
    begin = int(r.trials[0, 0])
    edges = begin + r.width * np.array(cuts)
    whole = put_on_bins(replace(r, trials=edges[[[0, -1]]]))[1]["spikes"]
    windows, split, _ = put_on_bins(replace(r, trials=np.stack([edges[:-1], edges[1:]], axis=1)))
    for name in ("values", "observed"):
        pieces = getattr(split["spikes"], name)[windows.inside]
        np.testing.assert_array_equal(pieces, getattr(whole, name)[0])
    if r.intervals is None:
        expected = [((s >= begin) & (s < begin + n_bins * r.width)).sum() for s in r.spikes]
        np.testing.assert_array_equal(whole.values[0].sum(axis=0), expected)
        # bins half as wide hold the same spikes
        finer = put_on_bins(replace(r, trials=edges[[[0, -1]]], width=r.width // 2))[1]["spikes"]
        np.testing.assert_array_equal(finer.values[0].reshape(n_bins, 2, -1).sum(axis=1), whole.values[0])
    else:
        for unit, spikes in enumerate(r.spikes):
            counts = np.histogram(spikes, begin + r.width * np.arange(n_bins + 1) - 0.5)[0]
            np.testing.assert_array_equal(
                whole.values[0, :, unit], np.where(whole.observed[0, :, unit], counts, 0)
            )


@given(recordings(), st.floats(-1e6, 1e6).filter(lambda x: abs(x) > 1e-6 or x == 0))
@many
def test_a_constant_stays_that_constant_whatever_its_clock_and_gaps(r, constant):
    flat = np.where(np.isfinite(r.values), constant, np.nan)
    got = put_on_bins(replace(r, values=flat))[1]["series"]
    np.testing.assert_allclose(got.values[got.observed], constant, rtol=1e-12)


@given(recordings(), st.integers(-(10**5) * NS, 10**5 * NS))
@many
def test_shifting_all_clocks_by_a_constant_shifts_only_coordinates(r, by):
    windows, here, found = put_on_bins(r)
    moved, there, found_there = put_on_bins(shifted(r, by))
    np.testing.assert_array_equal(moved.starts, windows.starts + by)
    np.testing.assert_array_equal(moved.n_bins, windows.n_bins)
    np.testing.assert_array_equal(moved.time, windows.time)
    for name in here:
        np.testing.assert_array_equal(there[name].values, here[name].values)
        np.testing.assert_array_equal(there[name].observed, here[name].observed)
        assert there[name].channels == here[name].channels
    of_zero = ("spike-times", "event-times")  # what is negative is doubtful
    assert [row for row in found if row["check"] not in of_zero] == [
        row for row in found_there if row["check"] not in of_zero
    ]


@given(recordings())
@many
def test_masked_plus_observed_bins_are_all_bins(r):
    windows, observations, findings = put_on_bins(r)
    n_bins = (np.diff(r.trials, axis=1)[:, 0] + 1000) // r.width
    np.testing.assert_array_equal(windows.n_bins, n_bins)
    for name, got in observations.items():
        everything = (len(n_bins), int(n_bins.max()), len(got.channels))
        assert got.values.shape == got.observed.shape == everything
        masked = ~got.observed
        within = windows.inside[..., None] & masked
        past_the_end = int((n_bins.max() - n_bins).sum())
        assert got.observed.sum(axis=(0, 1)).tolist() == (n_bins.sum() - within.sum(axis=(0, 1))).tolist(), (
            name
        )
        assert (masked.sum(axis=(0, 1)) - within.sum(axis=(0, 1)) == past_the_end).all()
        assert (got.values[masked] == 0).all() and np.isfinite(got.values).all()
    # what is said to be missing is what is missing
    missing = (windows.inside[..., None] & ~observations["series"].observed).sum(axis=(0, 1))
    partly = missing[(missing > 0) & (missing < n_bins.sum())]
    said = [row["count"] for row in findings if row["check"] == "missing-samples"]
    assert said == ([partly.sum()] if partly.size else [])
    never = [row["channel"] for row in findings if row["check"] == "missing-channel"]
    assert never == [
        got.channels[c]
        for got in observations.values()
        for c in np.flatnonzero(~got.observed.any(axis=(0, 1)))
    ]
