"""Properties of bins, clocks and filters, against NumPy and SciPy."""

from dataclasses import replace
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import signal
from scipy.interpolate import interp1d

from colatent.ingest.alignment import Windows
from colatent.ingest.counts import count_spikes
from colatent.ingest.findings import Findings, robust_z
from colatent.ingest.modalities.spikes import clean
from colatent.ingest.signals.clocks import RegularClock, read_clock, to_ns
from colatent.ingest.signals.envelope import envelope
from colatent.ingest.signals.grid import on_regular_grid
from colatent.ingest.signals.resample import Reading, bin_means, interpolate, onto_bins
from colatent.ingest.signals.series import Series

settings.register_profile("compiled", deadline=None)  # the first call of a function compiles it
settings.load_profile("compiled")
NS = 1_000_000_000
spike_trains = st.lists(st.integers(0, 10_000), max_size=200).map(lambda x: np.sort(np.array(x, np.int64)))


def one_window(n_bins: int, width: int, start: int = 0) -> Windows:
    return Windows(np.array([start]), np.array([n_bins]), width)


def series_of(values: np.ndarray, rate: float = 10.0, start: int = 0) -> Series:
    clock = RegularClock(start, rate, len(values))
    names = tuple(f"c{i}" for i in range(values.shape[1]))
    return Series(clock, names, "V", lambda i, j: values[i:j].copy(), 16 * values.shape[1])


@given(spike_trains, st.lists(st.integers(1, 9), min_size=1, max_size=5))
def test_counts_are_conserved_under_any_split(spikes, parts):
    width, bins = 700, sum(parts)
    whole = count_spikes([spikes], 1, one_window(bins, width))[0, :, 0]
    begins = np.concatenate([[0], np.cumsum(parts)[:-1]])
    split = count_spikes([spikes], 1, Windows(begins * width, np.array(parts), width))[..., 0]
    pieces = np.concatenate([row[:n] for row, n in zip(split, parts, strict=True)])
    np.testing.assert_array_equal(pieces, whole)
    assert whole.sum() == (spikes < bins * width).sum()
    np.testing.assert_array_equal(whole, np.histogram(spikes, np.arange(bins + 1) * width - 0.5)[0])


@given(spike_trains, st.integers(-(10**15), 10**15))
def test_shifting_all_clocks_changes_no_count(spikes, shift):
    windows = Windows(np.array([100, 4000]), np.array([4, 7]), 650)
    moved = Windows(windows.starts + shift, windows.n_bins, windows.bin_width)
    np.testing.assert_array_equal(
        count_spikes([spikes], 1, windows), count_spikes([spikes + shift], 1, moved)
    )


def test_a_spike_on_an_edge_is_in_the_later_bin_and_overlapping_trials_both_count_it():
    spikes = np.array([0, 10, 19, 20, 30])
    windows = Windows(np.array([0, 10]), np.array([2, 2]), 10)
    np.testing.assert_array_equal(count_spikes([spikes], 1, windows)[..., 0], [[1, 2], [2, 1]])


@given(st.integers(1, 10**9), st.lists(st.integers(0, 2**30), min_size=1, max_size=50))
def test_a_spike_lies_in_the_bin_that_exact_division_gives(width, bins):
    # on both sides of edges, where floating-point division goes wrong
    spikes = np.unique([(k * width + d) for k in bins for d in (-1, 0, 1) if k * width + d >= 0])
    first = int(spikes[0]) // width
    for k in range(first, first + 3):
        got = count_spikes([spikes], 1, one_window(3, width, k * width))[0, :, 0]
        assert got.tolist() == [(spikes // width == k + i).sum() for i in range(3)]


def test_more_spikes_in_a_bin_than_two_bytes_can_count():
    spikes = np.arange(200_000)
    counts = count_spikes([spikes[:10], spikes], 2, one_window(2, 150_000))
    assert counts[0].tolist() == [[10, 150_000], [0, 50_000]]


@given(
    st.floats(-1e6, 1e6).filter(lambda x: abs(x) > 1e-6 or x == 0),
    st.integers(2, 40),
    st.integers(0, 10**9),
    st.integers(1, 5),
)
def test_bin_means_of_a_constant_are_that_constant(constant, samples, begin, channels):
    values = np.full((4000, channels), constant)
    windows = one_window(20, samples * NS // 100, begin)
    got, observed = onto_bins(series_of(values, 100.0), windows, 3.0)
    np.testing.assert_allclose(got[observed], constant, rtol=1e-12)
    assert observed.all()


@given(arrays(np.float64, (60, 2), elements=st.floats(-1e3, 1e3)), st.integers(-(10**14), 10**14))
def test_shifting_all_clocks_shifts_only_coordinates(values, shift):
    for width in (40_000_000, 300_000_000):
        here = onto_bins(series_of(values, 10.0), one_window(15, width, 123_456_789), 3.0)
        there = onto_bins(series_of(values, 10.0, shift), one_window(15, width, 123_456_789 + shift), 3.0)
        np.testing.assert_array_equal(here[0], there[0])
        np.testing.assert_array_equal(here[1], there[1])


@given(
    arrays(np.float64, (50, 2), elements=st.floats(-10, 10) | st.just(np.nan)),
    st.integers(-(3 * NS), 6 * NS),
    st.lists(st.integers(1, 12), min_size=1, max_size=4),
    st.sampled_from([30_000_000, 250_000_000]),
)
def test_masked_plus_observed_are_all_bins_and_nothing_is_made_up(values, begin, lengths, width):
    windows = Windows(begin + 3 * NS * np.arange(len(lengths)), np.array(lengths), width)
    got, observed = onto_bins(series_of(values), windows, 3.0)
    masked = ~observed
    assert observed.shape == (windows.n_trials, windows.longest, 2)
    assert (got[masked] == 0).all() and np.isfinite(got).all()
    assert not observed[~windows.inside].any()
    ends = windows.bin_starts + width
    outside = (ends <= 0) | (windows.bin_starts >= 5 * NS)
    assert not observed[outside].any()


def test_blocks_give_what_one_block_gives():
    rng = np.random.default_rng(0)
    times = np.cumsum(rng.integers(50, 200, 3000)) * 1_000_000
    values = rng.normal(size=(3000, 3))
    values[rng.random(values.shape) < 0.02] = np.nan
    series = series_of(values)
    windows = Windows(np.sort(rng.integers(0, times[-1], 40)), rng.integers(5, 30, 40), 500_000_000)
    whole = onto_bins(series, windows, 3.0)
    for threads in (1, 2):
        parts = onto_bins(series, windows, 3.0, Reading(threads, 40 * series.row_bytes))
        np.testing.assert_array_equal(parts[0], whole[0])
        np.testing.assert_array_equal(parts[1], whole[1])


def test_bin_means_match_numpy_and_need_half_of_the_samples():
    rng = np.random.default_rng(1)
    times = np.sort(rng.integers(0, 10_000, 400))
    values = rng.normal(size=(400, 2))
    values[rng.random(values.shape) < 0.3] = np.nan
    starts = np.arange(0, 10_000, 500)
    got = bin_means(times, values, starts, 500, 20.0)
    for k, start in enumerate(starts):
        for c in range(2):
            inside = values[(times >= start) & (times < start + 500), c]
            inside = inside[np.isfinite(inside)]
            expected = inside.mean() if len(inside) >= 10 else np.nan
            np.testing.assert_allclose(got[k, c], expected, rtol=1e-12)


def test_interpolation_matches_scipy_and_stops_at_gaps():
    rng = np.random.default_rng(2)
    times = np.cumsum(rng.integers(400, 700, 200)).astype(np.int64)
    times[100:] += 5000
    values = rng.normal(size=(200, 3))
    centres = np.arange(-500, times[-1] + 900, 130)
    got = interpolate(times, values, centres, 3 * 550.0)
    expected = interp1d(times, values, axis=0, bounds_error=False)(centres)
    expected[(centres > times[99]) & (centres < times[100])] = np.nan
    np.testing.assert_allclose(got, expected, atol=1e-12)


def test_bins_wholly_inside_intervals_are_observed():
    windows = one_window(10, NS)
    intervals = np.array([[4.0, 6.5], [0.5, 3.0], [3.0, 4.0], [8.0, 9.0]])
    expected = [False, True, True, True, True, True, False, False, True, False]
    assert windows.within(intervals)[0].tolist() == expected
    assert not windows.within(np.empty((0, 2))).any()


@pytest.mark.parametrize("highpass", [None, 40.0])
def test_envelope_matches_scipy_filters_in_blocks(highpass):
    rng = np.random.default_rng(3)
    rate, n = 2000.0, 40_000
    bursts = 1 + np.sin(2 * np.pi * 1.5 * np.arange(n) / rate)
    raw = rng.normal(size=(n, 2)) * bursts[:, None] + (0.0 if highpass is None else 5.0)
    slow = envelope(series_of(raw, rate), SimpleNamespace(highpass=highpass, lowpass=10.0))
    assert slow.clock.rate == 100.0 and slow.clock.size == n // 20
    got = np.concatenate([slow.read(i, min(i + 300, 2000)) for i in range(0, 2000, 300)])
    expected = raw
    if highpass:
        expected = signal.sosfiltfilt(
            signal.butter(4, highpass, "high", fs=rate, output="sos"), expected, axis=0
        )
    low = signal.butter(4, 10.0, fs=rate, output="sos")
    expected = signal.sosfiltfilt(low, np.abs(expected), axis=0).reshape(-1, 20, 2).mean(axis=1)
    inner = slice(60, -60)  # the ends are extended differently
    assert np.abs(got[inner] - expected[inner]).max() < 5e-6 * expected.max()


def test_envelope_of_an_offset_of_a_million_standard_deviations():
    raw = np.random.default_rng(6).normal(size=(20_000, 1))
    setting = SimpleNamespace(highpass=40.0, lowpass=10.0)
    got = envelope(series_of(raw + 1e6, 2000.0), setting).read(100, 900)
    low, high = (
        signal.butter(4, f, kind, fs=2000.0, output="sos") for f, kind in ((10, "low"), (40, "high"))
    )
    expected = signal.sosfiltfilt(low, np.abs(signal.sosfiltfilt(high, raw + 1e6, axis=0)), axis=0)
    expected = expected.reshape(-1, 20, 1).mean(axis=1)[100:900]
    assert np.abs(got - expected).max() < 1e-5 * expected.max()


def test_bins_of_an_envelope_hold_the_mean_of_all_their_samples():
    t = np.arange(20_000) / 2000.0
    slope = (5.0 + t)[:, None]  # its envelope is itself
    slow = envelope(series_of(slope, 2000.0), SimpleNamespace(highpass=None, lowpass=10.0))
    got, observed = onto_bins(slow, one_window(100, 50_000_000, 2 * NS), 3.0)
    expected = slope[4000:14_000].reshape(100, 100).mean(axis=1)
    assert observed.all()
    np.testing.assert_allclose(got[0, :, 0], expected, atol=1e-5)


def test_the_ends_of_an_envelope_are_missing_where_what_came_before_would_matter():
    raw = np.random.default_rng(7).normal(size=(40_000, 4))
    setting = SimpleNamespace(highpass=40.0, lowpass=10.0)
    whole = envelope(series_of(raw, 2000.0), setting).read(500, 1500)
    part = envelope(series_of(raw[10_000:30_000], 2000.0), setting).read(0, 1000)
    seen = np.isfinite(part)
    assert np.flatnonzero(~seen[:, 0]).tolist() == [*range(5), *range(995, 1000)]
    assert np.abs(part - whole)[seen].max() < 0.2 * np.nanmean(whole)


def test_a_low_pass_that_remembers_more_than_memory_holds_is_refused():
    series = series_of(np.zeros((100, 2)), 2000.0)
    with pytest.raises(ValueError, match="GiB would be held at a time"):
        envelope(series, SimpleNamespace(highpass=None, lowpass=1e-6))


def test_a_part_that_is_sampled_faster_is_averaged(tmp_path):
    rng = np.random.default_rng(8)
    times = np.concatenate([np.arange(0, 100, 0.1), 100 + np.arange(20_000) * 1e-3])
    values = rng.normal(size=(len(times), 2))
    with h5py.File(tmp_path / "x.h5", "w") as file:
        group = file.create_group("s")
        group["timestamps"] = times
        clock = replace(read_clock(group, len(times)), step=1e8)
        series = replace(series_of(values), clock=clock)
        got, observed = onto_bins(series, one_window(400, 50_000_000, 95 * NS), 3.0, Reading(1, 3200))
    ns = np.rint(times * 1e9).astype(np.int64)
    for k in range(400):
        begin = 95 * NS + k * 50_000_000
        inside = (ns >= begin) & (ns < begin + 50_000_000)
        if inside.sum() > 2:
            expected = values[inside].mean(axis=0)
        else:
            centre = begin + 25_000_000
            expected = [np.interp(centre, ns, values[:, c]) for c in range(2)]
        assert observed[0, k].all()
        np.testing.assert_allclose(got[0, k], expected, atol=1e-9)


def test_envelope_of_a_gap_is_missing_and_right_beside_it():
    raw = np.sin(2 * np.pi * 100 * np.arange(20_000) / 2000.0 + 0.3)[:, None]
    raw[8000:8400] = np.nan
    slow = envelope(series_of(raw, 2000.0), SimpleNamespace(highpass=20.0, lowpass=10.0))
    got = slow.read(0, 1000)[:, 0]
    # the gap itself is rows 400 to 419, half a period of the low-pass is five rows
    assert np.flatnonzero(np.isnan(got)).tolist() == [*range(5), *range(395, 425), *range(995, 1000)]
    inner = got[20:-20]
    np.testing.assert_allclose(inner[np.isfinite(inner)], 2 / np.pi, rtol=0.12)


@pytest.mark.parametrize("offset", [0.0, 20.0, 1000.0])
def test_a_gap_in_raw_emg_with_an_offset_leaves_what_is_beside_it(offset):
    rng = np.random.default_rng(4)
    whole = rng.normal(size=(40_000, 1)) + offset
    holed = whole.copy()
    holed[20_500:21_500] = holed[10_000] = np.nan
    setting = SimpleNamespace(highpass=40.0, lowpass=10.0)
    expected, got = (envelope(series_of(x, 2000.0), setting).read(0, 2000) for x in (whole, holed))
    seen = np.isfinite(got)
    assert 1000 < seen.sum() < 2000
    # half of what the low-pass averages over is the gap's, right beside it
    assert np.abs(got - expected)[seen].max() < 0.4 * np.nanmean(expected)


@pytest.mark.parametrize("change", ["rate", "drift"])
def test_a_clock_that_strays_has_no_regular_grid(tmp_path, change):
    step = np.full(40_000, 5e-4)
    if change == "rate":
        step[20_000:] *= 1900 / 2080
    else:
        step *= 1 + 0.01 * np.linspace(-1, 1, len(step))
    with h5py.File(tmp_path / "x.h5", "w") as file:
        group = file.create_group("emg")
        group["timestamps"] = np.cumsum(step)
        clock = read_clock(group, len(step))
        assert on_regular_grid(replace(series_of(np.zeros((40_000, 1)), 2000.0), clock=clock)) is None


def test_a_clock_with_gaps_is_put_on_a_regular_grid(tmp_path):
    rng = np.random.default_rng(5)
    time = np.arange(20_000) / 2000.0
    kept = np.ones(20_000, dtype=bool)
    kept[8000:8401] = kept[15_000:15_002] = False
    jitter = 1e-5 * rng.uniform(-1, 1, size=20_000)
    raw = rng.normal(size=(20_000, 2))
    with h5py.File(tmp_path / "x.h5", "w") as file:
        group = file.create_group("emg")
        group["timestamps"] = 3.0 + (time + jitter)[kept]
        clock = read_clock(group, int(kept.sum()))
        rows = raw[kept]
        series = replace(series_of(rows, 2000.0), clock=clock)
        grid = on_regular_grid(series)
        assert grid.clock.gaps == 2
        assert grid.clock.size == 20_000
        filled = np.concatenate([grid.read(i, min(i + 777, 20_000)) for i in range(0, 20_000, 777)])
        np.testing.assert_array_equal(filled, np.where(kept[:, None], raw, np.nan))
        np.testing.assert_allclose(grid.clock.times(0, 20_000), 3e9 + time * 1e9, atol=0.2 * 5e5)
        del group["timestamps"]
        group["timestamps"] = 3.0 + time[kept] + 1e-4 * rng.uniform(0, 1, kept.sum()).cumsum() / 100
        group["timestamps"][5] += 2e-4
        assert on_regular_grid(replace(series, clock=read_clock(group, int(kept.sum())))) is None


def test_impossible_spike_times_are_dropped_and_said():
    findings = Findings("f.nwb", {"duplicate-spikes": "mask"})
    spikes = clean(np.array([0.3, np.nan, 0.1, 0.1, -1.0]), "spikes", "unit_0", findings)
    assert spikes.tolist() == to_ns([0.1, 0.3]).tolist()
    assert [row["check"] for row in findings.rows] == [
        "spike-times",
        "spike-times",
        "unsorted-spikes",
        "duplicate-spikes",
    ]


def test_robust_z_finds_the_artefact_of_a_gaussian():
    value = np.random.default_rng(5).normal(2.0, 3.0, 100_000)
    value[7] = 2.0 + 3.0 * 50
    z = robust_z(value, np.ones(len(value), dtype=bool))
    assert abs(z[7] - 50) < 1 and np.abs(np.delete(z, 7)).max() < 6
