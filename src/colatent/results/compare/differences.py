"""How two contents differ. Whatever lies in a tree is read as named arrays, of numbers or of text."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from colatent.errors import InputError
from colatent.jobs.terminal import escaped
from colatent.store.stores import file_sha256, group_names, read_attrs, read_group, read_tensors, tensor_names

Content = Mapping[str, NDArray[Any]]
# where a store comes from: reported as causes, no part of its content; `source` repeats `inputs.nwb`
ORIGIN = ("settings", "inputs", "code", "versions", "device")
_NO_CONTENT = (*ORIGIN, "stage", "source", "volatile")
# columns of tables that say what a row is about; all others are measured
KEYS = (
    "session", "model", "fold", "seed", "heldout", "given", "predicted", "channel", "metric",
    "other", "group", "latent", "n_latents", "varied", "share",
)  # fmt: skip
_SCHEMA = "specifications"  # of an NWB file: a copy of NWB's own, which goes with the version of pynwb


class Difference(NamedTuple):
    """A part of a content that differs, what of it, and the smallest tolerance that lets it pass."""

    part: str
    what: str
    excess: float = np.inf

    def __str__(self) -> str:
        return " ".join(filter(None, (plain(self.part, 200), plain(self.what, 300))))


def plain(text: object, limit: int = 1000) -> str:
    """Return the text of a file, safe to print, cut to ``limit`` characters."""
    shown = escaped(str(text)[: limit + 1])
    return shown if len(shown) <= limit else shown[: limit - 3] + "..."


def compare_contents(a: Content, b: Content) -> list[Difference]:
    """Return how arrays of one name differ: by dtype, shape, labels, or numbers."""
    found = [Difference(n, "only in A" if n in a else "only in B") for n in sorted(a.keys() ^ b.keys())]
    for name in sorted(a.keys() & b.keys()):
        found += _compare_arrays(name, a[name], b[name])
    return found


def _compare_arrays(part: str, a: NDArray[Any], b: NDArray[Any]) -> Iterator[Difference]:
    numbers = [v.dtype.kind in "biuf" for v in (a, b)]
    # the dtype of text only tells the length of the longest
    if a.dtype != b.dtype and any(numbers):
        yield Difference(part, f"dtype: {a.dtype} -> {b.dtype}")
    if a.shape != b.shape:
        yield Difference(part, f"shape: {a.shape} -> {b.shape}")
    elif all(numbers):
        yield from compare_numbers(part, np.atleast_1d(a), np.atleast_1d(b))
    elif a.ndim == 0:
        if str(a) != str(b):
            yield Difference(f"{part}:", f"{a} -> {b}")
    else:
        a, b = a.astype(str), b.astype(str)
        if (places := np.flatnonzero(a != b)).size:
            first = f"{a.flat[places[0]]} -> {b.flat[places[0]]}"
            yield Difference(part, f"{places.size} of {a.size} labels, first: {first}")


def compare_numbers(part: str, a: NDArray[Any], b: NDArray[Any]) -> Iterator[Difference]:
    """Yield how two arrays of one shape differ, if they do; NaN in both is the same.

    Numbers may differ by a share of the largest finite magnitude in either array; integers, which count or
    number something, by none, nor a number and NaN.
    """
    nan_a, nan_b = np.isnan(a), np.isnan(b)
    lone, both = nan_a != nan_b, ~(nan_a | nan_b)
    differs = both & _other_bits(a, b)
    if not (differs.any() or lone.any()):
        return
    # long double holds 64-bit integers; bool and small integers must not wrap around
    wide_a, wide_b = a.astype(np.longdouble), b.astype(np.longdouble)
    largest = float(np.abs(wide_a[differs] - wide_b[differs]).max(initial=0.0))
    finite = np.concatenate([np.abs(w[np.isfinite(w)]).ravel() for w in (wide_a, wide_b)])
    magnitude = float(finite.max(initial=0.0))
    share = largest / magnitude if magnitude else float(np.inf if largest else 0.0)
    integers = a.dtype.kind in "biu" and b.dtype.kind in "biu"
    facts = [f"by at most {largest:.3g} ({share:.2g} of the largest value)"] if differs.any() else []
    facts += [f"NaN in only one at {lone.sum()}"] if lone.any() else []
    count = f"{(differs | lone).sum()} of {a.size} {'integers' if integers else 'values'}"
    yield Difference(part, f"{count}, {', '.join(facts)}", np.inf if integers or lone.any() else share)


def _other_bits(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.bool_]:
    if a.dtype == b.dtype and a.dtype.kind == "f":  # 0.0 and −0.0 are equal, but not the same
        return np.asarray((a != b) | (np.signbit(a) != np.signbit(b)))
    return np.asarray(a != b)


def store_content(folder: Path) -> dict[str, NDArray[Any]]:
    """Return what a store holds, without where it comes from."""
    content = _attributes("store", {k: v for k, v in read_attrs(folder).items() if k not in _NO_CONTENT})
    for name in group_names(folder):
        content |= {f"group {name}": np.array("there")} | _dataset(name, read_group(folder, name))
    for name in tensor_names(folder):
        content[f"tensors {name}"] = np.array("there")
        content |= {f"{name}:{key}": array for key, array in read_tensors(folder, name).items()}
    return content


def _dataset(name: str, dataset: xr.Dataset) -> dict[str, NDArray[Any]]:
    content = _attributes(name, dataset.attrs)
    for key, variable in dataset.variables.items():
        part = f"{name}:{key}"
        kind = "coordinate" if key in dataset.coords else "variable"
        content |= {part: variable.values, f"{part} kind": np.array(kind)} | _attributes(part, variable.attrs)
        content[f"{part} dims"] = np.array(f"({', '.join(map(str, variable.dims))})")
    return content


def _attributes(part: str, attrs: Mapping[Any, Any]) -> dict[str, NDArray[Any]]:
    """Return attributes leaf by leaf, numbers as such: those that differ may be within a tolerance."""
    return {
        f"{part} attribute {path}": np.array(v if type(v) in (int, float) else json.dumps(v, default=str))
        for path, v in leaves(dict(attrs))
    }


def leaves(nested: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the entries of nested attributes; keys and places in lists are joined by dots."""
    inner = dict(enumerate(nested)) if isinstance(nested, list) else nested
    if isinstance(inner, dict) and inner:
        for key, value in inner.items():
            yield from leaves(value, f"{path}.{key}" if path else str(key))
    else:
        yield path, nested


def compare_exports(a: Path, b: Path) -> list[Difference]:
    """Return how two NWB files differ: arrays and attributes, or else only bytes.

    Raises:
        InputError: they differ, and one of them is no HDF5 file or a damaged one.
    """
    if file_sha256(a) == file_sha256(b):
        return []
    # whatever the tolerance: no number differs
    only_bytes = Difference("nwb", "bytes, but no array and no attribute", 0.0)
    return compare_contents(_nwb_content(a), _nwb_content(b)) or [only_bytes]


def _nwb_content(file: Path) -> dict[str, NDArray[Any]]:
    """Return the datasets of an NWB file by name, and its attributes as ``name@attribute``."""
    content: dict[str, NDArray[Any]] = {}

    def add(name: str, item: h5py.Group | h5py.Dataset) -> None:
        if name.split("/")[0] != _SCHEMA:
            content.update({f"nwb:{name}@{key}": _array(value) for key, value in item.attrs.items()})
            if isinstance(item, h5py.Dataset):
                content[f"nwb:{name}"] = _array(item[()])

    try:
        with h5py.File(file) as nwb:
            add("", nwb)
            nwb.visititems(add)
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        raise InputError(
            f"{plain(file)}: cannot be read as NWB ({plain(error, 200)}); delete it and run again"
        ) from None
    return content


def _array(value: Any) -> NDArray[Any]:
    array = np.asarray(value)
    is_number = array.dtype.kind in "biuf"
    return array if is_number else np.array([str(v) for v in array.ravel()], dtype=str).reshape(array.shape)


def compare_tables(a: Path, b: Path) -> list[Difference]:
    """Return how two CSV tables differ: columns, rows, then cells column by column.

    Rows are matched by what they are about (``KEYS``), so that a model more does not shift all others.
    Numbers are those of one metric: a tolerance is a share of the largest.

    Raises:
        InputError: one of them is no table.
    """
    one, other = _read_table(a), _read_table(b)
    found = compare_contents(*({f"column {c}": np.array(str(c)) for c in t} for t in (one, other)))
    common = [c for c in one if c in other]
    if common != [c for c in other if c in common]:
        found.append(Difference("columns", "the same in another order"))
    one, other = one[common], other[common]
    keys = [key for key in KEYS if key in common]
    if not one[keys].equals(other[keys]):
        if not keys or one.duplicated(keys).any() or other.duplicated(keys).any():
            return [*found, Difference("rows", f"others, {len(one)} -> {len(other)}")]
        one, other = (t.set_axis(pd.MultiIndex.from_frame(t[keys])) for t in (one, other))
        for name, mine, theirs in (("A", one, other), ("B", other, one)):
            if alone := (~mine.index.isin(theirs.index)).sum():
                found.append(Difference("rows", f"{alone} only in {name}"))
        one, there = one[one.index.isin(other.index)], other[other.index.isin(one.index)]
        other = there.loc[one.index]
        if not there.index.equals(one.index):
            found.append(Difference("rows", "the same in another order"))
    return found + compare_contents(_cells(one, keys), _cells(other, keys))


def _read_table(file: Path) -> pd.DataFrame:
    try:
        # without a header: then a row that is longer than the first one is an error, not an index
        cells = pd.read_csv(file, header=None, dtype=str, na_filter=False, encoding="utf-8").fillna("")
    except (OSError, ValueError) as error:
        raise InputError(
            f"{plain(file)}: cannot be read as a table ({plain(error, 200)}); delete it and run again"
        ) from None
    names = [str(name) for name in cells.iloc[0]]
    if len(set(names)) < len(names):
        raise InputError(f"{plain(file)}: names a column twice; delete it and run again")
    return cells.iloc[1:].set_axis(names, axis=1).reset_index(drop=True)


def _cells(table: pd.DataFrame, keys: list[str]) -> dict[str, NDArray[Any]]:
    content: dict[str, NDArray[Any]] = {}
    for column in map(str, table):
        values = table[column].to_numpy(str)
        if column in keys or "metric" not in table:
            content[column] = values if column in keys else _numbers(values)
            continue
        for metric in table["metric"].unique():
            part = values[(table["metric"] == metric).to_numpy()]
            content |= {f"{column} of {metric}": _numbers(part), f"{column} of {metric}, empty": part == ""}
    return content


def _numbers(cells: NDArray[np.str_]) -> NDArray[Any]:
    """Return cells as integers, or as numbers, empty ones as NaN; or as they are."""
    if all(re.fullmatch(r"-?[0-9]{1,18}", cell) for cell in cells):
        return cells.astype(np.int64)
    try:
        return np.array([float(cell or "nan") for cell in cells])
    except ValueError:
        return cells
