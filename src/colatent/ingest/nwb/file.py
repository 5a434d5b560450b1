"""Open NWB 2 files safely and find objects in them by path.

The HDF5 layout of NWB 2 is read directly: only the parts asked for are read, extensions need not be
installed, and no other file is opened.
"""

import difflib
import fnmatch
import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np

from colatent.config.location import is_url, shown
from colatent.errors import InputError
from colatent.ingest.nwb.remote import RemoteFile, open_remote

# HDF5's default of 1 MiB would decompress a large chunk again for every unit or trial in it.
CHUNK_CACHE_BYTES = 64 * 2**20
_SPECIFICATIONS = "specifications"


@contextmanager
def readable(path: str | Path) -> Iterator[None]:
    """Turn what h5py raises on damaged or odd content into one sentence."""
    try:
        yield
    except (InputError, MemoryError):
        raise
    except Exception as error:
        if not _raised_in_h5py(error):  # our own errors must stay visible
            raise
        what = f"{type(error).__name__}: {error}".splitlines()[0]
        raise InputError(
            f"{shown(path)}: the file is damaged, or laid out as NWB 2 does not allow ({what}); copy it "
            "again, or check it with nwbinspector"
        ) from error


def _raised_in_h5py(error: Exception) -> bool:
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return str(frame.f_globals.get("__name__", "")).partition(".")[0] == "h5py"


@contextmanager
def open_nwb(path: str | Path, allow_external: bool = False) -> Iterator[h5py.File]:
    """Open an NWB 2 file for reading.

    Args:
        path: the file, or a URL (text such as https://…), which is streamed.
        allow_external: whether links and datasets may lead to other files.

    Raises:
        InputError: no such file, a server that cannot be reached, not HDF5, truncated, not NWB,
            NWB 1.x, or, unless allowed, a part that lies in another file; and, while it is open, a
            part that is damaged.
    """
    with _open_hdf5(path) as file:
        _require_nwb2(file)
        links = _links(file)
        _refuse_loops(file, links)
        if not allow_external and (found := external_part(file, links)):
            raise InputError(
                f"{shown(path)}: {found}, which is not followed; copy the file with its links resolved, "
                "or set `checks: {external-link: warn}` if you trust it"
            )
        try:
            yield file
        except OSError as error:  # such as a chunk that cannot be decompressed
            raise InputError(
                f"{shown(path)}: a part of it cannot be read ({error}); the file is damaged: copy it again"
            ) from error


@contextmanager
def _open_hdf5(path: str | Path) -> Iterator[h5py.File]:
    name = shown(path)
    if name.rstrip("/").endswith(".zarr") or (not is_url(path) and Path(path).is_dir()):
        raise InputError(
            f"{name}: NWB-Zarr is not read here; export it to HDF5 with hdmf-zarr "
            "(`pip install hdmf-zarr` on Python 3.12: NWBHDF5IO.export)"
        )
    if is_url(path):
        with open_remote(str(path)) as remote, _hdf5(remote, name) as file:
            yield file
        return
    if not Path(path).is_file():
        raise InputError(f"{name}: there is no such file; check the nwb column of the sessions table")
    with _hdf5(path, name) as file:
        yield file


def _hdf5(content: str | Path | RemoteFile, name: str) -> h5py.File:
    try:
        return h5py.File(content, "r", rdcc_nbytes=CHUNK_CACHE_BYTES)
    except OSError as error:
        # h5py may have opened the file before it failed. If the error's frames kept it, HDF5 would close
        # it only at exit, calling into a Python that is gone.
        traceback.clear_frames(error.__traceback__)
        if isinstance(content, RemoteFile) and content.failure is not None:
            raise
        if "truncated" in str(error):
            raise InputError(
                f"{name}: the file is truncated (shorter than its header says); copy or download it again"
            ) from error
        raise InputError(
            f"{name}: not an HDF5 file that can be opened ({error}); give an NWB 2 file"
        ) from error


def _require_nwb2(file: h5py.File) -> None:
    version = nwb_version(file)
    if not version:
        raise InputError(f"{file.filename}: the root names no nwb_version; give an NWB 2 file")
    if version.split(".")[0] != "2":
        raise InputError(
            f"{file.filename}: this is NWB {version} and only NWB 2 is read; convert it to NWB 2 with pynwb"
        )


def nwb_version(file: h5py.File) -> str:
    """Return the version as the file states it, or an empty string (NWB 1 keeps it in a dataset)."""
    version = file.attrs.get("nwb_version")
    if version is None and isinstance(file.get("nwb_version"), h5py.Dataset):
        version = file["nwb_version"][()]
    return "" if version is None else text(version).removeprefix("NWB-")


def text(value: object) -> str:
    """Return an HDF5 string (bytes, str, or an array that holds one) as str."""
    if isinstance(value, h5py.Empty):
        return ""
    item = np.asarray(value).ravel()
    first = item[0] if item.size else ""
    if not isinstance(first, bytes):  # h5py's own reading leaves undecodable bytes as surrogates
        first = str(first).encode("utf-8", "surrogateescape")
    # not "replace", which would map different bytes to the same text
    return first.decode("utf-8", "backslashreplace")


class _Link(NamedTuple):
    """A link of a file: its name, its type, and the address of the object if it is a hard link."""

    name: bytes
    type: int
    address: int | None


def _links(file: h5py.File) -> list[_Link]:
    """Return every link; each object is entered once.

    h5py's `visititems_links` looks up every name again, which takes 22 s instead of 2 s for 100,000 groups.
    """
    found: list[_Link] = []

    def add(name: bytes, info: h5py.h5l.LinkInfo) -> None:
        hard = info.type == h5py.h5l.TYPE_HARD
        found.append(_Link(name, info.type, info.u if hard else None))

    file.id.links.visit(add, info=True)
    return found


def _refuse_loops(file: h5py.File, links: list[_Link]) -> None:
    """Refuse a group that contains itself, on which pynwb recurses without end.

    Its RecursionError may leave h5py's lock held, so that every other thread of the process waits for ever.
    """
    address = {b"": h5py.h5o.get_info(file.id).addr} | {link.name: link.address for link in links}
    for name, target in address.items():
        above = name
        while above and target is not None:
            above = above.rpartition(b"/")[0]
            if address[above] == target:
                raise InputError(
                    f"{file.filename}: {text(name)}: this link leads back to {text(above) or 'the root'}, "
                    "so that groups contain one another without end; remove it"
                )


def external_part(file: h5py.File, links: list[_Link] | None = None) -> str | None:
    """Return a part of the file that lies in another one, in words; None if there is none.

    Args:
        links: those of the file, if they are known.
    """

    def outside(name: bytes, info: h5py.h5o.ObjInfo) -> str | None:
        if info.type == h5py.h5o.TYPE_DATASET:
            created = h5py.h5o.open(file.id, name).get_create_plist()
            if created.get_external_count() or created.get_layout() == h5py.h5d.VIRTUAL:
                return f"{text(name)}: its values lie in another file"
        return None

    links = _links(file) if links is None else links
    leaving = [link.name for link in links if link.type == h5py.h5l.TYPE_EXTERNAL]
    if leaving:
        return f"{text(leaving[0])}: a link to another file ({text(file.id.links.get_val(leaving[0])[0])})"
    found: str | None = h5py.h5o.visit(file.id, outside, info=True)
    return found


def paths(file: h5py.File) -> list[str]:
    """Return the paths of all groups and datasets, without the cached specifications."""
    names = [link.name.decode("utf-8", "backslashreplace") for link in _links(file)]
    return [name for name in names if not name.startswith(_SPECIFICATIONS)]


def find(file: h5py.File, path: str) -> h5py.Group | h5py.Dataset:
    """Return the object at a path; a table of intervals is also found by its bare name.

    Raises:
        InputError: nothing is there; the sentence names the nearest paths.
    """
    for candidate in (path.strip("/"), f"intervals/{path.strip('/')}"):
        try:
            return file[candidate]
        except (KeyError, ValueError, RuntimeError):
            continue
    if file.get(path.strip("/"), getlink=True) is not None:
        raise InputError(
            f"{file.filename}: {path}: the link there leads nowhere; copy the file with its links resolved"
        )
    raise InputError(f"{file.filename}: {path}: there is no such path; {_suggest(file, path.strip('/'))}")


def get(file: h5py.File, path: str) -> h5py.Group | h5py.Dataset | None:
    """Return the object at a path, or None where a link leads nowhere, or in circles."""
    try:
        return file[path]
    except (KeyError, OSError, RuntimeError):
        return None


def find_all(file: h5py.File, pattern: str) -> list[h5py.Group]:
    """Return the objects at a path, or at all paths that match a glob (``*`` stays within a level).

    Matches of a glob are in natural order, cell_2 before cell_10, as are the names given for them in a
    config. A path that exists is never taken for a glob: names in a file may hold brackets.
    """
    if pattern.strip("/") in file or not any(sign in pattern for sign in "*?["):
        return [find(file, pattern)]
    wanted = pattern.strip("/").split("/")
    matches = [
        name
        for name in paths(file)
        if len(parts := name.split("/")) == len(wanted) and all(map(fnmatch.fnmatchcase, parts, wanted))
    ]
    groups = [
        node
        for name in sorted(matches, key=_numbers_by_size)
        if isinstance(node := get(file, name), h5py.Group)
    ]
    if not groups:
        raise InputError(f"{file.filename}: {pattern}: no path matches; {_suggest(file, pattern.strip('/'))}")
    return groups


def _numbers_by_size(name: str) -> list[tuple[str, int]]:
    """Return a key that sorts names in natural order, cell_2 before cell_10."""
    return [(word, int(digits or -1)) for word, digits in re.findall("([^0-9]*)([0-9]*)", name)]


def dataset(group: h5py.Group, name: str) -> h5py.Dataset:
    """Return a dataset of a group, or raise InputError: something else is there, or nothing."""
    node = group.get(name)
    if not isinstance(node, h5py.Dataset):
        there = "a group" if isinstance(node, h5py.Group) else "missing"
        raise wrong(group, f"its {name} is {there} where NWB 2 has a dataset", "repair the file")
    require_filters(node)
    return node


def require_filters(node: h5py.Dataset) -> None:
    """Raise InputError if a dataset is compressed with an HDF5 filter that is not installed."""
    created = node.id.get_create_plist()
    codes = [created.get_filter(i)[0] for i in range(created.get_nfilters())]
    missing = [code for code in codes if not h5py.h5z.filter_avail(code)]
    if missing:
        raise wrong(
            node,
            f"it is compressed with HDF5 filter {missing[0]}, which is not installed",
            "`pip install hdf5plugin` and set HDF5_PLUGIN_PATH to its hdf5plugin.PLUGIN_PATH, or write the "
            "file again with gzip",
        )


def number(value: object, node: h5py.Group | h5py.Dataset, name: str) -> float:
    """Return a value from a file as a number, or raise InputError if it is not one."""
    item = np.asarray(value)
    if item.size != 1 or item.dtype.kind not in "biuf":
        raise wrong(node, f"its {name} is {np.array2string(item.ravel()[:3])}, not a number", "correct it")
    return float(item.ravel()[0])


def neurodata_type(node: h5py.Group | h5py.Dataset) -> str:
    """Return the NWB type of an object, or an empty string."""
    return text(node.attrs.get("neurodata_type", ""))


def same_object(node: h5py.Group | h5py.Dataset) -> tuple[int, int]:
    """Return an identity that all paths to the same object share, and all series that link the same data."""
    if isinstance(node, h5py.Group) and isinstance(node.get("data"), h5py.Dataset):
        node = node["data"]
    info = h5py.h5o.get_info(node.id)
    return int(info.fileno), int(info.addr)


def name_of(node: h5py.Group | h5py.Dataset) -> str:
    """Return the last part of an object's path."""
    return str(node.name).rsplit("/", 1)[-1]


def place(node: h5py.Group | h5py.Dataset) -> str:
    """Return file and path of an object, to begin a sentence about it."""
    return f"{node.file.filename}: {str(node.name).strip('/')}: "


def wrong(node: h5py.Group | h5py.Dataset, what: str, remedy: str) -> InputError:
    """Return the error about one object of a file, as one sentence."""
    return InputError(f"{place(node)}{what}; {remedy}")


def _suggest(file: h5py.File, path: str) -> str:
    known = paths(file)
    last = path.rsplit("/", 1)[-1]
    near = [name for name in known if name.rsplit("/", 1)[-1] == last]
    near += [name for name in difflib.get_close_matches(path, known, 3, 0.6) if name not in near]
    return f"did you mean {' or '.join(near[:3])}?" if near else "`colatent inspect` lists what is inside"
