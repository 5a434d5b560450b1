"""Trials as a store of a session, for what reads one."""

from pathlib import Path

import numpy as np
import xarray as xr

from colatent.provenance import provenance
from colatent.store import write_store
from colatent.trials import Trials


def write_session(folder: Path, trials: Trials, time: np.ndarray) -> None:
    dims = ("trial", "time", "channel")
    groups = {
        f"modality/{m}": xr.Dataset(
            {"value": (dims, trials.with_nan(m)), "observed": (dims, trials.observed[m])},
            coords={"time": time, "channel": list(trials.channels[m])},
            attrs={"kind": trials.kinds[m]},
        )
        for m in trials.modalities
    }
    groups["trials"] = xr.Dataset(coords={"condition": ("trial", trials.condition)})
    attrs = {"bin_width": trials.bin_width, "alignment": "trials", "modalities": list(trials.modalities)}
    write_store(folder, groups, provenance("ingest", {}, {}) | attrs)
