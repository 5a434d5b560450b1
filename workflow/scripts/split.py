"""Decide which trials and channels each fold holds out."""

from pathlib import Path

from colatent.data.splits import make_split
from colatent.jobs.progress import job
from colatent.store.made_with import read_made_with
from colatent.store.provenance import provenance
from colatent.store.session import read_trials
from colatent.store.stores import identity, write_store

with job(snakemake.log[0], f"split {snakemake.wildcards.session}") as progress:
    settings = read_made_with(snakemake.input.made_with)
    session = Path(snakemake.input.session).parent
    trials, _ = read_trials(session)
    heldout = settings["heldout"]
    groups = make_split(
        trials,
        folds=heldout["folds"],
        stratify=heldout["stratify"] is not None,
        channels=heldout["channels"],
        seeds=heldout["seeds"],
        guard=heldout["guard"],
    )
    attrs = provenance("split", settings, {"session": identity(session)})
    write_store(Path(snakemake.output.split).parent, groups, attrs)
