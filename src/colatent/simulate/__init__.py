"""Simulated sessions of which the latents are known: for the demo and for tests of recovery."""

from pathlib import Path

from colatent.config import Simulation
from colatent.simulate.nwb import write_reach_nwb
from colatent.simulate.reach import ReachSimulation, simulate_reach

__all__ = ["ReachSimulation", "simulate_reach", "write_reach_nwb", "write_simulation"]


def write_simulation(settings: Simulation, path: str | Path) -> Path:
    """Write the simulated recording that a config's section ``simulate`` asks for, and return its path."""
    from colatent.simulate.binned_nwb import write_binned_nwb
    from colatent.simulate.digits import Gaps, simulate_digits
    from colatent.simulate.paper import simulate_fly, simulate_moth

    size = {"n_trials": settings.trials, "n_units": settings.units}
    match settings.kind:
        case "digits":
            gaps = Gaps(settings.missing_frames, settings.occluded_frames, settings.shortest)
            return write_binned_nwb(simulate_digits(settings.seed, **size, gaps=gaps), path)
        case "fly":
            return write_binned_nwb(simulate_fly(settings.seed, **size), path)
        case "moth":
            return write_binned_nwb(simulate_moth(settings.seed, **size), path)
        case "reach":
            return write_reach_nwb(simulate_reach(seed=settings.seed, **size), path)
