"""How two contents differ: arrays value by value, labels one by one, attributes leaf by leaf."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

ABSENT = "(absent)"


@dataclass(frozen=True)
class ValuesDiffer:
    """Two arrays of numbers of one shape that are not the same bits.

    Attributes:
        part: which array.
        size, differing: number of values, and of those that differ.
        absolute: largest difference where both are numbers, in the array's unit.
        relative: the same as a share of the largest finite magnitude in either array.
        lone_nans: number of places where only one of them is NaN.
        integers: both arrays hold integers; then they are counts or numbers of something, and within no
            tolerance.
    """

    part: str
    size: int
    differing: int
    absolute: float
    relative: float
    lone_nans: int
    integers: bool = False

    @property
    def excess(self) -> float:
        """The smallest tolerance that lets this pass."""
        return np.inf if self.lone_nans or self.integers else self.relative


@dataclass(frozen=True)
class Differs:
    """Anything else that differs: ``what`` of ``part`` is ``a`` in one and ``b`` in the other."""

    part: str
    what: str
    a: str = ""
    b: str = ""
    excess: float = np.inf


Difference = ValuesDiffer | Differs


class Leaf(NamedTuple):
    """One entry of nested attributes that differs; values as JSON."""

    path: str
    a: str
    b: str


def compare_datasets(part: str, a: xr.Dataset, b: xr.Dataset) -> list[Difference]:
    """Return how the variables, coordinates and attributes of two groups differ."""
    variables = [{str(name): v for name, v in d.variables.items()} for d in (a, b)]
    found: list[Difference] = [*compare_attrs(part, a.attrs, b.attrs)]
    found += only_in_one(f"{part}:", variables[0], variables[1])
    for name in sorted(variables[0].keys() & variables[1].keys()):
        kind_a, kind_b = ("coordinate" if name in d.coords else "variable" for d in (a, b))
        if kind_a != kind_b:
            found.append(Differs(f"{part}:{name}", "kind", kind_a, kind_b))
        found += _compare_variables(f"{part}:{name}", variables[0][name], variables[1][name])
    return found


def _compare_variables(part: str, a: xr.Variable, b: xr.Variable) -> list[Difference]:
    found: list[Difference] = [*compare_attrs(part, a.attrs, b.attrs)]
    if a.dims != b.dims:
        found.append(Differs(part, "dims", _tuple(a.dims), _tuple(b.dims)))
    return found + _compare_values(part, a.values, b.values)


def compare_arrays(
    part: str, a: Mapping[str, NDArray[Any]], b: Mapping[str, NDArray[Any]]
) -> list[Difference]:
    """Return how arrays differ, those of one name with each other."""
    found = only_in_one(f"{part}:", a, b)
    for name in sorted(a.keys() & b.keys()):
        found += _compare_values(f"{part}:{name}", a[name], b[name])
    return found


def _compare_values(part: str, a: NDArray[Any], b: NDArray[Any]) -> list[Difference]:
    found: list[Difference] = []
    numbers = [v.dtype.kind in "biuf" for v in (a, b)]
    # the dtype of labels only tells the length of the longest
    if a.dtype != b.dtype and (any(numbers) or a.dtype.kind != b.dtype.kind):
        found.append(Differs(part, "dtype", str(a.dtype), str(b.dtype)))
    if a.shape != b.shape:
        found.append(Differs(part, "shape", _tuple(a.shape), _tuple(b.shape)))
    elif all(numbers):
        found += compare_numbers(part, a, b)
    else:
        found += compare_labels(part, a, b)
    return found


def _tuple(items: Iterable[object]) -> str:
    return f"({', '.join(map(str, items))})"


def compare_numbers(
    part: str, a: NDArray[Any], b: NDArray[Any], differs: NDArray[np.bool_] | None = None
) -> list[Difference]:
    """Return how two arrays of one shape differ: nothing, or one difference.

    Args:
        part: what they are called.
        differs: where they differ, if that is decided already; NaN in both is the same in any case.
    """
    a, b = np.atleast_1d(a), np.atleast_1d(b)
    nan_a, nan_b = np.isnan(a), np.isnan(b)
    differs = (_other_bits(a, b) if differs is None else differs) & ~(nan_a & nan_b)
    if not differs.any():
        return []
    lone = nan_a != nan_b
    both = differs & ~lone
    # long double holds 64-bit integers; bool and small integers must not wrap around
    with np.errstate(over="ignore"):
        gaps = np.abs(a[both].astype(np.longdouble) - b[both].astype(np.longdouble))
    absolute = float(gaps.max(initial=0.0))
    magnitude = max(_magnitude(a), _magnitude(b))
    relative = absolute / magnitude if magnitude else float(np.inf if absolute else 0.0)
    integers = a.dtype.kind in "biu" and b.dtype.kind in "biu"
    return [ValuesDiffer(part, a.size, int(differs.sum()), absolute, relative, int(lone.sum()), integers)]


def _other_bits(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.bool_]:
    if a.dtype == b.dtype and a.dtype.kind == "f":  # 0.0 and −0.0 are equal, but not the same
        bits = f"u{a.dtype.itemsize}"
        return np.asarray(np.ascontiguousarray(a).view(bits) != np.ascontiguousarray(b).view(bits))
    return np.asarray(a != b)


def _magnitude(a: NDArray[Any]) -> float:
    finite = a[np.isfinite(a)]
    # not abs() of the array: the lowest integer has none
    return max(abs(float(finite.max())), abs(float(finite.min()))) if finite.size else 0.0


def compare_labels(part: str, a: NDArray[Any], b: NDArray[Any]) -> list[Difference]:
    """Return how two arrays of text of one shape differ: nothing, or one difference with the first."""
    a, b = np.atleast_1d(a).astype(str), np.atleast_1d(b).astype(str)
    places = np.flatnonzero(a != b)
    if not places.size:
        return []
    first = places[0]
    return [Differs(part, f"{places.size} of {a.size} labels, first", str(a.flat[first]), str(b.flat[first]))]


def compare_attrs(part: str, a: dict, b: dict) -> list[Differs]:
    """Return the attributes that differ, one difference a leaf."""
    return [
        Differs(part, f"attribute {leaf.path}", leaf.a, leaf.b, _relative_gap(leaf))
        for leaf in differing_leaves(a, b)
    ]


def _relative_gap(leaf: Leaf) -> float:
    """Return the difference of two numbers as a share of the larger; infinite for integers and all else."""
    a, b = (float("nan") if v == ABSENT else json.loads(v) for v in (leaf.a, leaf.b))
    if type(a) is type(b) is int or not all(type(v) in (int, float) and np.isfinite(v) for v in (a, b)):
        return np.inf
    return abs(a - b) / max(abs(a), abs(b)) if a != b else 0.0


def differing_leaves(a: Any, b: Any, path: str = "") -> Iterator[Leaf]:
    """Yield what differs in nested attributes; keys and places in lists are joined by dots."""
    if isinstance(a, list) and isinstance(b, list):
        a, b = (dict(enumerate(x)) for x in (a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        for key in [*a, *(k for k in b if k not in a)]:
            inner = f"{path}.{key}" if path else str(key)
            yield from differing_leaves(a.get(key, ABSENT), b.get(key, ABSENT), inner)
        return
    texts = [v if v is ABSENT else json.dumps(v, ensure_ascii=False, default=str) for v in (a, b)]
    if texts[0] != texts[1]:  # as JSON: NaN is the same as NaN, 1 is not the same as true
        yield Leaf(path, texts[0], texts[1])


def only_in_one(prefix: str, a: Iterable[str], b: Iterable[str]) -> list[Difference]:
    """Return a difference for each name that only one of the two has."""
    a, b = set(a), set(b)
    return [Differs(f"{prefix}{n}", "only in A" if n in a else "only in B") for n in sorted(a ^ b)]
