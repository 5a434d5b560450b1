"""Simulated sessions of which the latents are known: for the demo and for tests of recovery."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from colatent.simulate.nwb import write_reach_nwb
from colatent.simulate.reach import ReachSimulation, simulate_reach

__all__ = ["ReachSimulation", "simulate_reach", "write_reach_nwb", "write_simulation"]


def write_simulation(settings: Mapping[str, Any], path: str | Path) -> Path:
    """Write the simulated recording that a config's section ``simulate`` asks for, and return its path."""
    from colatent.simulate.binned_nwb import write_binned_nwb
    from colatent.simulate.digits import simulate_digits
    from colatent.simulate.paper import simulate_fly, simulate_moth

    seed = settings["seed"]
    size = {"n_trials": settings["trials"], "n_units": settings["units"]}
    match settings["kind"]:
        case "digits":
            gaps = {key: settings[key] for key in ("missing_frames", "occluded_frames", "shortest")}
            return write_binned_nwb(simulate_digits(seed, **size, **gaps), path)
        case "fly":
            return write_binned_nwb(simulate_fly(seed, **size), path)
        case "moth":
            return write_binned_nwb(simulate_moth(seed, **size), path)
    return write_reach_nwb(simulate_reach(seed=seed, **size), path)
