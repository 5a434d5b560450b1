"""Score all fits of a model on what they did not see."""

from pathlib import Path

from colatent.jobs.progress import job
from colatent.scoring.session import score_session
from colatent.store.made_with import read_made_with
from colatent.store.stores import read_attrs

w = snakemake.wildcards
with job(snakemake.log[0], f"score {w.session} {w.model}") as progress:
    read_made_with(snakemake.input.made_with)
    split = Path(snakemake.input.split).parent
    heldout = read_attrs(split)["settings"]
    score_session(
        session=Path(snakemake.input.session).parent,
        split=split,
        fits=[Path(fit).parent for fit in snakemake.input.fits],
        clip=heldout["clip"],
        future=heldout["heldout"]["time"],
        table=snakemake.output.scores,
        store=Path(snakemake.output.store).parent,
        head={"session": w.session, "model": w.model},
        progress=progress,
    )
