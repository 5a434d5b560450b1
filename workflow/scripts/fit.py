"""Fit one model to the training trials of one fold."""

from pathlib import Path

from colatent.jobs.progress import job
from colatent.models.fitting import fit_fold
from colatent.store.made_with import read_made_with
from colatent.store.session import read_fold, read_trials
from colatent.store.stores import identity, read_attrs

w = snakemake.wildcards
session, split, fit = (
    Path(f).parent for f in (snakemake.input.session, snakemake.input.split, snakemake.output.fit)
)
with job(snakemake.log[0], f"fit {w.session} {w.model} fold {w.fold} seed {w.seed}") as progress:
    settings = read_made_with(snakemake.input.made_with)
    trials, _ = read_trials(session)
    clip = read_attrs(split)["settings"]["clip"]
    fit_fold(
        read_fold(trials, split, int(w.fold), int(w.seed), clip),
        model=settings["model"],
        time_locked=read_attrs(session)["alignment"] == "trials",
        seed=int(w.seed),
        device=settings["device"],
        threads=snakemake.threads,
        inputs={"session": identity(session), "split": identity(split), "fold": int(w.fold)},
        checkpoint=snakemake.params.checkpoint,
        output=fit,
        progress=progress,
    )
