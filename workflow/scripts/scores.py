"""Put the scores of all sessions and models into one table."""

from pathlib import Path

from colatent.jobs.progress import job
from colatent.scoring.tables import join_scores
from colatent.store.made_with import read_made_with

with job(snakemake.log[0], "scores") as progress:
    read_made_with(snakemake.input.made_with)
    join_scores(
        tables=list(snakemake.input.tables),
        stores=[Path(store).parent for store in snakemake.input.stores],
        folder=Path(snakemake.output.scores).parent,
    )
