"""Write a simulation on bins as an NWB file that says everywhere that it is a simulation."""

from pathlib import Path

import numpy as np
from pynwb import TimeSeries
from pynwb.epoch import TimeIntervals
from pynwb.misc import Units

from colatent.simulate.binned import Array, BinnedSimulation
from colatent.simulate.nwb import SIMULATED, describe_session, name_objects, write_file

GAP_BINS = 5  # between trials


def write_binned_nwb(simulation: BinnedSimulation, path: str | Path) -> Path:
    """Write ``simulation`` to the NWB file ``path``, all of it or nothing, and return the path.

    Where things are: ``units`` (spikes, each at a random time in its bin); one TimeSeries in
    ``processing/behavior`` for each continuous modality, sampled at bin centres; ``trials``
    (start_time, stop_time); ``processing/simulation/latents`` likewise.
    """
    n_bins = simulation.latents.shape[1]
    width, pitch = simulation.bin_width, (n_bins + GAP_BINS) * simulation.bin_width
    start = pitch * np.arange(len(simulation.latents)) + width
    length = _recorded(simulation)
    nwbfile = describe_session(
        "simulated-" + "-".join(simulation.values),
        simulation.seed,
        f"{len(start)} trials of {simulation.name}",
    )
    table = TimeIntervals(name="trials", description=f"{SIMULATED}: trials, each independent of the others.")
    for first, n in zip(start, length, strict=True):
        table.add_row(start_time=first, stop_time=first + n * width)
    nwbfile.trials = table
    end = float(start[-1] + pitch)
    module = nwbfile.create_processing_module("behavior", f"{SIMULATED}: continuous signals.")
    for name, values in simulation.values.items():
        if simulation.kinds[name] == "spikes":
            nwbfile.units = _units(simulation.seed, values, start, width, end)
        else:
            module.add(_series(name, values, start, width, simulation.units[name]))
    truth = nwbfile.create_processing_module("simulation", f"{SIMULATED}: the truth it was drawn from.")
    truth.add(_series("latents", simulation.latents, start, width, "1"))
    name_objects(nwbfile, f"colatent-simulated/{nwbfile.identifier}")
    return write_file(nwbfile, path)


def _recorded(simulation: BinnedSimulation) -> np.ndarray:
    """Return the bins of each trial up to the last one in which anything was recorded, (trial,)."""
    seen = np.any([np.isfinite(v).any(axis=2) for v in simulation.values.values()], axis=0)
    return seen.shape[1] - np.argmax(seen[:, ::-1], axis=1)


def _series(name: str, values: Array, start: Array, width: float, unit: str) -> TimeSeries:
    """Return the samples of all trials on one clock, NaN between trials."""
    samples = np.pad(values, ((0, 0), (0, GAP_BINS), (0, 0)), constant_values=np.nan)
    return TimeSeries(
        name=name,
        description=f"{SIMULATED}: {name}.",
        data=samples.reshape(-1, values.shape[2]).astype(np.float32),
        unit=unit,
        rate=1 / width,
        starting_time=float(start[0] + width / 2),
        comments=SIMULATED,
    )


def _units(seed: int, counts: Array, start: Array, width: float, end: float) -> Units:
    rng = np.random.default_rng([seed, 1])
    units = Units(name="units", description=f"{SIMULATED}: Poisson counts.", resolution=1e-6)
    bins = start[:, None] + width * np.arange(counts.shape[1])
    for unit in np.moveaxis(np.nan_to_num(counts), 2, 0):
        first = np.repeat(bins.ravel(), unit.ravel().astype(np.int64))
        # clear of the bin's edges, so that rounding moves no spike into the next
        times = np.sort(first + width * rng.uniform(0.01, 0.99, len(first)))
        units.add_unit(spike_times=times, obs_intervals=[[0.0, end]])
    return units
