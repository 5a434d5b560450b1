"""An ingested session as the groups of its store."""

import re

import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from colatent.errors import InputError
from colatent.ingest.session import IngestedSession

DIMS = ("trial", "time", "channel")
LATENT_DIMS = ("trial", "time", "latent")


def session_groups(ingested: IngestedSession, truth_groups: list[str]) -> dict[str, xr.Dataset]:
    """Return the groups of a session's store; ``truth_groups`` are those of the true latents.

    Values not observed are NaN in the store, so that averages skip them even if ``observed`` is ignored.
    """
    trials = ingested.trials
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
    """Return the numeric columns, under names that are safe as file names.

    If a name had to be changed, the attribute `name` keeps the original.
    """
    columns: dict[str, tuple[str, NDArray, dict[str, str]]] = {}
    for position, name in enumerate(map(str, table)):
        values = table.iloc[:, position].to_numpy()
        if values.dtype.kind not in "iufb":
            continue
        safe = re.sub(r"\W", "_", name, flags=re.ASCII)[:100]
        if safe in ("", "trial", "condition") or safe in columns:  # taken already, or with another meaning
            safe = f"column_{position}"
        columns[safe] = ("trial", values, {} if safe == name else {"name": name})
    return columns
