"""Large recordings read by processes of dask.distributed give what one process reads, bit by bit."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from ndx_pose import PoseEstimation, PoseEstimationSeries
from pynwb import NWBHDF5IO, NWBFile, TimeSeries
from support import quietly

from colatent.config import ContinuousAlignment, ContinuousModality, Distributed, PoseModality
from colatent.ingest.cluster import Job, reading_processes
from colatent.ingest.signals.resample import Reading

JOB = Job(threads=2, memory_mb=3000, minutes=5, logs=Path("logs"))
BLOCK_BYTES = 40_000  # many blocks in a small file
ALIGNMENT = ContinuousAlignment(window=5.0, gap=0.5, bin_width=0.05)
MODALITIES = {
    "emg": ContinuousModality.model_validate(
        {"kind": "continuous", "source": "acquisition/emg", "envelope": {"highpass": 40.0, "lowpass": 10.0}}
    ),
    "force": ContinuousModality(kind="continuous", source="acquisition/force", columns=[1, 0]),
    "pose": PoseModality(kind="pose", source="processing/behavior/arm", min_confidence=0.3),
}


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A minute of raw EMG with a hole in its timestamps, of force with missing samples, and of a pose."""
    rng = np.random.default_rng(0)
    file = NWBFile("made for a test", "id", datetime(2020, 1, 1, tzinfo=UTC))
    times = np.arange(60_000) / 1000
    times[30_000:] += 2.0
    emg = rng.integers(-2000, 2000, (60_000, 3)).astype(np.int16)
    file.add_acquisition(TimeSeries(name="emg", data=emg, unit="volts", timestamps=times, conversion=1e-6))
    force = rng.normal(size=(6200, 2))
    force[1000:1100] = np.nan
    file.add_acquisition(TimeSeries(name="force", data=force, unit="N", rate=100.0, offset=3.0))
    hand = PoseEstimationSeries(
        name="hand",
        data=rng.normal(size=(1860, 2)),
        reference_frame="screen",
        timestamps=np.arange(1860) / 30,
        confidence=rng.uniform(size=1860),
    )
    behavior = file.create_processing_module("behavior", "b")
    behavior.add(PoseEstimation(name="arm", pose_estimation_series=[hand]))
    path = tmp_path_factory.mktemp("recording") / "long.nwb"
    with NWBHDF5IO(path, "w") as nwb:
        nwb.write(file)
    return path


def test_processes_read_what_one_process_reads(recording: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(recording.parent)
    said: list[str] = []
    alone = quietly("long.nwb", ALIGNMENT, MODALITIES, reading=Reading(1, BLOCK_BYTES))
    with reading_processes(Distributed(above_gb=1e-6), "long.nwb", JOB, said.append) as client:
        assert client is not None and said == ["long.nwb is read by 2 processes (local)"]
        shared = quietly("long.nwb", ALIGNMENT, MODALITIES, reading=Reading(2, BLOCK_BYTES, client))
        done = client.run(lambda dask_worker: dask_worker.state.executed_count)
    assert len(done) == 2 and all(done.values()), "a process read nothing"
    for name in MODALITIES:
        np.testing.assert_array_equal(shared.trials.values[name], alone.trials.values[name])
        np.testing.assert_array_equal(shared.trials.observed[name], alone.trials.observed[name])
    assert shared.attrs == alone.attrs and shared.findings == alone.findings


def test_small_and_streamed_recordings_start_no_processes(recording: Path) -> None:
    def refuse(line: str) -> None:
        raise AssertionError(line)

    large = Distributed(above_gb=recording.stat().st_size / 1e9 * 1.001)
    for settings, nwb in ((None, recording), (large, recording), (large, "https://example.org/long.nwb")):
        with reading_processes(settings, nwb, JOB, refuse) as client:
            assert client is None
