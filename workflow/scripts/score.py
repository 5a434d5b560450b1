"""Score all fits of a model on what they did not see."""

from pathlib import Path

from colatent.analyses import analyse
from colatent.jobs.progress import job
from colatent.scoring.session import ScoreJob, score_session

w = snakemake.wildcards
with job(snakemake.log[0], f"score {w.session} {w.model}") as progress:
    scored = ScoreJob(
        session=Path(snakemake.input.session).parent,
        split=Path(snakemake.input.split).parent,
        fits=[Path(fit).parent for fit in snakemake.input.fits],
        table=Path(snakemake.output.scores),
        store=Path(snakemake.output.store).parent,
        head={"session": w.session, "model": w.model},
    )
    score_session(scored, analyse, progress)
