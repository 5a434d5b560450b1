"""Fast validation of a recording against the config, before any job starts."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py

from colatent.ingest.alignment import trial_windows
from colatent.ingest.findings import Findings
from colatent.ingest.nwb import find, find_all, open_nwb
from colatent.ingest.series import check_names, kept_columns, keypoints, require_series
from colatent.ingest.spikes import require_units
from colatent.ingest.tables import scalar_columns, select_rows


def check_source(
    nwb: Path,
    alignment: Any,
    modalities: Mapping[str, Any],
    truth: str | None = None,
    checks: Mapping[str, str] | None = None,
) -> int | None:
    """Check that a file is NWB 2 and that everything the config names is in it, with data.

    Samples and spikes are not read: what depends on them is found out by the ingest itself.

    Args:
        nwb: the file.
        alignment, modalities, truth, checks: the sections of `colatent.config.Config`.

    Returns:
        The number of trials, or None for a recording without.

    Raises:
        InputError: one sentence; for a path that is missing, with the nearest that exist.
    """
    with open_nwb(nwb, allow_external=allows_external(checks)) as file:
        n_trials = None
        if hasattr(alignment, "intervals"):
            n_trials = trial_windows(file, alignment, Findings(str(nwb), checks or {}))[0].n_trials
        for config in modalities.values():
            _CHECKS[config.kind](file, config)
        if truth is not None:
            require_series(find(file, truth))
    return n_trials


def allows_external(checks: Mapping[str, str] | None) -> bool:
    """Return whether the config lets links lead out of the file."""
    return (checks or {}).get("external-link") == "warn"


def _check_spikes(file: h5py.File, config: Any) -> None:
    table = require_units(find(file, config.source))
    select_rows(table, scalar_columns(table), config.where)


def _check_continuous(file: h5py.File, config: Any) -> None:
    nodes = [require_series(node) for node in find_all(file, config.source)]
    n_channels = sum(len(kept_columns(node, config.columns)) for node in nodes)
    if config.channels is not None:
        check_names(config.channels, n_channels, nodes[0])


def _check_pose(file: h5py.File, config: Any) -> None:
    for node in keypoints(find(file, config.source), config.keypoints):
        require_series(node)


_CHECKS = {"spikes": _check_spikes, "continuous": _check_continuous, "pose": _check_pose}
