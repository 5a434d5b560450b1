"""Score fits of one model to shares of the training trials and of the channels."""

from pathlib import Path

from colatent.jobs.progress import job
from colatent.scoring.learning_curve import learning_curve
from colatent.scoring.tables import write_table

w = snakemake.wildcards
with job(snakemake.log[0], f"learning_curve {w.session} {w.model}") as progress:
    table = learning_curve(
        Path(snakemake.input.session).parent,
        Path(snakemake.input.split).parent,
        snakemake.params.model,
        snakemake.params.curve,
        n_folds=snakemake.params.folds,
        stratify=snakemake.params.stratify,
        seed=snakemake.params.seed,
        device=snakemake.params.device,
        threads=snakemake.threads,
        clip=snakemake.params.clip,
        future=snakemake.params.future,
        head={"session": w.session, "model": w.model},
        progress=progress,
    )
    write_table(table, snakemake.output.table)
