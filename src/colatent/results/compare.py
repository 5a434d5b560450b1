"""Two trees of results, output by output: what differs, since which stage, and by how much.

Whatever lies in a tree is read as named arrays, of numbers or of text.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from colatent.errors import InputError
from colatent.jobs.terminal import escaped
from colatent.store.layout import MADE_WITH, OUTPUTS, walk_results, what_lies_at
from colatent.store.stores import check_store, group_names, read_attrs, read_group, read_tensors, tensor_names
from colatent.store.tensors import SUFFIX

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
_STAGES = (*dict.fromkeys(output.rule for output in OUTPUTS if output.kind != "log"), "other files")
_MOST, _LONGEST = 20, 300  # rows of a section, characters of a row
_UNKNOWN = "same provenance: another machine, or a step that is not deterministic"


class Difference(NamedTuple):
    """A part of an output that differs, what of it, and the smallest tolerance that lets it pass."""

    part: str
    what: str
    excess: float = np.inf

    @property
    def cause(self) -> str:
        """The entry of the provenance that it is in (then it is no difference in content), or nothing."""
        entry = self.part.split(".")[0]
        return entry if entry in ORIGIN else ""


class Compared(NamedTuple):
    """One store or file: its path, stage, session and model ("" for all), and how it differs."""

    path: str
    stage: str
    session: str
    model: str
    differences: list[Difference]

    @property
    def excess(self) -> float:
        """The smallest tolerance that lets this pass; negative if it is identical."""
        return max((d.excess for d in self.differences), default=-1.0)


class Comparison(NamedTuple):
    """Two trees: what is compared, in the order of the pipeline; endings of what is not; tolerance, or -1."""

    a: Path
    b: Path
    items: list[Compared]
    left_out: Counter[str]
    tolerance: float

    @property
    def excess(self) -> float:
        return max(item.excess for item in self.items)

    @property
    def differs(self) -> bool:
        return self.excess > self.tolerance


def compare_trees(a: Path, b: Path, tolerance: float | None = None) -> Comparison:
    """Compare two trees of results; one store of each is in memory at a time.

    Args:
        a, b: folders such as ``results``.
        tolerance: numbers may differ by this share of the largest magnitude in their array.

    Raises:
        InputError: a folder is no tree of results, or holds a damaged or incomplete store or file.
    """
    in_a, in_b = _kinds(a), _kinds(b)
    items, left_out = [], Counter[str]()
    for path, kind in sorted((in_a | in_b).items()):
        if path in in_a and path in in_b:
            found = _COMPARE[kind](a / path, b / path) if kind in _COMPARE else None
        else:
            only = Difference("", "only in A" if path in in_a else "only in B")
            found = [only] if kind != "of some runs" else None
        if found is None:
            left_out[Path(path).suffix or "without ending"] += 1
            continue
        output, wildcards = what_lies_at(path) or (None, {})
        stage = output.rule if output and output.rule in _STAGES else _STAGES[-1]
        items.append(Compared(path, stage, wildcards.get("session", ""), wildcards.get("model", ""), found))
    items.sort(key=lambda item: _STAGES.index(item.stage))
    return Comparison(a, b, items, left_out, -1.0 if tolerance is None else tolerance)


def _kinds(tree: Path) -> dict[str, str]:
    """Return path -> what lies there, for all of a tree, and check its stores."""
    kinds = {}
    try:
        for place in walk_results(tree):
            name = place.path.relative_to(tree)
            if place.is_store:
                check_store(place.path)
                kinds[name.as_posix()] = "store"
            kinds |= {path: _kind(path) for path in ((name / file).as_posix() for file in place.files)}
    except OSError as error:
        raise InputError(f"{error.filename}: cannot be read ({error.strerror})") from None
    if "store" not in kinds.values() or "." in kinds:
        raise InputError(f"{tree}: no folder of stores; name one that a config has under `results`")
    return kinds


def _kind(path: str) -> str:
    output, _ = what_lies_at(path) or (None, {})
    if output and output.kind in _COMPARE:
        return output.kind
    on_request = output is not None and output.rule.endswith("_figure")
    is_log = path.endswith(".log") or path.startswith(("logs/", f"{MADE_WITH}/"))
    return "of some runs" if on_request or is_log else "other"


def compare_contents(a: Content, b: Content) -> list[Difference]:
    """Return how arrays of one name differ: by dtype, shape, labels, or numbers."""
    found = [Difference(n, "only in A" if n in a else "only in B") for n in sorted(a.keys() ^ b.keys())]
    for name in sorted(a.keys() & b.keys()):
        found += _compare_arrays(name, a[name], b[name])
    return found


def _compare_arrays(part: str, a: NDArray[Any], b: NDArray[Any]) -> Iterator[Difference]:
    numbers = [array.dtype.kind in "biuf" for array in (a, b)]
    # the dtype of text only tells the length of the longest
    if a.dtype != b.dtype and any(numbers):
        yield Difference(part, f"dtype: {a.dtype} -> {b.dtype}")
    if a.shape != b.shape:
        yield Difference(part, f"shape: {a.shape} -> {b.shape}")
    elif all(numbers):
        yield from _compare_numbers(part, a, b)
    elif pairs := [f"{x} -> {y}" for x, y in zip(a.flat, b.flat, strict=True) if str(x) != str(y)]:
        yield Difference(part, f"{len(pairs)} of {a.size} labels, first: {pairs[0]}" if a.ndim else pairs[0])


def _compare_numbers(part: str, a: NDArray[Any], b: NDArray[Any]) -> Iterator[Difference]:
    """Yield how two arrays of one shape differ, if they do; NaN in both is the same.

    Numbers may differ by a share of the largest finite magnitude in either array; integers, which count or
    number something, by none, nor a number and NaN.
    """
    lone = np.isnan(a) != np.isnan(b)
    differs = ((a != b) | (np.signbit(a) != np.signbit(b))) & ~(np.isnan(a) & np.isnan(b))  # -0.0 is not 0.0
    if not differs.any():
        return
    # long double holds 64-bit integers; bool and small integers must not wrap around
    wide = [array.astype(np.longdouble) for array in (a, b)]
    largest = float(np.fmax.reduce(np.abs(wide[0] - wide[1])[differs], initial=0.0))
    magnitude = float(max(np.abs(array[np.isfinite(array)]).max(initial=0.0) for array in wide))
    share = largest / magnitude if magnitude else float(np.inf if largest else 0.0)
    integers = a.dtype.kind in "biu" and b.dtype.kind in "biu"
    what = f"{differs.sum()} of {a.size} {'integers' if integers else 'values'}"
    what += f", by at most {largest:.3g} ({share:.2g} of the largest value)"
    what += f", NaN in only one at {lone.sum()}" if lone.any() else ""
    yield Difference(part, what, np.inf if integers or lone.any() else share)


def _compare_stores(a: Path, b: Path) -> list[Difference]:
    """Return how two stores differ, in what they hold and in what their provenance says of it."""
    found = compare_contents(_store_content(a), _store_content(b))
    return [difference._replace(excess=-1.0) if difference.cause else difference for difference in found]


def _store_content(folder: Path) -> dict[str, NDArray[Any]]:
    attrs = read_attrs(folder)
    content = _attributes("store", {k: v for k, v in attrs.items() if k not in _NO_CONTENT})
    content |= {k: np.array(json.dumps(v)) for k, v in _leaves({o: attrs.get(o) for o in ORIGIN})}
    for name in group_names(folder):
        dataset = read_group(folder, name)
        content |= _attributes(name, dataset.attrs)
        for key, variable in dataset.variables.items():
            part = f"{name}:{key}"
            content |= {part: variable.values, f"{part} dims": np.array(", ".join(map(str, variable.dims)))}
            content |= _attributes(part, variable.attrs)
    for name in tensor_names(folder):
        content |= {f"{name}{SUFFIX}:{key}": array for key, array in read_tensors(folder, name).items()}
    return content


def _attributes(part: str, attrs: Mapping[Any, Any]) -> dict[str, NDArray[Any]]:
    """Return attributes leaf by leaf, numbers as such: those that differ may be within a tolerance."""
    return {
        f"{part} attribute {path}": np.array(v if type(v) in (int, float) else json.dumps(v, default=str))
        for path, v in _leaves(dict(attrs))
    }


def _leaves(nested: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the entries of nested attributes; keys and places in lists are joined by dots."""
    inner = dict(enumerate(nested)) if isinstance(nested, list) else nested
    if isinstance(inner, dict) and inner:
        for key, value in inner.items():
            yield from _leaves(value, f"{path}.{key}" if path else str(key))
    else:
        yield path, nested


def _nwb_content(file: Path) -> dict[str, NDArray[Any]]:
    """Return the datasets of an NWB file by name, and its attributes as ``name@attribute``."""
    content: dict[str, NDArray[Any]] = {}

    def add(name: str, item: h5py.Group | h5py.Dataset) -> None:
        if name.split("/")[0] != _SCHEMA:
            content.update({f"{name}@{key}": np.asarray(value) for key, value in item.attrs.items()})
            if isinstance(item, h5py.Dataset):
                content[name] = np.asarray(item[()])

    try:
        with h5py.File(file) as nwb:
            add("", nwb)
            nwb.visititems(add)
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        said = escaped(str(error)[:200])
        raise InputError(f"{file}: cannot be read as NWB ({said}); delete it and run again") from None
    return content


def compare_tables(a: Path, b: Path) -> list[Difference]:
    """Return how two CSV tables differ: columns, rows, then cells column by column.

    Rows are matched by what they are about (``KEYS``), so that a model more does not shift all others.
    Numbers are those of one metric: a tolerance is a share of the largest.

    Raises:
        InputError: one of them is no table.
    """
    one, other = _read_table(a), _read_table(b)
    found = compare_contents(*({f"column {c}": np.array(c) for c in table} for table in (one, other)))
    if keys := [key for key in KEYS if key in one and key in other]:
        one, other = (table.set_index(keys, drop=False) for table in (one, other))
    if not one.index.equals(other.index):
        if not (one.index.is_unique and other.index.is_unique):
            return [*found, Difference("rows", f"others, {len(one)} -> {len(other)}")]
        alone = [len(x.index.difference(y.index)) for x, y in ((one, other), (other, one))]
        found.append(Difference("rows", f"{alone[0]} only in A, {alone[1]} only in B, or in another order"))
        one, other = one.align(other, join="inner", axis=0)
    measured = [str(c) for c in one if c in other and c not in KEYS]
    return found + compare_contents(_cells(one, measured), _cells(other, measured))


def _read_table(file: Path) -> pd.DataFrame:
    try:
        # without a header: then a row that is longer than the first one is an error, not an index
        cells = pd.read_csv(file, header=None, dtype=str, na_filter=False, encoding="utf-8").fillna("")
    except (OSError, ValueError) as error:
        said = escaped(str(error)[:200])
        raise InputError(f"{file}: cannot be read as a table ({said}); delete it and run again") from None
    return cells[1:].set_axis(list(map(str, cells.iloc[0])), axis=1).reset_index(drop=True)


def _cells(table: pd.DataFrame, columns: list[str]) -> dict[str, NDArray[Any]]:
    table = table.reset_index(drop=True)
    metrics = table.groupby("metric") if "metric" in table else [("", table)]
    return {f"{c} of {metric}": _numbers(rows[c].to_numpy(str)) for metric, rows in metrics for c in columns}


def _numbers(cells: NDArray[np.str_]) -> NDArray[Any]:
    """Return cells as integers, or as numbers, empty ones as NaN; or as they are."""
    for dtype in (np.int64, np.float64):
        with suppress(ValueError, OverflowError):
            return np.where(cells == "", "nan", cells).astype(dtype)
    return cells


_COMPARE = {
    "store": _compare_stores,
    "export": lambda a, b: compare_contents(_nwb_content(a), _nwb_content(b)),
    "table": compare_tables,
}


def report_lines(comparison: Comparison) -> Iterator[str]:
    """Yield the report: verdict, since which stage, details of each stage, what was not compared."""
    items, left = comparison.items, comparison.left_out
    sections = {
        _verdict(comparison): [f"A  {comparison.a}", f"B  {comparison.b}"],
        "Since which stage (and what its provenance says is other):": _since(comparison),
        **{f"Differences of {stage}, A -> B, largest first:": _details(items, stage) for stage in _STAGES},
        "Not compared (pages and figures show what is compared):": [f"{left[e]} {e}" for e in sorted(left)],
    }
    for title, rows in sections.items():
        if rows := list(rows):
            more = [f"and {len(rows) - _MOST} more"] if len(rows) > _MOST else []
            for line in [title, *(f"  {row}" for row in [*rows[:_MOST], *more])]:
                yield escaped(line[:_LONGEST])


def _verdict(comparison: Comparison) -> str:
    excesses = [item.excess for item in comparison.items]
    n, differing, largest = len(excesses), sum(excess >= 0 for excess in excesses), comparison.excess
    text = f"identical: all {n} stores and files that are compared"
    if differing:
        verdict = "different" if comparison.differs else f"equal within {comparison.tolerance:g}"
        most = f", by at most {largest:.2g} of the largest value" if np.isfinite(largest) else ""
        text = f"{verdict}: {differing} of {n} stores and files differ{most}"
    causes = {d.cause for item in comparison.items for d in item.differences}
    return f"{text}; made with other {', '.join(o for o in ORIGIN if o in causes)}" if any(causes) else text


def _since(comparison: Comparison) -> Iterator[str]:
    """Yield since when each session differs; where that depends on the model, one row for each model."""
    limit = comparison.tolerance
    none = "identical" if limit < 0 else f"nothing beyond {limit:g}"
    for session in dict.fromkeys(item.session for item in comparison.items if item.session):
        items = [item for item in comparison.items if item.session == session]
        since = {
            model: _first([item for item in items if item.model in ("", model)], limit) or none
            for model in dict.fromkeys(item.model for item in items)
        }
        if len(set(since.values())) == 1:
            yield f"{session}: {since[items[0].model]}"
        else:
            yield from (f"{session} / {model}: {first}" for model, first in since.items() if model)


def _first(items: list[Compared], tolerance: float) -> str:
    """Return the first stage that differs, and what its provenance says of why; nothing if none does."""
    stage = next((item.stage for item in items if item.excess > tolerance), "")
    found = [d for item in items if item.stage == stage for d in item.differences]
    causes = [d.cause or d.what for d in found if d.cause or not d.part]
    return f"since {stage} ({', '.join(dict.fromkeys(causes)) or _UNKNOWN})" if stage else ""


def _details(items: list[Compared], stage: str) -> list[str]:
    """Return one row for each difference of a stage; what its provenance says comes last."""
    found = [(d, item.path) for item in items if item.stage == stage for d in item.differences]
    found.sort(key=lambda pair: -pair[0].excess)
    return [f"{path}  {f'{d.part} {d.what}'.strip()}" for d, path in found]
