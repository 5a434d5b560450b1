"""Real recordings, which are not part of the project: see COLATENT_REAL_DATA."""

import os
from pathlib import Path

import h5py
import numpy as np
import pytest
from pynwb import NWBHDF5IO
from scipy.interpolate import make_interp_spline

from colatent.config import (
    ContinuousAlignment,
    ContinuousModality,
    PoseModality,
    SpikesModality,
    TrialAlignment,
)
from colatent.errors import InputError
from colatent.ingest import ingest_session, inspect
from colatent.ingest.check import check_source

DATA = Path(os.environ.get("COLATENT_REAL_DATA", Path(__file__).parents[3] / "shared" / "data"))
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason=f"no recordings at COLATENT_REAL_DATA ({DATA})")
SPIKES = SpikesModality(kind="spikes")


def series(source: str) -> ContinuousModality:
    return ContinuousModality(kind="continuous", source=source)


def ingest(name, alignment, modalities):
    return ingest_session(DATA / name, alignment, modalities, {}, progress=lambda _: None)


@pytest.mark.parametrize(
    ("name", "modality", "sentence"),
    [
        ("ragged_index_past_end", SPIKES, "ragged index runs to .* but spike_times holds"),
        ("units_without_spike_times", SPIKES, "the units table has no spike_times"),
        ("nwb_1_0_6_spikes_in_processing", SPIKES, r"this is NWB 1\.0\.6"),
        ("external_link", SPIKES, "a link to another file"),
        ("empty", SPIKES, "names no nwb_version"),
        ("1.5.1_timeseries_no_data", series("acquisition/test_timeseries"), "there is no data in it"),
    ],
)
def test_odd_files_are_refused_in_one_sentence(name, modality, sentence):
    path = DATA / "odd" / f"{name}.nwb"
    alignment = ContinuousAlignment(window=1, gap=0, bin_width=0.1)
    for refuse in (
        lambda: check_source(path, alignment, {"m": modality}),
        lambda: ingest_session(path, alignment, {"m": modality}, {}),
    ):
        with pytest.raises(InputError, match=sentence) as error:
            refuse()
        assert str(path) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "name", ["monkey_m1_emg", "premotor_gpfa_sample", "worm_calcium_posture", "mouse_pose"]
)
def test_every_other_file_is_inspected(name):
    contents = inspect(DATA / f"{name}.nwb")
    assert contents.items and not any(item.problem for item in contents.items)


def test_monkey_counts_equal_histograms_of_pynwb():
    alignment = TrialAlignment(bin_width=0.05, condition="target_id")
    got = ingest(
        "monkey_m1_emg.nwb", alignment, {"spikes": SPIKES, "emg": series("processing/behavior/emg_envelope")}
    )
    with NWBHDF5IO(DATA / "monkey_m1_emg.nwb", "r") as io:
        file = io.read()
        starts, stops = file.trials["start_time"][:], file.trials["stop_time"][:]
        for unit in (0, 50, 95):
            times = np.rint(file.units["spike_times"][unit] * 1e9).astype(np.int64)
            for j in (0, 150, 299):
                first = round(starts[j] * 1e9)
                n = (round(stops[j] * 1e9) - first) // 50_000_000
                expected = np.histogram(times, first + 50_000_000 * np.arange(n + 1) - 0.5)[0]
                np.testing.assert_array_equal(got.trials.values["spikes"][j, :n, unit], expected)
                assert not got.trials.observed["spikes"][j, n:].any()
    assert len(set(got.trials.condition)) == 8
    assert [f["channel"] for f in got.findings if f["check"] == "artefact"] == ["emg_envelope_1"]


def test_premotor_bins_hold_every_spike_of_the_trials():
    got = ingest("premotor_gpfa_sample.nwb", TrialAlignment(bin_width=0.02), {"spikes": SPIKES})
    with h5py.File(DATA / "premotor_gpfa_sample.nwb") as file:
        spikes = file["units/spike_times"][:]
        starts, stops = file["intervals/trials/start_time"][:], file["intervals/trials/stop_time"][:]
    inside = ((spikes >= starts[:, None]) & (spikes < stops[:, None])).any(axis=0).sum()
    assert got.trials.values["spikes"].shape == (56, 20, 53)
    assert got.trials.values["spikes"].sum() == inside


def test_worm_traces_equal_interpolation_in_scipy_and_pumping_is_refused():
    modalities = {
        "calcium": series("processing/ophys/DfOverF/dff"),
        "posture": series("processing/behavior/body_angle"),
    }
    alignment = ContinuousAlignment(window=30.0, gap=3.0, bin_width=0.6)
    got = ingest("worm_calcium_posture.nwb", alignment, modalities)
    with h5py.File(DATA / "worm_calcium_posture.nwb") as file:
        for name in ("calcium", "posture"):
            group = file[modalities[name].source]
            # In nanoseconds since the first sample: at 1.8e6 s, float64 seconds resolve 0.2 ns only.
            times = np.rint(group["timestamps"][:] * 1e9)
            centres = np.rint(got.trial_table["start"].to_numpy() * 1e9)[:, None] + np.rint(got.time * 1e9)
            expected = make_interp_spline(times - times[0], group["data"][:], k=1)(centres - times[0])
            assert got.trials.observed[name].all()
            scale = np.abs(expected).max()
            assert np.abs(got.trials.values[name] - expected).max() <= 1e-9 * scale
    with pytest.raises(InputError, match="pumping: no bin of any trial is observed"):
        ingest("worm_calcium_posture.nwb", alignment, {"pumping": series("processing/behavior/pumping")})


def test_mouse_pose_is_masked_where_confidence_is_low():
    pose = PoseModality(kind="pose", source="processing/behavior/PoseEstimation", min_confidence=0.999)
    got = ingest("mouse_pose.nwb", ContinuousAlignment(window=100, gap=10, bin_width=1.0), {"pose": pose})
    assert got.trials.values["pose"].shape[2] == 8 and got.units_of["pose"] == "pixels"
    with h5py.File(DATA / "mouse_pose.nwb") as file:
        group = file["processing/behavior/PoseEstimation/ind1_leftear"]
        low = group["timestamps"][:][group["confidence"][:] < 0.999]
    centres = got.trial_table["start"].to_numpy()[:, None] + got.time
    # At one frame a second, each bin's centre lies between two frames.
    near = (np.abs(centres[..., None] - low) < 0.75).any(axis=-1)
    assert near.any() and not got.trials.observed["pose"][near][:, 0].any()


@pytest.mark.parametrize(("file", "bins", "events"), [("monkey_s_0718", 7, 1), ("monkey_s_0820", 2, 0)])
def test_synchronous_bins_and_absent_events_are_found_and_masked(file, bins, events):
    alignment = TrialAlignment(start="go_time", window=(-0.5, 1.5), bin_width=0.05, condition="target_id")
    got = ingest(f"{file}.nwb", alignment, {"spikes": SPIKES})
    found = {f["check"]: f for f in got.findings}
    assert found["synchronous-spikes"]["count"] == bins
    assert found["synchronous-spikes"]["action"] == "mask"
    assert found.get("event-times", {"count": 0})["count"] == events
    assert (~got.trials.observed["spikes"]).any(axis=2).sum() == bins
    active = (got.trials.values["spikes"] > 0).mean(axis=2)
    assert active.max() < 0.75


def test_clean_recordings_have_no_synchronous_bins():
    for file, width in (("monkey_m1_emg", 0.05), ("premotor_gpfa_sample", 0.02), ("chewie_reach", 0.02)):
        got = ingest(f"{file}.nwb", TrialAlignment(bin_width=width), {"spikes": SPIKES})
        assert "synchronous-spikes" not in {f["check"] for f in got.findings}
