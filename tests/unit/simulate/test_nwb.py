"""The file of a simulated session: what it holds, and what it claims of itself."""

import hashlib
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pynwb import NWBHDF5IO, NWBFile
from pynwb import validate as validate_nwb

from colatent.simulate import ReachSimulation, write_reach_nwb


def test_nwb_round_trip(simulation: ReachSimulation, written: Path) -> None:
    with NWBHDF5IO(written, "r", load_namespaces=True) as io:
        nwbfile = io.read()
        units = nwbfile.units.to_dataframe()
        assert tuple(units["quality"]) == simulation.spikes.quality
        for stored, times in zip(units["spike_times"], simulation.spikes.times, strict=True):
            np.testing.assert_array_equal(stored, times)
        np.testing.assert_array_equal(units["obs_intervals"][0], [[0.0, simulation.duration]])
        rates = np.exp(
            simulation.latents @ np.stack(list(units["true_loading"])).T + units["true_log_rate"].to_numpy()
        )
        np.testing.assert_allclose(rates, simulation.firing_rates)

        envelope = nwbfile.processing["behavior"]["emg_envelope"]
        np.testing.assert_array_equal(envelope.data[:], simulation.emg.values)
        assert (envelope.unit, envelope.rate) == ("mV", 100.0)
        assert envelope.starting_time == simulation.emg.start
        assert envelope.description.split("muscles: ")[1].split(", ") == list(simulation.emg.muscles)

        pose = nwbfile.processing["behavior"]["PoseEstimation"]
        assert sorted(pose.pose_estimation_series) == sorted(simulation.pose.keypoints)
        for j, name in enumerate(simulation.pose.keypoints):
            np.testing.assert_array_equal(pose[name].data[:], simulation.pose.values[:, j])
            np.testing.assert_array_equal(pose[name].confidence[:], simulation.pose.confidence[:, j])
            assert pose[name].rate == 50.0

        trials = nwbfile.trials.to_dataframe()
        np.testing.assert_array_equal(trials["start_time"], simulation.trials.start)
        np.testing.assert_array_equal(trials["stop_time"], simulation.trials.stop)
        np.testing.assert_array_equal(trials["go_time"], simulation.trials.go)
        np.testing.assert_array_equal(trials["target_id"], simulation.trials.target)
        assert set(trials["result"]) == {"R"}

        latents = nwbfile.processing["simulation"]["latents"]
        times = latents.starting_time + np.arange(len(latents.data)) / latents.rate
        np.testing.assert_allclose(latents.data[:], simulation.latents_at(times), atol=1e-9)
        assert tuple(latents.description.split("groups: ")[1].split(", ")) == simulation.latent_groups


def as_text(field: object) -> str:
    return field if isinstance(field, str) else ", ".join(field[:])  # type: ignore[index]


def without_the_word(nwbfile: NWBFile) -> list[str]:
    """Names of the descriptive texts that do not say so."""
    texts = {
        name: as_text(getattr(nwbfile, name))
        for name in (
            "session_description",
            "identifier",
            "session_id",
            "experimenter",
            "lab",
            "institution",
            "experiment_description",
            "keywords",
            "notes",
            "data_collection",
        )
    }
    texts["species"] = nwbfile.subject.species
    for item in nwbfile.all_children():
        # columns and bare arrays are described by their table
        if hasattr(item, "description") and type(item).__name__ not in ("VectorData", "VectorIndex"):
            texts[item.name] = str(item.description)
    assert {"trials", "units", "emg_envelope", "hand", "latents", "behavior", "simulation", "subject"} <= set(
        texts
    )
    return [name for name, text in texts.items() if "simulat" not in text.lower()]


def test_the_file_says_everywhere_that_it_is_a_simulation(written: Path) -> None:
    with NWBHDF5IO(written, "r", load_namespaces=True) as io:
        assert without_the_word(io.read()) == []


def test_the_file_is_valid_and_the_inspector_finds_nothing_critical(written: Path) -> None:
    from nwbinspector import Importance, inspect_nwbfile

    assert validate_nwb(path=written) == []
    critical = inspect_nwbfile(nwbfile_path=written, importance_threshold=Importance.CRITICAL)
    assert list(critical) == []


def test_same_seed_same_bytes_in_another_process(written: Path, tmp_path: Path) -> None:
    program = (
        "from colatent.simulate import *; write_reach_nwb(simulate_reach(seed=0), r'"
        f"{tmp_path / 'again.nwb'}')"
    )
    subprocess.run(
        [sys.executable, "-c", program],
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONHASHSEED": "7"},
    )
    digests = {hashlib.sha256(p.read_bytes()).hexdigest() for p in (written, tmp_path / "again.nwb")}
    assert len(digests) == 1


def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    simulation: ReachSimulation, tmp_path: Path
) -> None:
    path = tmp_path / "reach.nwb"
    path.write_bytes(b"what was there before")
    unwritable = replace(simulation, emg=replace(simulation.emg, values=np.array([[object()] * 8])))
    with pytest.raises(TypeError):  # HDF5 has no such data type: it fails half-way through the file
        write_reach_nwb(unwritable, path)
    assert path.read_bytes() == b"what was there before"
    assert [p.name for p in tmp_path.iterdir()] == ["reach.nwb"]
