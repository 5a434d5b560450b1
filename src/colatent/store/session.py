"""Sessions and splits as stores: what the stages after ingest read."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from colatent.data.splits import (
    TEST,
    TRAINING,
    clip_to_training,
)
from colatent.data.tasks import Withheld
from colatent.data.trials import Trials
from colatent.errors import InputError
from colatent.store.stores import (
    check_store,
    group_names,
    read_attrs,
    read_group,
)

if TYPE_CHECKING:  # most jobs read what was ingested, and need none of what reads NWB
    from colatent.ingest.session import IngestedSession

DIMS = ("trial", "time", "channel")
LATENT_DIMS = ("trial", "time", "latent")


def session_groups(ingested: "IngestedSession", truth_groups: list[str]) -> dict[str, xr.Dataset]:
    """Return the groups of a session's store; ``truth_groups`` are those of the true latents.

    What was not observed is NaN in the store, for whoever averages without looking at ``observed``.
    """
    trials: Trials = ingested.trials
    groups = {
        f"modality/{name}": xr.Dataset(
            {
                "value": (DIMS, trials.with_nan(name)),
                "observed": (DIMS, trials.observed[name]),
            },
            coords={"time": ("time", ingested.time, {"units": "s"}), "channel": list(trials.channels[name])},
            attrs={"kind": trials.kinds[name], "unit": ingested.units_of[name], **ingested.attrs[name]},
        )
        for name in trials.modalities
    }
    condition = {} if trials.condition is None else {"condition": ("trial", trials.condition)}
    groups["trials"] = xr.Dataset(_numeric_columns(ingested.trial_table), coords=condition)
    if ingested.truth is not None:
        values, observed, names = ingested.truth
        if len(names) != len(truth_groups):
            raise InputError(
                f"truth.groups has {len(truth_groups)} entries, but the series has {len(names)} columns; "
                "name the latent group of each column"
            )
        groups["truth"] = xr.Dataset(
            {"value": (LATENT_DIMS, values), "observed": (LATENT_DIMS, observed)},
            coords={"time": ingested.time, "group": ("latent", truth_groups)},
        )
    return groups


def _numeric_columns(table: pd.DataFrame) -> dict[str, tuple[str, NDArray, dict[str, str]]]:
    """Return the columns that hold numbers, under names that are safe as names of files.

    The file's own name stands in the attribute `name` where it had to be changed.
    """
    columns: dict[str, tuple[str, NDArray, dict[str, str]]] = {}
    for position, name in enumerate(map(str, table)):
        values = table.iloc[:, position].to_numpy()
        if values.dtype.kind not in "iufb":
            continue
        safe = re.sub(r"\W", "_", name, flags=re.ASCII)[:100]
        if safe in ("", "trial", "condition") or safe in columns:  # what is taken, or means something else
            safe = f"column_{position}"
        columns[safe] = ("trial", values, {} if safe == name else {"name": name})
    return columns


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
