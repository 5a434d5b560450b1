"""Compare numbers of latents inside the training trials of every fold."""

from pathlib import Path

from colatent.analyses.latent_choice import choose_latents
from colatent.jobs.progress import job
from colatent.scoring.tables import write_table
from colatent.store.made_with import read_made_with
from colatent.store.stores import read_attrs

w = snakemake.wildcards
with job(snakemake.log[0], f"latent_choice {w.session} {w.model}") as progress:
    settings = read_made_with(snakemake.input.made_with)
    split = Path(snakemake.input.split).parent
    table = choose_latents(
        Path(snakemake.input.session).parent,
        split,
        settings["model"],
        settings["folds"],
        read_attrs(split)["settings"]["clip"],
        progress,
    )
    write_table(table, snakemake.output.table)
