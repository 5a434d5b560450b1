"""Put the scores of all sessions and models into one table."""

from pathlib import Path

from colatent.jobs.progress import job
from colatent.scoring.tables import join_scores

with job(snakemake.log[0], "scores") as progress:
    join_scores(
        tables=[path for path in snakemake.input if path.endswith(".csv")],
        stores=[Path(store).parent for store in snakemake.input.stores],
        folder=Path(snakemake.output.scores).parent,
    )
