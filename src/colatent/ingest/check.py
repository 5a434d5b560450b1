"""Fast validation of a recording against the config, before any job starts."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py

from colatent.ingest.nwb import find, find_all, open_nwb
from colatent.ingest.series import keypoints, require_series
from colatent.ingest.spikes import require_units
from colatent.ingest.tables import column


def check_source(
    nwb: Path,
    alignment: Any,
    modalities: Mapping[str, Any],
    truth: str | None = None,
    checks: Mapping[str, str] | None = None,
) -> None:
    """Check that a file is NWB 2 and that everything the config names is in it, with data.

    Args:
        nwb: the file.
        alignment, modalities, truth, checks: the sections of `colatent.config.Config`.

    Raises:
        InputError: one sentence; for a path that is missing, with the nearest that exist.
    """
    with open_nwb(nwb, allow_external=allows_external(checks)) as file:
        if hasattr(alignment, "intervals"):
            table = find(file, alignment.intervals)
            stop = None if alignment.window else alignment.stop
            for name in (alignment.start, stop, alignment.condition):
                if name is not None:
                    column(table, name)
        for config in modalities.values():
            _CHECKS[config.kind](file, config)
        if truth is not None:
            require_series(find(file, truth))


def allows_external(checks: Mapping[str, str] | None) -> bool:
    """Return whether the config lets links lead out of the file."""
    return (checks or {}).get("external-link") == "warn"


def _check_spikes(file: h5py.File, config: Any) -> None:
    require_units(find(file, config.source))


def _check_continuous(file: h5py.File, config: Any) -> None:
    for node in find_all(file, config.source):
        require_series(node)


def _check_pose(file: h5py.File, config: Any) -> None:
    for node in keypoints(find(file, config.source), config.keypoints):
        require_series(node)


_CHECKS = {"spikes": _check_spikes, "continuous": _check_continuous, "pose": _check_pose}
