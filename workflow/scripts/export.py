"""Write the latents of a model as a store and as an NWB file."""

from pathlib import Path

from colatent.jobs.progress import job
from colatent.report.export import write_latents_nwb, write_latents_store
from colatent.store.made_with import read_made_with

w = snakemake.wildcards
with job(snakemake.log[0], f"export {w.session} {w.model}") as progress:
    settings = read_made_with(snakemake.input.made_with)
    session, score = Path(snakemake.input.session).parent, Path(snakemake.input.score).parent
    nwb = Path(snakemake.output.nwb)
    recording = snakemake.params.url or snakemake.input.recording[0]
    write_latents_nwb(session, score, recording, settings["checks"], nwb)
    write_latents_store(session, score, nwb, Path(snakemake.output.store).parent)
    progress(f"written to {nwb}")
