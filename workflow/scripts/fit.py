"""Fit one model to the training trials of one fold."""

from colatent.fitting import fit_fold
from colatent.progress import job
from colatent.session import read_fold, read_trials
from colatent.store import read_attrs

w = snakemake.wildcards
with job(snakemake.log[0], f"fit {w.session} {w.model} fold {w.fold} seed {w.seed}") as progress:
    trials, _ = read_trials(snakemake.input.session)
    clip = snakemake.params.clip
    fit_fold(
        read_fold(trials, snakemake.input.split, int(w.fold), int(w.seed), clip),
        model=snakemake.params.model,
        time_locked=read_attrs(snakemake.input.session)["alignment"] == "trials",
        seed=int(w.seed),
        device=snakemake.params.device,
        threads=snakemake.threads,
        inputs={"session": str(snakemake.input.session), "fold": int(w.fold), "clip": clip},
        checkpoint=snakemake.params.checkpoint,
        output=snakemake.output.fit,
        progress=progress,
    )
