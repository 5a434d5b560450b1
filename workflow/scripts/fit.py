"""Fit one model to the training trials of one fold."""

from pathlib import Path

from colatent.jobs.progress import job
from colatent.models.fitting import fit_fold
from colatent.store.session import read_fold, read_trials
from colatent.store.stores import identity, read_attrs

w = snakemake.wildcards
session, split, fit = (Path(f).parent for f in (*snakemake.input, *snakemake.output))
with job(snakemake.log[0], f"fit {w.session} {w.model} fold {w.fold} seed {w.seed}") as progress:
    trials, _ = read_trials(session)
    clip = snakemake.params.clip
    fit_fold(
        read_fold(trials, split, int(w.fold), int(w.seed), clip),
        model=snakemake.params.model,
        time_locked=read_attrs(session)["alignment"] == "trials",
        seed=int(w.seed),
        device=snakemake.params.device,
        threads=snakemake.threads,
        inputs={"session": identity(session), "split": identity(split), "fold": int(w.fold), "clip": clip},
        checkpoint=snakemake.params.checkpoint,
        output=fit,
        progress=progress,
    )
