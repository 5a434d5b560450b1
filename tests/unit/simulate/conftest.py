"""One simulated session and its file, for all tests of simulations."""

from pathlib import Path

import pytest

from colatent.simulate import ReachSimulation, simulate_reach, write_reach_nwb


@pytest.fixture(scope="session")
def simulation() -> ReachSimulation:
    return simulate_reach(seed=0)


@pytest.fixture(scope="session")
def written(simulation: ReachSimulation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_reach_nwb(simulation, tmp_path_factory.mktemp("simulated") / "reach.nwb")
