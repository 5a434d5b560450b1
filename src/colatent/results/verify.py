"""Is all of a tree of results as it was written?"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from colatent.errors import InputError
from colatent.results.manifest import claims, config_of, read_record
from colatent.store.checksums import check_file
from colatent.store.layout import CONFIG, MARKER, RECORD, tracked, walk_results
from colatent.store.stores import DamagedStoreError, NewerFormatError, check_store, identity, read_attrs


class Damage(NamedTuple):
    """One output that is not as it was written.

    Attributes:
        target: the file that Snakemake is to redo; None where it cannot or must not.
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

    Raises:
        InputError: no such folder, or no record in it.
    """
    root = Path(results)
    if not root.is_dir():
        raise InputError(f"{root}: there is no such folder; give the folder of results")
    record = read_record(root)
    stores = {root / name: recorded for name, recorded in record["stores"].items()}
    damages = []
    for folder, recorded in stores.items():
        if damage := _damage(folder / MARKER, _check_recorded, folder, recorded):
            damages.append(damage)
        elif recorded != {"identity": recorded["identity"], **claims(read_attrs(folder))}:
            said = f"{folder}: the record says of it what it does not say itself"
            damages.append(Damage(root / RECORD, said))
    if config_of(root) != record["config"]:
        said = f"{root / CONFIG}: not the config that is in the record"
        damages.append(Damage(root / RECORD, said))
    files = record["files"]
    found = (_damage(root / tracked(name), check_file, root / name, files[name], root) for name in files)
    damages += filter(None, found)
    unknown = [place.path for place in walk_results(root) if place.is_store and place.path not in stores]
    return Verification(damages, len(stores) + len(files), unknown)


def _check_recorded(folder: Path, recorded: dict[str, Any]) -> None:
    check_store(folder)
    if identity(folder) != recorded.get("identity"):
        raise DamagedStoreError(folder, "another store than was recorded")


def _damage(target: Path, check: Callable[..., None], *arguments: Any) -> Damage | None:
    """Return what a check finds; a figure comes with its page, a further table with the scores."""
    try:
        check(*arguments)
    except NewerFormatError as error:
        return Damage(None, str(error))
    except DamagedStoreError as error:
        return Damage(target, error.finding)
    except OSError as error:
        return Damage(target, f"{error.filename}: cannot be read ({error.strerror})")
    return None
