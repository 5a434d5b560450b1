"""Simulations on bins: what is written is what ingest reads back, bin by bin."""

from pathlib import Path

import numpy as np
import pytest
from pynwb import NWBHDF5IO, validate

from colatent.config import Config, Simulation
from colatent.ingest import ingest_session
from colatent.simulate import write_simulation
from colatent.simulate.binned import BinnedSimulation
from colatent.simulate.digits import Gaps, simulate_digits
from colatent.simulate.paper import simulate_fly, simulate_moth

SIMULATIONS = {
    "digits": (simulate_digits, Gaps(missing_frames=0.2, occluded_frames=0.2, shortest=0.5)),
    "fly": (simulate_fly, None),
    "moth": (simulate_moth, None),
}


def config_of(simulation: BinnedSimulation) -> Config:
    modalities = {
        name: {"kind": "spikes", "source": "units"}
        if kind == "spikes"
        else {"kind": "continuous", "source": f"processing/behavior/{name}"}
        for name, kind in simulation.kinds.items()
    }
    return Config(
        sessions="sessions.tsv",
        results="results",
        truth={"source": "processing/simulation/latents", "groups": list(simulation.latent_groups)},
        alignment={"bin_width": simulation.bin_width},
        modalities=modalities,
        models={"mean": {"kind": "condition-mean"}},
    )


@pytest.mark.parametrize("kind", SIMULATIONS)
def test_ingest_reads_back_what_was_simulated(kind: str, tmp_path: Path) -> None:
    simulate, gaps = SIMULATIONS[kind]
    simulation = simulate(3, n_trials=8, n_units=7, **({"gaps": gaps} if gaps else {}))
    settings = Simulation(kind=kind, seed=3, trials=8, units=7, **(gaps._asdict() if gaps else {}))
    path = write_simulation(settings, tmp_path / "x.simulated.nwb")
    config = config_of(simulation)
    found = ingest_session(
        path,
        config.alignment,
        config.modalities,
        {"inspector": "warn"},  # fewer frames than pixels look transposed to it
        truth=config.truth.source,
        progress=lambda _: None,
    )
    for name, expected in simulation.values.items():
        got, observed = found.trials.values[name], found.trials.observed[name]
        np.testing.assert_array_equal(observed, np.isfinite(expected)[:, : observed.shape[1]])
        np.testing.assert_allclose(got[observed], expected[np.isfinite(expected)], atol=1e-4)
    values, seen, _ = found.truth
    np.testing.assert_allclose(values[seen], simulation.latents[:, : values.shape[1]][seen], atol=1e-5)
    with NWBHDF5IO(path, "r") as io:
        assert not validate(io=io)
        assert "SIMULATED" in io.read().session_description
    again = write_simulation(settings, tmp_path / "again.simulated.nwb")
    assert again.read_bytes() == path.read_bytes()
