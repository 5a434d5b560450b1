"""Fit one model to the training trials of one fold."""

from pathlib import Path

from pydantic import TypeAdapter

from colatent.config import Model
from colatent.jobs.progress import job
from colatent.models.fitting import FitJob, fit_fold
from colatent.models.registry import model_class
from colatent.store.made_with import read_made_with
from colatent.store.session import read_fold, read_trials
from colatent.store.stores import identity

w = snakemake.wildcards
session, split, fit = (
    Path(f).parent for f in (snakemake.input.session, snakemake.input.split, snakemake.output.fit)
)
settings = read_made_with(snakemake.input.made_with)
model = TypeAdapter(Model).validate_python(settings["model"])
cls = model_class(model)  # loaded before waiting for a GPU: code may be edited meanwhile
with job(snakemake.log[0], f"fit {w.session} {w.model} fold {w.fold} seed {w.seed}") as progress:
    trials, _ = read_trials(session)
    fit_fold(
        cls,
        read_fold(trials, split, int(w.fold), int(w.seed)),
        FitJob(
            settings=model,
            seed=int(w.seed),
            device=settings["device"],
            threads=snakemake.threads,
            inputs={"session": identity(session), "split": identity(split), "fold": int(w.fold)},
            checkpoint=Path(snakemake.params.checkpoint),
            output=fit,
            progress=progress,
        ),
    )
