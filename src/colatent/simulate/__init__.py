"""Simulated sessions of which the latents are known: for the demo and for tests of recovery."""

from colatent.simulate.nwb import write_reach_nwb
from colatent.simulate.reach import ReachSimulation, simulate_reach

__all__ = ["ReachSimulation", "simulate_reach", "write_reach_nwb"]
