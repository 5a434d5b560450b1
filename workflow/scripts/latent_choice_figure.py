"""Draw the table of numbers of latents."""

from colatent.jobs.progress import job
from colatent.report.figures.latent_choice import latent_choice_figure
from colatent.scoring.tables import read_table
from colatent.store.atomic import building

w = snakemake.wildcards
with job(snakemake.log[0], f"latent_choice_figure {w.session} {w.model}"):
    figure = latent_choice_figure(read_table(snakemake.input.table), w.session, w.model)
    with building(snakemake.output.figure) as made:
        made.write_bytes(figure.png)
