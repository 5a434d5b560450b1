"""Draw the table of numbers of latents."""

from pathlib import Path

from colatent.progress import job
from colatent.report.figure_latent_choice import latent_choice_figure
from colatent.scoring.tables import read_table

w = snakemake.wildcards
with job(snakemake.log[0], f"latent_choice_figure {w.session} {w.model}"):
    figure = latent_choice_figure(read_table(snakemake.input.table), w.session, w.model)
    Path(snakemake.output.figure).write_bytes(figure.png)
