"""Compare numbers of latents inside the training trials of every fold."""

from pathlib import Path

from colatent.progress import job
from colatent.report.figure_latent_choice import latent_choice_figure
from colatent.scoring.latent_choice import choose_latents

w = snakemake.wildcards
with job(snakemake.log[0], f"latent_choice {w.session} {w.model}") as progress:
    table = choose_latents(
        Path(snakemake.input.session).parent,
        Path(snakemake.input.split).parent,
        snakemake.params.model,
        snakemake.params.folds,
        snakemake.params.clip,
        progress,
    )
    table.to_csv(snakemake.output.table, index=False)
    Path(snakemake.output.figure).write_bytes(latent_choice_figure(table, w.session, w.model).png)
