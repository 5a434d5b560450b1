"""Sessions and splits as stores: what the stages after ingest read."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from colatent.data.splits import TEST, TRAINING, clip_to_training
from colatent.data.tasks import Withheld
from colatent.data.trials import Trials
from colatent.store.stores import check_store, group_names, read_attrs, read_group


def read_trials(folder: str | Path) -> tuple[Trials, NDArray[np.float64]]:
    """Return the trials of a session's store and the time (s) of their bin centres."""
    check_store(folder)
    attrs = read_attrs(folder)
    names = [n.removeprefix("modality/") for n in group_names(folder) if n.startswith("modality/")]
    names.sort(key=attrs["modalities"].index)
    data = {name: read_group(folder, f"modality/{name}") for name in names}
    table = read_group(folder, "trials")
    trials = Trials(
        values={m: np.where(d["observed"].values, d["value"].values, 0.0) for m, d in data.items()},
        observed={m: d["observed"].values for m, d in data.items()},
        channels={m: tuple(map(str, d["channel"].values)) for m, d in data.items()},
        kinds={m: d.attrs["kind"] for m, d in data.items()},
        bin_width=float(attrs["bin_width"]),
        condition=table["condition"].values if "condition" in table.coords else None,
        time_locked=attrs["alignment"] == "trials",
    )
    return trials, next(iter(data.values()))["time"].values


class Fold(NamedTuple):
    """One fold of a session, for one seed.

    Attributes:
        training, test: the trials of each role, clipped by the training trials' percentiles.
        everything: all trials, clipped likewise.
        role: role (trial,) of each trial.
        withheld: what is kept from inference in the test trials.
        clip: modality -> percentiles of the training trials, beyond which values are clipped.
    """

    training: Trials
    test: Trials
    everything: Trials
    role: NDArray[np.int8]
    withheld: Withheld
    clip: Mapping[str, tuple[float, float]]


def read_fold(trials: Trials, split: str | Path, fold: int, seed: int | None) -> Fold:
    """Return the trials of one fold; no channels are hidden without a seed."""
    check_store(split)
    settings = read_attrs(split)["settings"]
    role = read_group(split, "split")["role"].values[fold]
    hidden = {
        name.removeprefix("hidden/"): read_group(split, name)["hidden"].sel(seed=seed).values[fold]
        for name in group_names(split)
        if name.startswith("hidden/") and seed is not None
    }
    clip = settings["clip"]
    everything = clip_to_training(trials, role == TRAINING, clip)
    training, test = (everything.select(role == r) for r in (TRAINING, TEST))
    # read-outs are fitted for the withheld time, so that another share of it makes other fits
    withheld = Withheld.of(trials, hidden, settings["heldout"]["time"])
    return Fold(training, test, everything, role, withheld, clip)
