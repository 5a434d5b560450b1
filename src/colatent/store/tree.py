"""A tree of results on disk: what of it is stores, what are other files, and what is not its own."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from colatent.errors import InputError
from colatent.store.stores import MARKER

RECORD = "provenance.json"  # written last
PLAN = "logs/fits.json"  # written when the workflow starts


class Place(NamedTuple):
    """A folder below a tree of results.

    Attributes:
        path: the folder, below the root as given.
        is_store: whether it is one; then what lies in it is not walked through.
        files: names of the files in it that are not hidden, sorted.
    """

    path: Path
    is_store: bool
    files: tuple[str, ...]


def walk_results(root: str | Path) -> Iterator[Place]:
    """Yield the folders of a tree of results, links to folders followed.

    Left out are hidden folders (checkpoints, what is being built), and trees of results that lie
    inside this one: where the workflow left a plan or a record, it is theirs to tell what is there.

    Raises:
        InputError: a folder cannot be read.
    """
    yield from _below(Path(root), frozenset(), True)


def _below(folder: Path, parents: frozenset[str], is_root: bool = False) -> Iterator[Place]:
    real = os.path.realpath(folder)
    # a link to a folder above it would be followed for ever
    if real in parents or (not is_root and any((folder / name).is_file() for name in (RECORD, PLAN))):
        return
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        folders = [entry.name for entry in entries if entry.is_dir()]
        files = tuple(e.name for e in entries if e.is_file() and not e.name.startswith("."))
    except OSError as error:
        raise InputError(f"{folder}: cannot be read ({error.strerror})") from None
    is_store = "data.zarr" in folders or MARKER in files
    yield Place(folder, is_store, () if is_store else files)
    if not is_store:
        for name in folders:
            if not name.startswith("."):
                yield from _below(folder / name, parents | {real})
