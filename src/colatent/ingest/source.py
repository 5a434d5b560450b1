"""Is a recording still the one that a session's store was made from?"""

import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from colatent.errors import InputError
from colatent.store.fingerprint import code_fingerprint
from colatent.store.layout import MARKER
from colatent.store.stores import file_sha256, read_attrs

if TYPE_CHECKING:
    from colatent.ingest.check import Found


def is_made_from(store: str | Path, nwb: str | Path) -> bool:
    """Return whether a session's store was made from this very content of the file.

    The content is only read where the time of the file's last change is another than at ingest, so
    that a file which was touched, copied or restored does not redo everything behind it.
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
    """Return what ingest found, if this very file, settings and code were ingested; else None.

    Looking into the files of a hundred sessions takes seconds each time the workflow starts.

    Args:
        store: of the session.
        settings: the sections of the config that ingest depends on.
    """
    if not is_made_from(store, nwb):
        return None
    attrs = read_attrs(store)
    if attrs["settings"] != settings or attrs["code"] != code_fingerprint("ingest"):
        return None
    from colatent.ingest.check import Found  # jobs of a cluster read this file, and need no reader of NWB

    arrays = {m: Path(store) / f"data.zarr/modality/{m}/value/zarr.json" for m in attrs["modalities"]}
    shapes = {modality: json.loads(array.read_text())["shape"] for modality, array in arrays.items()}
    n_trials = next(iter(shapes.values()))[0] if attrs["alignment"] == "trials" else None
    return Found(n_trials, {modality: shape[2] for modality, shape in shapes.items()})


@cache
def _sha256(nwb: Path, modified: int) -> str:
    """Hash of a file, which is read once for each time of its last change: Snakemake asks more than once."""
    return file_sha256(nwb)


def refuse_older(results: str | Path, recordings: Iterable[tuple[str, str | Path]]) -> None:
    """Raise InputError where a file was replaced by one that looks older than the session made from it.

    Snakemake goes by times, and would keep what was made from the file before.

    Args:
        results: folder of the results.
        recordings: name of the session, and its NWB file.
    """
    for session, nwb in recordings:
        store, nwb = Path(results) / session / "session", Path(nwb)
        marker = store / MARKER
        if not (nwb.is_file() and marker.is_file()) or is_made_from(store, nwb):
            continue
        if nwb.stat().st_mtime_ns <= marker.stat().st_mtime_ns:
            raise InputError(
                f"{nwb}: this is another file than {store} was made from, though it is older; "
                f"`touch {nwb}` to ingest it and redo what follows"
            )
