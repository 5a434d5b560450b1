"""Draw the table of numbers of latents."""

from colatent.jobs.progress import job
from colatent.report.figures.latent_choice import latent_choice_figure
from colatent.scoring.tables import read_table
from colatent.store.atomic import atomically
from colatent.store.made_with import read_made_with

w = snakemake.wildcards
with job(snakemake.log[0], f"latent_choice_figure {w.session} {w.model}"):
    read_made_with(snakemake.input.made_with)
    figure = latent_choice_figure(read_table(snakemake.input.table), w.session, w.model)
    with atomically(snakemake.output.figure) as made:
        made.write_bytes(figure.png)
