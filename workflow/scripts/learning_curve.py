"""Score fits of one model to shares of the training trials and channels."""

from pathlib import Path

from pydantic import TypeAdapter

from colatent.config import LearningCurve, Model
from colatent.jobs.progress import job
from colatent.scoring.learning_curve import Recipe, learning_curve
from colatent.scoring.tables import write_table
from colatent.store.made_with import read_made_with

w = snakemake.wildcards
with job(snakemake.log[0], f"learning_curve {w.session} {w.model}") as progress:
    settings = read_made_with(snakemake.input.made_with)
    recipe = Recipe(
        settings=TypeAdapter(Model).validate_python(settings["model"]),
        curve=LearningCurve.model_validate(settings["curve"]),
        stratify=settings["stratify"],
        seed=settings["seed"],
        device=settings["device"],
        progress=progress,
    )
    table = learning_curve(
        Path(snakemake.input.session).parent,
        Path(snakemake.input.split).parent,
        recipe,
        n_folds=settings["folds"],
        threads=snakemake.threads,
        head={"session": w.session, "model": w.model},
    )
    write_table(table, snakemake.output.table)
