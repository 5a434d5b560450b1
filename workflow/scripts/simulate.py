"""Write a simulated recording as an NWB file."""

from colatent.config import Simulation
from colatent.jobs.progress import job
from colatent.simulate import write_simulation

with job(snakemake.log[0], "simulate") as progress:
    write_simulation(Simulation.model_validate(snakemake.params.simulation), snakemake.output.nwb)
    progress(f"{snakemake.output.nwb}: a simulated recording, not one of an animal")
