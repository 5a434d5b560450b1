"""Score fits of one model to shares of the training trials and of the channels."""

from pathlib import Path

from pydantic import TypeAdapter

from colatent.config import LearningCurve, Model
from colatent.jobs.progress import job
from colatent.scoring.learning_curve import Recipe, learning_curve
from colatent.scoring.tables import write_table

w, params = snakemake.wildcards, snakemake.params
with job(snakemake.log[0], f"learning_curve {w.session} {w.model}") as progress:
    recipe = Recipe(
        settings=TypeAdapter(Model).validate_python(params.model),
        curve=LearningCurve.model_validate(params.curve),
        stratify=params.stratify,
        seed=params.seed,
        device=params.device,
        progress=progress,
    )
    table = learning_curve(
        Path(snakemake.input.session).parent,
        Path(snakemake.input.split).parent,
        recipe,
        n_folds=params.folds,
        threads=snakemake.threads,
        head={"session": w.session, "model": w.model},
    )
    write_table(table, snakemake.output.table)
