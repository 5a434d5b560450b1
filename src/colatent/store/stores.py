"""Stores that are whole or absent, and say where they come from.

A store is a folder with ``data.zarr`` (Zarr v3, one group a modality or kind of result), for a fit
``state.safetensors`` (its parameters), and ``complete.json``, a list of checksums that is written last.
The folder is built beside its place and renamed into it, so a job killed at any moment leaves nothing
that a later stage accepts.
``complete.json`` is what Snakemake tracks. It says nothing that varies between runs, so a store that
was made again with the same content does not make anything behind it run again.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel, Field, ValidationError

from colatent.errors import InputError
from colatent.store.atomic import atomically, writing
from colatent.store.layout import MARKER
from colatent.store.tensors import SUFFIX, load_arrays, save_arrays

if TYPE_CHECKING:  # a second to import, and the workflow starts without reading any data
    import xarray as xr

FORMAT = 1
_ROOT = "data.zarr/zarr.json"
_LABELS = "labels"
_CHUNK_BYTES = 32 * 2**20


class NewerFormatError(InputError):
    """A store that only a newer colatent can read; to make it anew would destroy it."""


class DamagedStoreError(InputError):
    """A store, or a file of results, that is not as it was written.

    Attributes:
        finding: the sentence without what to do, for whoever knows that better.
    """

    def __init__(self, place: Path, what: str, remedy: str = "") -> None:
        self.finding = f"{place}: {what}"
        super().__init__(f"{self.finding}; {remedy or anew(place / MARKER)}")


def write_store(
    folder: str | Path,
    groups: "Mapping[str, xr.Dataset]",
    attrs: Mapping[str, Any],
    tensors: Mapping[str, Mapping[str, np.ndarray]] | None = None,
) -> None:
    """Write datasets as the groups of a new store; an older store there is replaced.

    Args:
        groups: group name (may hold ``/``) -> dataset. String coordinates are kept in attributes,
            because Zarr v3 has no settled string type.
        attrs: JSON-compatible attributes of the root: provenance.
        tensors: name -> arrays by name, such as the parameters of a model; each becomes one file.
    """
    import xarray as xr

    folder = Path(folder)
    with writing(folder, "the store"), atomically(folder) as made:
        made.mkdir()
        root = made / "data.zarr"
        for name, dataset in {"": xr.Dataset(attrs=dict(attrs)), **groups}.items():
            _write_group(root, name, _strings_to_attrs(dataset))
        for name, arrays in (tensors or {}).items():
            save_arrays(made / f"{name}{SUFFIX}", arrays)
        checksums = {name: _checksum(made, name) for name in _files(made)}
        (made / MARKER).write_text(json.dumps({"format": FORMAT, "sha256": checksums}, indent=0))


def _write_group(root: Path, name: str, dataset: "xr.Dataset") -> None:
    """Write one group, made in memory: Zarr's own store of files takes three times as long."""
    from zarr.core.buffer import Buffer
    from zarr.storage import MemoryStore

    files: dict[str, Buffer] = {}
    how: dict[str, Any] = {"zarr_format": 3, "consolidated": False, "encoding": _encoding(dataset)}
    dataset.to_zarr(MemoryStore(files), group=name, mode="w", **how)
    for key, content in files.items():
        file = root / key
        if key.startswith(name) or not file.exists():  # not the groups around it once more
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content.to_bytes())


def check_store(folder: str | Path) -> None:
    """Raise InputError unless the store is complete and as it was written."""
    folder = Path(folder)
    marker = folder / MARKER
    if not marker.is_file():
        raise DamagedStoreError(
            folder, f"not a complete store ({MARKER} is missing)", "delete the folder and run again"
        )
    checksums = _checksums(folder)
    if unknown := [name for name in _files(folder) if name not in checksums]:
        raise DamagedStoreError(folder, f"{unknown[0]} was not written with it")
    for name, checksum in checksums.items():
        if not (folder / name).is_file():
            raise DamagedStoreError(folder, f"{name} is missing")
        if _checksum(folder, name) != checksum:
            raise DamagedStoreError(folder, f"{name} is not as it was written")


class _Marker(BaseModel):
    format: int = Field(le=FORMAT)
    sha256: dict[str, str] = Field(min_length=1)


def _checksums(folder: Path) -> dict[str, str]:
    """Return what the marker says: name of a file -> checksum."""
    try:
        return _Marker.model_validate_json((folder / MARKER).read_bytes()).sha256
    except ValidationError as error:
        if newer := [wrong["input"] for wrong in error.errors() if wrong["type"] == "less_than_equal"]:
            raise NewerFormatError(
                f"{folder}: written by a newer colatent (format {newer[0]}, this one reads {FORMAT}); "
                "update colatent"
            ) from None
        raise DamagedStoreError(folder, f"{MARKER} is damaged") from None


def anew(output: str | Path) -> str:
    """Return what to do about a damaged output, as the end of a sentence."""
    return f"make it anew: your snakemake command with --force {output}"


def identity(folder: str | Path) -> str:
    """Return what tells a store's content from any other's, wherever it lies; ``check_store`` it before."""
    return file_sha256(Path(folder) / MARKER)


def read_attrs(folder: str | Path) -> dict[str, Any]:
    """Return the attributes of a store's root.

    Raises:
        InputError: there is no such file, or it is damaged.
    """
    root = Path(folder) / _ROOT
    if not root.is_file():
        raise DamagedStoreError(Path(folder), f"{_ROOT} is missing")
    try:
        return dict(json.loads(root.read_text())["attributes"])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise DamagedStoreError(Path(folder), f"{_ROOT} is damaged") from None


def read_group(folder: str | Path, group: str) -> "xr.Dataset":
    """Return one group of a store, in memory, its variables by name. Call ``check_store`` once before."""
    import xarray as xr

    root = Path(folder) / "data.zarr"
    # without chunks, or xarray would load dask, which takes a second
    with xr.open_zarr(root, group=group, chunks=None, consolidated=False, zarr_format=3) as dataset:
        return _strings_from_attrs(dataset.load())


def group_names(folder: str | Path) -> list[str]:
    """Return the names of a store's groups that hold arrays or attributes (labels, if only these), sorted."""
    root = Path(folder) / "data.zarr"
    nodes = [json.loads(f.read_text()) | {"path": f.parent} for f in root.rglob("zarr.json")]
    groups = {node["path"].parent for node in nodes if node["node_type"] == "array"}
    groups |= {node["path"] for node in nodes if node["node_type"] == "group" and node.get("attributes")}
    return sorted(str(p.relative_to(root)) for p in groups if p != root)


def read_tensors(folder: str | Path, name: str) -> dict[str, np.ndarray]:
    """Return arrays of a store that are no group, by name. Call ``check_store`` once before."""
    try:
        return load_arrays(Path(folder) / f"{name}{SUFFIX}")
    except InputError as error:
        raise InputError(f"{error}; {anew(Path(folder) / MARKER)}") from error


def tensor_names(folder: str | Path) -> list[str]:
    """Return what ``read_tensors`` can read of a store, sorted."""
    return sorted(file.stem for file in Path(folder).glob(f"*{SUFFIX}"))


def file_sha256(file: Path) -> str:
    """Return the SHA-256 of a file's content."""
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _files(folder: Path) -> list[str]:
    """Names of the files that a store consists of, sorted, without its marker."""
    files = (*(folder / "data.zarr").rglob("*"), *folder.glob(f"*{SUFFIX}"))
    # what is no file either, such as a pipe, would be waited for by whoever reads the store
    return sorted(f.relative_to(folder).as_posix() for f in files if not f.is_dir())


def _checksum(folder: Path, name: str) -> str:
    """SHA-256 of a file of a store; of its root, without what varies between runs."""
    if name != _ROOT:
        return file_sha256(folder / name)
    try:
        root = json.loads((folder / name).read_text())
        root["attributes"].pop("volatile", None)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return "damaged"
    return hashlib.sha256(json.dumps(root, sort_keys=True).encode()).hexdigest()


def _encoding(dataset: "xr.Dataset") -> dict[str, dict[str, Any]]:
    """Return chunks and compression of each array.

    Later stages read whole groups, so an array is one chunk; a large one is cut along its first
    dimension, the trials, so that readers in a notebook can take a few. Counts, masks and NaN shrink to a
    twentieth when their bits are shuffled before zstd, whose lowest levels unpack as fast as a disk reads.
    """
    from zarr.codecs import BloscCodec

    packed = BloscCodec(cname="zstd", clevel=3, shuffle="bitshuffle")
    return {
        str(name): {"chunks": _chunks(variable.shape, variable.dtype.itemsize), "compressors": (packed,)}
        for name, variable in dataset.variables.items()
        if variable.ndim
    }


def _chunks(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    row = max(math.prod(shape[1:]) * itemsize, 1)
    return (min(max(_CHUNK_BYTES // row, 1), max(shape[0], 1)), *(max(n, 1) for n in shape[1:]))


def _strings_to_attrs(dataset: "xr.Dataset") -> "xr.Dataset":
    labels = {
        str(name): [list(map(str, coord.dims)), [str(x) for x in coord.values]]
        for name, coord in dataset.coords.items()
        if coord.dtype.kind in "OUST"
    }
    kept = dataset.drop_vars(list(labels))
    return kept.assign_attrs({_LABELS: json.dumps(labels)}) if labels else kept


def _strings_from_attrs(dataset: "xr.Dataset") -> "xr.Dataset":
    """Return a dataset with its labels, sorted: Zarr lists arrays in whatever order the disk has them."""
    import xarray as xr

    labels = json.loads(dataset.attrs.pop(_LABELS, "{}"))
    dataset = dataset.assign_coords({n: (dims, np.array(v, dtype=str)) for n, (dims, v) in labels.items()})
    variables, coords = (
        {n: v.variable for n, v in sorted(d.items())} for d in (dataset.data_vars, dataset.coords)
    )
    return xr.Dataset(variables, coords, dataset.attrs)
