"""Exported NWB files, by their bytes; where these differ, array by array."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from colatent.results.compare.differences import (
    Difference,
    Differs,
    compare_arrays,
)
from colatent.results.compare.plain import plain
from colatent.errors import InputError
from colatent.store.stores import file_sha256

_SCHEMA = "specifications"  # a copy of NWB's own, which goes with the version of pynwb


def compare_exports(a: Path, b: Path) -> list[Difference]:
    """Return how two NWB files differ: arrays and attributes, or else only bytes.

    Raises:
        InputError: they differ, and one of them is no HDF5 file or a damaged one.
    """
    if file_sha256(a) == file_sha256(b):
        return []
    found = compare_arrays("nwb", _arrays(a), _arrays(b))
    # whatever the tolerance: no number differs
    return found or [Differs("nwb", "bytes, but no array and no attribute", excess=0.0)]


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Return datasets by name, and attributes as ``name@attribute``."""
    arrays: dict[str, NDArray[Any]] = {}

    def add(name: str, item: h5py.Group | h5py.Dataset) -> None:
        if name.split("/")[0] == _SCHEMA:
            return
        arrays.update({f"{name}@{key}": _numbers_or_text(value) for key, value in item.attrs.items()})
        if isinstance(item, h5py.Dataset):
            arrays[name] = _numbers_or_text(item[()])

    try:
        with h5py.File(path) as file:
            add("", file)
            file.visititems(add)
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        raise InputError(
            f"{plain(path)}: cannot be read as NWB ({plain(error, 200)}); delete it and run again"
        ) from None
    return arrays


def _numbers_or_text(value: Any) -> NDArray[Any]:
    array = np.asarray(value)
    if array.dtype.kind in "biuf":
        return array
    return np.array([str(item) for item in array.ravel()], dtype=str).reshape(array.shape)
