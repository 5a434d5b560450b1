"""Times of a file are rounded: by their type, and by whoever computed them."""

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import SPIKES, new_nwb, quietly, written

from colatent.config import TrialAlignment
from colatent.errors import InputError
from colatent.ingest.alignment import Windows
from colatent.ingest.signals.clocks import rounding_ns

NS = 10**9
PLAIN = TrialAlignment(bin_width=0.1)


@given(
    offset=st.sampled_from([0.0, 3e3, 1e5, 1.7e9]),
    begin=st.lists(st.floats(0.0, 0.4), min_size=2, max_size=6),
    n_bins=st.integers(1, 8),
    single=st.booleans(),
)
@settings(deadline=None, max_examples=80)
def test_trials_that_are_the_intervals_of_observation_are_observed(offset, begin, n_bins, single):
    dtype = np.float32 if single and offset < 1e5 else np.float64
    starts = np.array([offset + 2 * k + b for k, b in enumerate(begin)])
    intervals = np.stack([starts, starts + 0.1 * n_bins], axis=1).astype(dtype)
    edges = intervals.astype(np.float64)
    rounding = rounding_ns(intervals)
    n_found = (np.rint(edges[:, 1] * NS) - np.rint(edges[:, 0] * NS) + rounding).astype(int) // (NS // 10)
    assert n_found.tolist() == [n_bins] * len(begin)
    windows = Windows(np.rint(edges[:, 0] * NS).astype(np.int64), n_found, NS // 10, 0, rounding)
    assert windows.within(intervals).all()
    after = intervals[:, 1:] + np.array([0, 0.5], dtype)
    assert not windows.touching(after).any()


def test_bins_that_touch_intervals_equal_those_found_one_by_one():
    rng = np.random.default_rng(0)
    for _ in range(50):
        starts = np.sort(rng.integers(0, 100, 4)) * NS
        windows = Windows(starts, np.array([7, 3, 7, 5]), NS // 2)
        begin = rng.integers(0, 100, 5).astype(float)
        intervals = np.stack([begin, begin + rng.integers(0, 6, 5) / 2], axis=1)
        edges = windows.bin_starts / NS
        expected = np.zeros(edges.shape, dtype=bool)
        for a, b in intervals:
            expected |= (edges < b) & (edges + 0.5 > a)
        np.testing.assert_array_equal(windows.touching(intervals), expected)


@pytest.mark.parametrize(("offset", "dtype"), [(1.7e9, "f8"), (2e3, "f4"), (0.0, "f8")])
def test_a_file_with_coarse_times_loses_no_bin(tmp_path, offset, dtype):
    rng = np.random.default_rng(0)
    begin = offset + 1.1 * np.arange(30) + 0.037
    file = new_nwb()
    for _ in range(2):
        times = np.sort(rng.uniform(offset, offset + 33, 300))
        file.add_unit(spike_times=times, obs_intervals=np.stack([begin, begin + 0.6], axis=1))
    for a in begin:
        file.add_trial(start_time=a, stop_time=a + 0.6)
    path = written(file, tmp_path / "a.nwb")
    with h5py.File(path, "a") as h5:
        for name in ("intervals/trials/start_time", "intervals/trials/stop_time", "units/obs_intervals"):
            values, attrs = h5[name][:].astype(dtype), dict(h5[name].attrs)
            del h5[name]
            h5[name] = values
            h5[name].attrs.update(attrs)
    got = quietly(path, PLAIN, {"spikes": SPIKES})
    assert got.trials.observed["spikes"].shape == (30, 6, 2) and got.trials.observed["spikes"].all()


@pytest.mark.parametrize("factor", [1e3, 1e-3, 3e4])
def test_times_in_other_units_than_the_trials_are_said(tmp_path, factor):
    file = new_nwb()
    for k in range(10):
        file.add_trial(start_time=2.0 * k, stop_time=2.0 * k + 1)
    file.add_unit(spike_times=np.linspace(0, 20, 400) * factor)
    path = written(file, tmp_path / "a.nwb")
    with pytest.raises(InputError, match=r"are the times of one of them in milliseconds or samples"):
        quietly(path, PLAIN, {"spikes": SPIKES})
