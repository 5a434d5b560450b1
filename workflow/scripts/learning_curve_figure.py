"""Draw the table of a learning curve."""

from colatent.building import building
from colatent.progress import job
from colatent.report.figure_learning_curve import learning_curve_figure
from colatent.scoring.tables import read_table

w = snakemake.wildcards
with job(snakemake.log[0], f"learning_curve_figure {w.session} {w.model}"):
    figure = learning_curve_figure(read_table(snakemake.input.table), w.session, w.model)
    with building(snakemake.output.figure) as made:
        made.write_bytes(figure.png)
