"""A small recording written with pynwb, and the settings to ingest it with."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from pynwb import NWBHDF5IO, NWBFile, TimeSeries
from pynwb.behavior import Position, SpatialSeries
from pynwb.image import ImageSeries

from colatent.config import (
    ContinuousModality,
    SpikesModality,
    TrialAlignment,
)
from colatent.ingest import ingest_session

TRIALS = TrialAlignment(bin_width=0.1, condition="target")
SPIKES = SpikesModality(kind="spikes")
FORCE = ContinuousModality(kind="continuous", source="processing/behavior/force")


def write_recording(path: Path) -> Path:
    """Twelve seconds: three units, force at 10 Hz, a cell series each, ragged trials, pictures."""
    rng = np.random.default_rng(0)
    file = NWBFile("made for a test", "id", datetime(2020, 1, 1, tzinfo=UTC), session_id="s1")
    file.add_unit_column("quality", "by eye")
    for rate, quality in ((20, "good"), (5, "good"), (50, "mua")):
        file.add_unit(
            spike_times=np.sort(rng.uniform(0, 12, 12 * rate)),
            obs_intervals=[[0.0, 5.0], [6.0, 12.0]],
            quality=quality,
        )
    file.add_trial_column("target", "which")
    for k, stop in enumerate((2.0, 3.5, 5.5, 8.0)):
        file.add_trial(start_time=stop - 1.0 - 0.25 * (k == 1), stop_time=stop, target=float(k % 2))
    behavior = file.create_processing_module("behavior", "b")
    force = np.stack([np.arange(120.0), np.sin(np.arange(120))], axis=1)
    behavior.add(
        TimeSeries(
            name="force", data=force, unit="N", rate=10.0, starting_time=0.05, conversion=2.0, offset=1.0
        )
    )
    cursor = SpatialSeries(
        name="cursor", data=force, timestamps=np.arange(120) * 0.1, reference_frame="screen"
    )
    behavior.add(Position(spatial_series=cursor))
    for i in range(2):
        behavior.add(TimeSeries(name=f"cell{i}", data=force[:, 1] * i, unit="a.u.", rate=10.0))
    file.add_acquisition(
        ImageSeries(name="film", data=np.zeros((120, 2, 3)), unit="n.a.", rate=10.0, format="raw")
    )
    with NWBHDF5IO(path, "w") as nwb:
        nwb.write(file)
    return path


def quietly(path, alignment, modalities, checks=None, **more):
    return ingest_session(path, alignment, modalities, checks or {}, progress=lambda _: None, **more)
