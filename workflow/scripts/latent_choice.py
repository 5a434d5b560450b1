"""Compare numbers of latents inside the training trials of every fold."""

from pathlib import Path

from colatent.analyses.latent_choice import choose_latents
from colatent.jobs.progress import job
from colatent.scoring.tables import write_table
from colatent.store.made_with import read_made_with

w = snakemake.wildcards
with job(snakemake.log[0], f"latent_choice {w.session} {w.model}") as progress:
    settings = read_made_with(snakemake.input.made_with)
    table = choose_latents(
        Path(snakemake.input.session).parent,
        Path(snakemake.input.split).parent,
        settings["model"],
        settings["folds"],
        progress,
    )
    write_table(table, snakemake.output.table)
