"""Is a recording still the one that a session's store was made from?"""

import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from colatent.errors import InputError
from colatent.store.fingerprint import code_fingerprint
from colatent.store.layout import MARKER, where
from colatent.store.stores import file_sha256, read_attrs

if TYPE_CHECKING:
    from colatent.ingest.check import Found


def is_made_from(store: str | Path, nwb: str | Path) -> bool:
    """Return whether a session's store was made from the file's present content.

    The content is read only if the file's modification time differs from that at ingest. A file that was
    merely touched, copied or restored therefore reruns nothing.
    """
    store, nwb = Path(store), Path(nwb)
    if not ((store / MARKER).is_file() and nwb.is_file()):
        return False
    try:
        attrs = read_attrs(store)
        source, modified = attrs["source"], attrs["volatile"]["nwb_modified_ns"]
        size, sha256 = source["size"], source["sha256"]
    except (InputError, OSError, KeyError, TypeError):
        return False
    stat = nwb.stat()
    if stat.st_size != size:
        return False
    return stat.st_mtime_ns == modified or _sha256(nwb, stat.st_mtime_ns) == sha256


def found_before(store: str | Path, nwb: str | Path, settings: dict[str, Any]) -> "Found | None":
    """Return what ingest found if it read the same file with the same settings and code, else None.

    Opening the files of a hundred sessions would take seconds each time the workflow starts.

    Args:
        store: of the session.
        settings: the sections of the config that ingest depends on.
    """
    if not is_made_from(store, nwb):
        return None
    attrs = read_attrs(store)
    if attrs["settings"] != settings or attrs["code"] != code_fingerprint("ingest"):
        return None
    from colatent.ingest.check import Found  # cluster jobs import this module, and need no NWB reader

    arrays = {m: Path(store) / f"data.zarr/modality/{m}/value/zarr.json" for m in attrs["modalities"]}
    shapes = {modality: json.loads(array.read_text())["shape"] for modality, array in arrays.items()}
    n_trials = next(iter(shapes.values()))[0] if attrs["alignment"] == "trials" else None
    return Found(n_trials, {modality: shape[2] for modality, shape in shapes.items()})


@cache
def _sha256(nwb: Path, modified: int) -> str:
    """Return the hash of a file, cached by modification time as Snakemake asks more than once."""
    return file_sha256(nwb)


def refuse_older(results: str | Path, recordings: Iterable[tuple[str, str | Path]]) -> None:
    """Raise InputError if a file was replaced by one older than the session ingested before.

    Snakemake compares modification times, and would keep the results of the previous file.

    Args:
        results: folder of the results.
        recordings: name and NWB file of each session.
    """
    for session, nwb in recordings:
        store, nwb = where(results, "ingest", "store", session=session), Path(nwb)
        marker = store / MARKER
        if not (nwb.is_file() and marker.is_file()) or is_made_from(store, nwb):
            continue
        if nwb.stat().st_mtime_ns <= marker.stat().st_mtime_ns:
            raise InputError(
                f"{nwb}: this is not the file that {store} was made from, but looks older than the store; "
                f"`touch {nwb}` to ingest it and redo what follows"
            )
