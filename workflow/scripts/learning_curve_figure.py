"""Draw the table of a learning curve."""

from colatent.jobs.progress import job
from colatent.report.figures.learning_curve import learning_curve_figure
from colatent.scoring.tables import read_table
from colatent.store.atomic import atomically
from colatent.store.made_with import read_made_with

w = snakemake.wildcards
with job(snakemake.log[0], f"learning_curve_figure {w.session} {w.model}"):
    read_made_with(snakemake.input.made_with)
    figure = learning_curve_figure(read_table(snakemake.input.table), w.session, w.model)
    with atomically(snakemake.output.figure) as made:
        made.write_bytes(figure.png)
