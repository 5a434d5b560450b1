"""Write a simulated recording as an NWB file."""

from pathlib import Path

from colatent.progress import job
from colatent.simulate import simulate_reach, write_reach_nwb

with job(snakemake.log[0], "simulate") as progress:
    settings = snakemake.params.simulation
    simulation = simulate_reach(seed=settings["seed"], n_trials=settings["trials"], n_units=settings["units"])
    write_reach_nwb(simulation, Path(snakemake.output.nwb))
    progress(f"{snakemake.output.nwb}: a simulated recording, not one of an animal")
