"""Score all fits of a model on what they did not see."""

from colatent.progress import job
from colatent.scoring.session import score_session

with job(snakemake.log[0], f"score {snakemake.wildcards.session} {snakemake.wildcards.model}") as progress:
    score_session(
        session=snakemake.input.session,
        split=snakemake.input.split,
        fits=list(snakemake.input.fits),
        clip=snakemake.params.clip,
        table=snakemake.output.scores,
        store=snakemake.output.store,
        head={"session": snakemake.wildcards.session, "model": snakemake.wildcards.model},
        progress=progress,
    )
