"""Fast validation of a recording against the config, before any job starts."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import h5py

from colatent.config.location import shown
from colatent.errors import InputError
from colatent.ingest.alignment import trial_windows
from colatent.ingest.findings import Findings
from colatent.ingest.modalities.base import ChannelInFile, reader_of
from colatent.ingest.nwb.file import find, open_nwb, readable, same_object
from colatent.ingest.signals.series import require_series


class Found(NamedTuple):
    """What was found in a file.

    Attributes:
        n_trials: number of trials, or None for a recording without.
        n_channels: modality -> number of selected channels; ingest may drop some.
        paths: of the objects that hold them, and of the table of trials.
    """

    n_trials: int | None
    n_channels: dict[str, int]
    paths: frozenset[str] = frozenset()


def check_source(
    nwb: str | Path,
    alignment: Any,
    modalities: Mapping[str, Any],
    truth: str | None = None,
    checks: Mapping[str, str] | None = None,
) -> Found:
    """Check that a file is NWB 2 and that everything the config names is in it, with data.

    Samples and spikes are not read: problems in them surface at ingest.

    Args:
        nwb: the file, or a URL (text such as https://…).
        alignment, modalities, truth, checks: the sections of `colatent.config.Config`.

    Raises:
        InputError: in one sentence, which suggests the nearest existing paths if one is missing.
    """
    with readable(nwb), open_nwb(nwb, allow_external=allows_external(checks)) as file:
        findings = Findings(shown(nwb), checks or {})
        n_trials, nodes = None, set()
        if alignment.has_trials:
            n_trials = trial_windows(file, alignment, findings)[0].n_trials
            nodes.add(find(file, alignment.intervals))
        channels = {name: reader_of(config).select(file, config) for name, config in modalities.items()}
        _refuse_shared(file, channels)
        if truth is not None:
            require_series(find(file, truth))
        nodes.update(node for found in channels.values() for node, _ in found)
        paths = frozenset(str(node.name) for node in nodes)
    return Found(n_trials, {name: len(found) for name, found in channels.items()}, paths)


def _refuse_shared(file: h5py.File, channels: Mapping[str, list[ChannelInFile]]) -> None:
    """Raise InputError if a channel is in two modalities: it would be predicted from itself."""
    owner: dict[tuple[int, int, int], str] = {}
    for name, own in channels.items():
        for node, column in own:
            channel = (*same_object(node), column)
            if channel in owner:
                other = owner[channel]
                where = f"two modalities, {other} and {name}" if other != name else f"{name} twice, by a link"
                raise InputError(
                    f"{file.filename}: {str(node.name).strip('/')}: a channel is in {where}, and would be "
                    "predicted from itself; give each its own source, columns or `where`"
                )
            owner[channel] = name


def allows_external(checks: Mapping[str, str] | None) -> bool:
    """Return whether the config lets links lead out of the file."""
    return (checks or {}).get("external-link") == "warn"
