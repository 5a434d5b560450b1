"""Score all fits of a model on what they did not see."""

from pathlib import Path

from colatent.analyses import analyse
from colatent.jobs.progress import job
from colatent.scoring.session import ScoreJob, score_session
from colatent.store.made_with import read_made_with

w = snakemake.wildcards
with job(snakemake.log[0], f"score {w.session} {w.model}") as progress:
    read_made_with(snakemake.input.made_with)  # of settings it has none: the code is what counts
    scored = ScoreJob(
        session=Path(snakemake.input.session).parent,
        split=Path(snakemake.input.split).parent,
        fits=[Path(fit).parent for fit in snakemake.input.fits],
        table=Path(snakemake.output.scores),
        store=Path(snakemake.output.store).parent,
        head={"session": w.session, "model": w.model},
    )
    score_session(scored, analyse, progress)
