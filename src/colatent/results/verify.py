"""Is all of a tree of results as it was written?"""

from pathlib import Path
from typing import Any, NamedTuple

from colatent.errors import InputError
from colatent.results.manifest import claims, read_record
from colatent.store.layout import MARKER, RECORD, tracked, walk_results
from colatent.store.stores import (
    DamagedStoreError,
    NewerFormatError,
    check_store,
    file_sha256,
    identity,
    read_attrs,
)


class Damage(NamedTuple):
    """One output that is not as it was written.

    Attributes:
        target: the file that Snakemake makes anew when told so; None where it cannot or must not.
        sentence: what is wrong.
    """

    target: Path | None
    sentence: str


class Verification(NamedTuple):
    """What was found.

    Attributes:
        damages: what is not as it was written.
        looked_at: number of stores and files.
        unknown: stores that lie there, but are not in the record: nothing can be told of them.
    """

    damages: list[Damage]
    looked_at: int
    unknown: list[Path]


def verify(results: str | Path) -> Verification:
    """Look at all that the record of a tree of results names.

    Args:
        results: folder of the results.

    Raises:
        InputError: no such folder, or no record in it.
    """
    root = Path(results)
    if not root.is_dir():
        raise InputError(f"{root}: there is no such folder; give the folder of results")
    record = read_record(root)
    stores, files = record["stores"], record["files"]
    found = [
        *(_damage_of_store(root / name, root / RECORD, recorded) for name, recorded in stores.items()),
        *(_damage_of_file(root, name, checksum) for name, checksum in files.items()),
    ]
    known = {root / name for name in stores}
    unknown = [place.path for place in walk_results(root) if place.is_store and place.path not in known]
    return Verification([damage for damage in found if damage], len(found), unknown)


def _damage_of_file(root: Path, name: str, checksum: str) -> Damage | None:
    file = root / name
    try:
        if not file.is_file():
            return Damage(_target(root, name), f"{file}: the file is missing")
        if file_sha256(file) != checksum:
            return Damage(_target(root, name), f"{file}: the file is not as it was written")
    except OSError as error:
        return Damage(_target(root, name), f"{file}: cannot be read ({error.strerror})")
    return None


def _damage_of_store(folder: Path, record: Path, recorded: dict[str, Any]) -> Damage | None:
    """Return what is wrong with one store, measured by itself and by what was recorded of it."""
    target = folder / MARKER
    try:
        check_store(folder)
        attrs = read_attrs(folder)
    except NewerFormatError as error:
        return Damage(None, str(error))
    except DamagedStoreError as error:
        return Damage(target, error.finding)
    except OSError as error:
        return Damage(target, f"{error.filename}: cannot be read ({error.strerror})")
    if identity(folder) != recorded["identity"]:
        return Damage(target, f"{folder}: another store than was recorded")
    if {key: value for key, value in recorded.items() if key != "identity"} != claims(attrs):
        return Damage(record, f"{folder}: the record says of it what it does not say itself")
    return None


def _target(root: Path, name: str) -> Path:
    """Return what Snakemake makes again: a figure comes with its page, a further table with the scores."""
    return root / tracked(name)
