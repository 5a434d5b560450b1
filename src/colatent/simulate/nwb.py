"""Write the simulated reaches as an NWB file that says everywhere that it is a simulation."""

from datetime import UTC, datetime
from pathlib import Path
from uuid import NAMESPACE_URL, uuid5

import numpy as np
from hdmf.container import AbstractContainer
from ndx_pose import PoseEstimation, PoseEstimationSeries, Skeleton, Skeletons
from pynwb import NWBHDF5IO, NWBFile, TimeSeries
from pynwb.epoch import TimeIntervals
from pynwb.file import Subject
from pynwb.misc import Units

from colatent.simulate.reach import STEP, ReachSimulation
from colatent.store.atomic import atomically

SIMULATED = "SIMULATED DATA, not a recording of an animal"
SESSION_START = datetime(2026, 1, 1, tzinfo=UTC)  # fixed, so that one seed always gives one file
LATENT_RATE = 100.0  # Hz, of the stored latents


def write_reach_nwb(simulation: ReachSimulation, path: str | Path) -> Path:
    """Write ``simulation`` to the NWB file ``path``, all of it or nothing, and return the path.

    Where things are: ``units`` (spike_times in s, quality, true_loading, true_log_rate);
    ``processing/behavior/emg_envelope`` (mV, 100 Hz); ``processing/behavior/PoseEstimation`` (cm,
    50 Hz, one PoseEstimationSeries with confidence per keypoint); ``trials`` (start_time, stop_time,
    go_time, target_id, result); ``processing/simulation/latents`` (100 Hz, one column per latent,
    groups in the description). The file holds no clock time or random id: a seed gives the same content.

    Raises:
        OSError: the file cannot be written.
    """
    n_trials = len(simulation.trials.start)
    nwbfile = describe_session(
        "simulated-reach",
        simulation.seed,
        f"{n_trials} centre-out reaches to 8 targets: spikes, emg and pose",
    )
    _add_trials(nwbfile, simulation)
    _add_units(nwbfile, simulation)
    _add_behavior(nwbfile, simulation)
    _add_truth(nwbfile, simulation)
    name_objects(nwbfile, f"colatent-simulated-reach/{simulation.seed}")
    return write_file(nwbfile, path)


def write_file(nwbfile: NWBFile, path: str | Path) -> Path:
    """Write an NWB file, all of it or nothing, and return its path."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomically(path) as made, NWBHDF5IO(made, "w") as io:
        io.write(nwbfile)
    return path


def describe_session(kind: str, seed: int, what: str) -> NWBFile:
    """Return an empty NWB file that says what was simulated, and that nothing was recorded."""
    return NWBFile(
        session_description=(
            f"{SIMULATED}: {what}; drawn by colatent.simulate from known Gaussian-process latents that "
            "are shared by, or private to, its modalities."
        ),
        identifier=f"{kind}-seed-{seed}",
        session_id=f"simulated-seed-{seed}",
        session_start_time=SESSION_START,
        file_create_date=SESSION_START,
        experimenter=["Simulation, Colatent"],
        lab="none (simulated by the software colatent)",
        institution="none (simulated by the software colatent)",
        experiment_description=f"{SIMULATED}: {what}.",
        keywords=["simulation", "simulated data", "Gaussian process", "latent variables"],
        notes=f"{SIMULATED}. The true latents are in processing/simulation/latents.",
        data_collection=f"{SIMULATED}. Drawn from the seed {seed} by colatent.simulate.",
        subject=Subject(
            subject_id=f"simulated-{seed}",
            species="simulated",
            sex="U",
            age="P0D",
            description=f"{SIMULATED}: there is no subject; the age is a placeholder.",
        ),
    )


def _add_trials(nwbfile: NWBFile, simulation: ReachSimulation) -> None:
    table = TimeIntervals(
        name="trials", description=f"{SIMULATED}: trials of a centre-out reach, from before the go cue on."
    )
    table.add_column("go_time", "Time (s) of the simulated go cue.")
    table.add_column("target_id", "Target 1..8, at angles of 0, 45, ..., 315 degrees (simulated).")
    table.add_column("result", "R: rewarded; every simulated trial is.")
    trials = simulation.trials
    for start, stop, go, target in zip(trials.start, trials.stop, trials.go, trials.target, strict=True):
        table.add_row(start_time=start, stop_time=stop, go_time=go, target_id=int(target), result="R")
    nwbfile.trials = table


def _add_units(nwbfile: NWBFile, simulation: ReachSimulation) -> None:
    spikes = simulation.spikes
    units = Units(
        name="units", description=f"{SIMULATED}: inhomogeneous Poisson spike trains.", resolution=STEP
    )
    units.add_column("quality", "good, or noise: a unit of constant rate that no latent drives (simulated).")
    units.add_column("true_log_rate", "True log rate (log Hz) at latents of zero.")
    units.add_column(
        "true_loading", "True log rate per unit of each latent in processing/simulation/latents."
    )
    for unit, times in enumerate(spikes.times):
        units.add_unit(
            spike_times=times,
            obs_intervals=[[0.0, simulation.duration]],
            quality=spikes.quality[unit],
            true_log_rate=spikes.offset[unit],
            true_loading=spikes.loading[unit],
        )
    nwbfile.units = units


def _add_behavior(nwbfile: NWBFile, simulation: ReachSimulation) -> None:
    emg = simulation.emg
    module = nwbfile.create_processing_module("behavior", f"{SIMULATED}: muscle activity and arm pose.")
    module.add(
        TimeSeries(
            name="emg_envelope",
            description=f"{SIMULATED}: muscle activity envelopes; muscles: {', '.join(emg.muscles)}",
            data=emg.values,
            unit="mV",
            rate=emg.rate,
            starting_time=emg.start,
            comments=SIMULATED,
        )
    )
    nodes = simulation.pose.keypoints
    skeleton = Skeleton(
        name="arm",
        nodes=list(nodes),
        edges=np.array([[i, i + 1] for i in range(len(nodes) - 1)], dtype="uint8").reshape(-1, 2),
    )
    module.add(Skeletons(name="Skeletons", skeletons=[skeleton]))
    module.add(_pose_estimation(nwbfile, simulation, skeleton))


def _pose_estimation(
    nwbfile: NWBFile, simulation: ReachSimulation, skeleton: AbstractContainer
) -> PoseEstimation:
    pose = simulation.pose
    series = [
        PoseEstimationSeries(
            name=name,
            description=f"{SIMULATED}: position of the {name}.",
            data=pose.values[:, j],
            unit="centimeters",
            reference_frame="Origin: the hand at the workspace centre; x right, y away from the body.",
            confidence=pose.confidence[:, j],
            confidence_definition="Simulated: below 0.5 where the tracker lost the keypoint.",
            rate=pose.rate,
            starting_time=pose.start,
            comments=SIMULATED,
        )
        for j, name in enumerate(pose.keypoints)
    ]
    return PoseEstimation(
        name="PoseEstimation",
        pose_estimation_series=series,
        description=f"{SIMULATED}: keypoints of an arm that were never filmed.",
        device=nwbfile.create_device("simulated_camera", description=f"{SIMULATED}: there is no camera."),
        scorer="simulated",
        source_software="colatent.simulate",
        skeleton=skeleton,
    )


def _add_truth(nwbfile: NWBFile, simulation: ReachSimulation) -> None:
    module = nwbfile.create_processing_module("simulation", f"{SIMULATED}: the truth it was drawn from.")
    every = round(1 / (LATENT_RATE * STEP))
    scales = ", ".join(f"{scale:g}" for scale in simulation.time_scales)
    module.add(
        TimeSeries(
            name="latents",
            description=(
                f"{SIMULATED}: true latents, one a column, of variance 1 over the trials; "
                f"time scales (s): {scales}; groups: {', '.join(simulation.latent_groups)}"
            ),
            data=simulation.latents[::every],
            unit="1",
            rate=LATENT_RATE,
            starting_time=0.0,
            comments=SIMULATED,
        )
    )


def name_objects(container: AbstractContainer, path: str) -> None:
    """Give every object an id derived from its path in the file, instead of hdmf's random one."""
    container._AbstractContainer__object_id = str(uuid5(NAMESPACE_URL, path))  # hdmf has no public setter
    for child in container.children:
        name_objects(child, f"{path}/{child.name}")
