"""Score fits of one model to shares of the training trials and of the channels."""

from pathlib import Path

from colatent.jobs.progress import job
from colatent.scoring.learning_curve import learning_curve
from colatent.scoring.tables import write_table
from colatent.store.made_with import read_made_with
from colatent.store.stores import read_attrs

w = snakemake.wildcards
with job(snakemake.log[0], f"learning_curve {w.session} {w.model}") as progress:
    settings = read_made_with(snakemake.input.made_with)
    split = Path(snakemake.input.split).parent
    heldout = read_attrs(split)["settings"]
    table = learning_curve(
        Path(snakemake.input.session).parent,
        split,
        settings["model"],
        settings["curve"],
        n_folds=settings["folds"],
        stratify=settings["stratify"],
        seed=settings["seed"],
        device=settings["device"],
        threads=snakemake.threads,
        clip=heldout["clip"],
        future=heldout["heldout"]["time"],
        head={"session": w.session, "model": w.model},
        progress=progress,
    )
    write_table(table, snakemake.output.table)
