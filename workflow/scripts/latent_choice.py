"""Compare numbers of latents inside the training trials of every fold."""

from pathlib import Path

from colatent.analyses.latent_choice import choose_latents
from colatent.jobs.progress import job
from colatent.scoring.tables import write_table

w = snakemake.wildcards
with job(snakemake.log[0], f"latent_choice {w.session} {w.model}") as progress:
    table = choose_latents(
        Path(snakemake.input.session).parent,
        Path(snakemake.input.split).parent,
        snakemake.params.model,
        snakemake.params.folds,
        progress,
    )
    write_table(table, snakemake.output.table)
