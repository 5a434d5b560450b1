"""Columns of NWB's DynamicTables: plain and ragged."""

import ast
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any

import h5py
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from colatent.errors import InputError
from colatent.ingest.nwb.file import dataset, name_of, neurodata_type, require_filters, text, wrong

INTERVAL = ("start_time", "stop_time")
_MOST_ROWS = 10**7
_MOST_PARTS = 8  # numbers per row of a column, each of which is a column of its own
_MOST_VALUES = 10**8  # per row; a neuron fires less often in ten days


def n_rows(table: h5py.Group) -> int:
    """Return the number of rows of a table."""
    if not isinstance(table, h5py.Group) or "id" not in table:
        raise wrong(table, "this is not a table (it has no `id` column)", "give the path of a DynamicTable")
    ids = dataset(table, "id")
    if ids.ndim != 1 or ids.dtype.kind not in "iu":
        raise wrong(
            ids, f"it holds {ids.dtype} of shape {ids.shape}, not one number per row", "repair the table"
        )
    if ids.size > _MOST_ROWS:
        raise wrong(ids, f"{ids.size} rows are more than fit in memory", "choose another table")
    return int(ids.size)


def column(table: h5py.Group, name: str) -> h5py.Dataset:
    """Return a column, or raise InputError naming those that the table has."""
    node = table.get(name)
    if not isinstance(node, h5py.Dataset):
        known = ", ".join(column_names(table)) or "none"
        raise wrong(table, f"the table has no column {name!r}", f"its columns are: {known}")
    require_filters(node)
    return node


def column_names(table: h5py.Group) -> list[str]:
    """Return the names of a table's columns: those in its `colnames`, if it has any."""
    there = [
        name
        for name, node in table.items()
        if isinstance(node, h5py.Dataset) and name != "id" and neurodata_type(node) != "VectorIndex"
    ]
    named = {text(name) for name in np.ravel(table.attrs.get("colnames", there))} | set(INTERVAL)
    return [name for name in there if name in named]


def scalar_columns(table: h5py.Group) -> pd.DataFrame:
    """Return the columns with one number or text per row, indexed by the table's ids.

    Of a column with a few numbers per row, such as suite2p's ``iscell``, each is a column: ``iscell_0``.
    Numbers of a column of an enumeration are replaced by its texts, references by the names of what they
    refer to. Columns that cannot be read are left out, as most are not used: ``attrs["problems"]`` of the
    frame holds the InputError of each.
    """
    rows = n_rows(table)
    frame: dict[str, Any] = {}
    problems: dict[str, InputError] = {}
    for name in column_names(table):
        node = table[name]
        if (
            f"{name}_index" in table
            or node.shape is None
            or node.ndim not in (1, 2)
            or (node.ndim == 2 and (node.dtype.kind not in "biuf" or node.shape[1] > _MOST_PARTS))
            or neurodata_type(node) == "DynamicTableRegion"
        ):
            continue
        try:
            if node.shape[0] != rows:
                raise wrong(
                    node, f"{node.shape[0]} values for {rows} rows", "the table is damaged: repair it"
                )
            require_filters(node)
            values = _scalars(node)
        except InputError as error:
            problems[name] = error
            continue
        if values is not None and node.ndim == 2:
            frame |= {f"{name}_{k}" if node.shape[1] > 1 else name: part for k, part in enumerate(values.T)}
        elif values is not None:
            frame[name] = values
    found = pd.DataFrame(frame, index=pd.Index(_native(table["id"][:]), name="id"))
    found.attrs["problems"] = problems
    return found


def _scalars(node: h5py.Dataset) -> Any:
    """Return a column of one number or text per row, None for values of another type."""
    if h5py.check_string_dtype(node.dtype) is not None:
        return [text(value).strip() for value in node[:]]  # as MATLAB pads texts
    if h5py.check_ref_dtype(node.dtype) is h5py.Reference:
        return [name_of(node.file[ref]) if ref else "" for ref in node[:]]
    if node.dtype.kind not in "biuf":
        return None
    if named := h5py.check_enum_dtype(node.dtype):
        texts = {number: label for label, number in named.items()}
        return [texts.get(number, str(number)) for number in node[:].tolist()]
    if neurodata_type(node) == "EnumData" and node.dtype.kind in "iu":
        elements = node.parent.get(f"{name_of(node)}_elements")
        codes = node[:].astype(np.int64)
        known = [] if elements is None else elements[:].tolist()
        if codes.size and not 0 <= codes.min() <= codes.max() < len(known):
            raise wrong(
                node, f"it numbers {len(known)} elements, but holds {codes.max()}", "repair the table"
            )
        return [text(known[code]) for code in codes]
    return _native(node[:])


def _native(values: NDArray) -> NDArray:
    """Return numbers in the machine's byte order, as pandas needs them."""
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def with_linked_columns(table: h5py.Group, frame: pd.DataFrame) -> pd.DataFrame:
    """Add the columns of the tables that rows point to: the electrodes of units, the types of trials.

    A row that points to rows with different values, or to none, has no value: an empty text or NaN. A name
    that is taken already gets that of the link before it, as in ``electrodes_location``.
    """
    joined = frame.copy()
    for name in column_names(table):
        link = table[name]
        target = _target(link)
        if target is None or link.ndim != 1:
            continue
        others = scalar_columns(target)
        pointed = link[:].astype(np.int64)
        if pointed.size and not 0 <= pointed.min() <= pointed.max() < len(others):
            joined.attrs["problems"][name] = wrong(link, "it points past the end of its table", "repair it")
            continue
        try:
            ragged = f"{name}_index" in table
            bounds = ragged_bounds(table, name) if ragged else np.arange(len(frame) + 1)
        except InputError as error:
            joined.attrs["problems"][name] = error
            continue
        for other in others:
            own = others[other].to_numpy()[pointed]
            groups = [pd.unique(own[a:b]) for a, b in pairwise(bounds)]
            missing = "" if pd.api.types.is_string_dtype(others[other]) else np.nan
            values = [g[0] if len(g) == 1 else missing for g in groups]
            joined[other if other not in joined else f"{name}_{other}"] = values
    return joined


def _target(link: h5py.Dataset) -> h5py.Group | None:
    """Return the table that a column points to, or None if it does not point to one."""
    if neurodata_type(link) != "DynamicTableRegion" or link.dtype.kind not in "iu":
        return None
    try:
        target = link.file[link.attrs["table"]]
        n_rows(target)
    except (KeyError, ValueError, TypeError, InputError):
        return None
    return target


def rows_of_channels(series: h5py.Group) -> tuple[h5py.Group, pd.DataFrame] | None:
    """Return the table of ROIs or electrodes of a series, and its row for each channel, if it has one."""
    for name in ("rois", "electrodes"):
        link = series.get(name)
        if not isinstance(link, h5py.Dataset) or (table := _target(link)) is None:
            continue
        frame = scalar_columns(table)
        rows = link[:].astype(np.int64)
        if rows.ndim == 1 and rows.size and 0 <= rows.min() <= rows.max() < len(frame):
            return table, frame.iloc[rows]
    return None


def require_columns(table: h5py.Group, frame: pd.DataFrame, names: Iterable[str]) -> None:
    """Raise InputError unless a table has these columns, with one number or text per row."""
    for name in names:
        if name not in frame:
            known = ", ".join(map(str, frame.columns))
            raise frame.attrs["problems"].get(name) or wrong(
                table, f"the table has no column {name!r}", f"its columns are: {known or 'none'}"
            )


def select_rows(table: h5py.Group, frame: pd.DataFrame, where: str | None) -> NDArray[np.intp]:
    """Return the positions of the rows that a pandas query keeps (all, without one)."""
    if where is None:
        return np.arange(len(frame))
    known = ", ".join(map(str, frame.columns)) or "none"
    if "@" in where:  # would reach into Python
        raise wrong(table, f"the query {where!r} holds an @", "compare columns with numbers and texts only")
    rows = frame.reset_index()
    if (mixed := _text_beside_number(where, rows)) is not None:  # equal in no row
        holds = "texts" if pd.api.types.is_string_dtype(rows[mixed]) else "numbers"
        remedy = "compare texts with texts, in quotes, and numbers with numbers, without"
        raise wrong(table, f"in the query {where!r}, {mixed!r} holds {holds}", remedy)
    # in an 8-bit column, 0 - 1 would be 255, in one of uint64 2^64 - 1
    whole = rows.select_dtypes("integer")
    signed = {name: "int64" if rows[name].max() < 2**63 else object for name in whole}
    try:
        chosen = rows.astype(signed).eval(where, engine="python")
    except Exception as error:  # pandas raises nearly anything on a bad query
        for name, problem in frame.attrs.get("problems", {}).items():
            if name in where:
                raise problem from error
        raise wrong(table, f"the query {where!r} fails ({error})", f"its columns are: {known}") from error
    # a number would be taken for the label of a row
    if not (isinstance(chosen, pd.Series) and pd.api.types.is_bool_dtype(chosen)):
        raise wrong(
            table, f"the query {where!r} is not a condition", "write a comparison, as in `quality == 1`"
        )
    kept = np.flatnonzero(chosen.fillna(False).to_numpy(dtype=bool))
    if len(kept) == 0:
        raise wrong(table, f"the query {where!r} keeps none of {len(frame)} rows", "loosen it")
    return kept


def _text_beside_number(where: str, frame: pd.DataFrame) -> str | None:
    """Return a numeric column that a query compares with text, or the reverse, if there is one."""
    try:  # in a query, & and | bind as `and` and `or` do
        tree = ast.parse(where.strip().replace("&", " and ").replace("|", " or "), mode="eval")
    except SyntaxError:  # names in backticks, or an invalid query, which pandas reports
        return None
    for node in ast.walk(tree):
        sides = [node.left, *node.comparators] if isinstance(node, ast.Compare) else []
        literals = [s for s in sides if isinstance(s, ast.Constant | ast.List | ast.Tuple)]
        values = [v.value for s in literals for v in ast.walk(s) if isinstance(v, ast.Constant)]
        for name in (s.id for s in sides if isinstance(s, ast.Name) and s.id in frame):
            is_text = pd.api.types.is_string_dtype(frame[name])
            if any(isinstance(value, str) != is_text for value in values):
                return name
    return None


def ragged_bounds(table: h5py.Group, name: str) -> NDArray[np.int64]:
    """Return where each row of a ragged column begins and ends, shape (row + 1,).

    Raises:
        InputError: the index decreases, runs past the end of the column, or stops short of it.
    """
    data = column(table, name)
    index = table.get(f"{name}_index")
    if isinstance(index, h5py.Dataset):
        require_filters(index)
    else:
        raise wrong(data, "the column has no index that says which row owns which values", "repair the table")
    if index.ndim != 1 or index.dtype.kind not in "iu" or data.ndim < 1 or data.dtype.kind not in "iuf":
        raise wrong(data, "the column or its index holds no numbers", "repair the table")
    if index.size != n_rows(table):
        raise wrong(
            index, f"{index.size} index values for {n_rows(table)} rows", "the table is damaged: repair it"
        )
    bounds = np.concatenate([[0], index[:].astype(np.int64)])
    if bounds[-1] != data.shape[0] or (np.diff(bounds) < 0).any():
        raise wrong(
            index,
            f"the ragged index runs to {bounds.max()} but {name} holds {data.shape[0]} values"
            if bounds[-1] != data.shape[0]
            else "the ragged index decreases",
            "the table is damaged: write the file again",
        )
    if (longest := int(np.diff(bounds).max(initial=0))) > _MOST_VALUES:
        raise wrong(data, f"{longest} values of one row are more than fit in memory", "repair the table")
    return bounds


def ragged(table: h5py.Group, name: str, rows: NDArray[np.intp]) -> Iterator[NDArray]:
    """Read a ragged column row by row, so that memory holds one row at a time."""
    bounds = ragged_bounds(table, name)
    data = column(table, name)
    for row in rows:
        yield data[bounds[row] : bounds[row + 1]]
