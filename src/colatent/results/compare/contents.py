"""What lies in a result tree: its stores and files, each with its stage, session and model."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from colatent.results.compare.plain import plain
from colatent.errors import InputError
from colatent.store.stores import check_store
from colatent.store.layout import Place, walk_results

# in the order of the pipeline; the first two belong to a session, the others to one of its models
SESSION_STAGES = ("ingest", "split")
ON_REQUEST = ("latent choice", "learning curve")
MODEL_STAGES = ("fit", "score", *ON_REQUEST, "export")
TABLES, FILES = "tables", "other files"
STAGES = (*SESSION_STAGES, *MODEL_STAGES, TABLES, FILES)
_PLACES = {
    "ingest": r"(?:(?P<session>.+)/)?session",
    "split": r"(?:(?P<session>.+)/)?split",
    "fit": r"(?:(?P<session>.+)/)?fit/(?P<model>[^/]+)/[^/]+",
    "score": r"(?:(?P<session>.+)/)?score/(?P<model>[^/]+?)(?:\.csv)?",
    "latent choice": r"(?:(?P<session>.+)/)?latent_choice/(?P<model>[^/]+?)(?:\.csv)?",
    "learning curve": r"(?:(?P<session>.+)/)?learning_curve/(?P<model>[^/]+?)(?:\.csv)?",
    "export": r"(?:(?P<session>.+)/)?latents/(?P<model>[^/.]+)(?:\.nwb)?",
}


class Item(NamedTuple):
    """A store or a file: the stage that made it, of which session and model ("" for all), its path."""

    stage: str
    session: str
    model: str
    path: str

    @classmethod
    def at(cls, path: str) -> "Item":
        """Return the item of a path below the tree."""
        for stage, pattern in _PLACES.items():
            if found := re.fullmatch(pattern, path):
                return cls(stage, found["session"] or "", found.groupdict().get("model", ""), path)
        return cls(TABLES if path.endswith(".csv") else FILES, "", "", path)

    @property
    def order(self) -> tuple[int, str]:
        return STAGES.index(self.stage), self.path


@dataclass(frozen=True)
class Tree:
    """A result tree.

    Attributes:
        stores, tables, exports: paths below the folder; exports are NWB files.
        others: paths of all other files.
    """

    folder: Path
    stores: frozenset[str]
    tables: frozenset[str]
    exports: frozenset[str]
    others: frozenset[str]

    @property
    def expected(self) -> frozenset[str]:
        """Other files that every run leaves: no logs, nor what is only made on request."""
        return frozenset(path for path in self.others if not _is_log(path) and not _is_on_request(path))


def _is_log(path: str) -> bool:
    return path.startswith("logs/") or path.endswith(".log")


def _is_on_request(path: str) -> bool:
    return path.endswith(".png") and Item.at(path).stage in ON_REQUEST


def _is_export(path: str) -> bool:
    return path.endswith(".nwb") and Item.at(path).stage == "export"


def read_tree(folder: Path) -> Tree:
    """Find the stores and files below a folder, and check the stores.

    Hidden folders (checkpoints, what is being built) and trees of results inside this one are left out.

    Raises:
        InputError: there is no such folder, no store in it, or one of them is damaged or incomplete.
    """
    if not folder.is_dir():
        raise InputError(f"{plain(folder)}: there is no such folder")
    stores, files = set(), set()
    for place in _places(folder):
        name = place.path.relative_to(folder)
        if place.is_store:
            stores.add(name.as_posix())
        files |= {(name / f).as_posix() for f in place.files}
    if not stores:
        raise InputError(
            f"{plain(folder)}: no store in this folder; name one that a config has under `results`"
        )
    if "." in stores:
        raise InputError(f"{plain(folder)}: is a single store; name the folder of results that it belongs to")
    for store in sorted(stores):
        _check(folder / store)
    tables = frozenset(path for path in files if path.endswith(".csv"))
    exports = frozenset(filter(_is_export, files))
    return Tree(folder, frozenset(stores), tables, exports, frozenset(files) - tables - exports)


def _places(folder: Path) -> list[Place]:
    try:
        return list(walk_results(folder))
    except InputError as error:  # it names folders of the tree
        raise InputError(plain(error)) from None


def _check(store: Path) -> None:
    try:
        check_store(store)
    except InputError as error:  # it names files that the store names
        raise InputError(plain(error)) from None
    except OSError as error:
        raise InputError(f"{plain(error.filename)}: cannot be read ({error.strerror})") from None
