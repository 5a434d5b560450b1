"""Score all fits of a model on what they did not see."""

from pathlib import Path

from colatent.jobs.progress import job
from colatent.scoring.session import score_session

with job(snakemake.log[0], f"score {snakemake.wildcards.session} {snakemake.wildcards.model}") as progress:
    score_session(
        session=Path(snakemake.input.session).parent,
        split=Path(snakemake.input.split).parent,
        fits=[Path(fit).parent for fit in snakemake.input.fits],
        clip=snakemake.params.clip,
        future=snakemake.params.future,
        table=snakemake.output.scores,
        store=Path(snakemake.output.store).parent,
        head={"session": snakemake.wildcards.session, "model": snakemake.wildcards.model},
        progress=progress,
    )
