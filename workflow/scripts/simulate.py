"""Write a simulated recording as an NWB file."""

from colatent.config import Simulation
from colatent.jobs.progress import job
from colatent.simulate import write_simulation
from colatent.store.made_with import read_made_with

with job(snakemake.log[0], "simulate") as progress:
    settings = read_made_with(snakemake.input.made_with)
    write_simulation(Simulation.model_validate(settings["simulation"]), snakemake.output.nwb)
    progress(f"{snakemake.output.nwb}: a simulated recording, not one of an animal")
