"""Write a simulated recording as an NWB file."""

from colatent.jobs.progress import job
from colatent.simulate import write_simulation

with job(snakemake.log[0], "simulate") as progress:
    write_simulation(snakemake.params.simulation, snakemake.output.nwb)
    progress(f"{snakemake.output.nwb}: a simulated recording, not one of an animal")
