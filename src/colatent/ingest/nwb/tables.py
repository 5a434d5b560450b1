"""Columns of NWB's DynamicTables: plain and ragged."""

import ast
from collections.abc import Iterator
from typing import Any

import h5py
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from colatent.ingest.nwb.file import dataset, neurodata_type, require_filters, text, wrong

_MOST_ROWS = 10**7
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
    """Return the names of a table's columns, index columns left out."""
    return [
        name
        for name, node in table.items()
        if isinstance(node, h5py.Dataset) and name != "id" and neurodata_type(node) != "VectorIndex"
    ]


def scalar_columns(table: h5py.Group) -> pd.DataFrame:
    """Return the columns with one number or string per row, indexed by the table's ids."""
    rows = n_rows(table)
    frame: dict[str, Any] = {}
    for name in column_names(table):
        node = table[name]
        if (
            f"{name}_index" in table
            or node.shape is None
            or node.ndim != 1
            or neurodata_type(node) == "DynamicTableRegion"
        ):
            continue
        if node.shape[0] != rows:
            raise wrong(node, f"{node.shape[0]} values for {rows} rows", "the table is damaged: repair it")
        require_filters(node)
        if h5py.check_string_dtype(node.dtype) is not None:
            frame[name] = [text(value) for value in node[:]]
        elif node.dtype.kind in "biuf":
            frame[name] = node[:]
    return pd.DataFrame(frame, index=pd.Index(table["id"][:], name="id"))


def select_rows(table: h5py.Group, frame: pd.DataFrame, where: str | None) -> NDArray[np.intp]:
    """Return the positions of the rows that a pandas query keeps (all, without one)."""
    if where is None:
        return np.arange(len(frame))
    known = ", ".join(map(str, frame.columns))
    if "@" in where:  # would reach into Python
        raise wrong(table, f"the query {where!r} holds an @", "compare columns with numbers and texts only")
    rows = frame.reset_index()
    if (mixed := _text_beside_number(where, rows)) is not None:  # equal in no row
        holds = "texts" if pd.api.types.is_string_dtype(rows[mixed]) else "numbers"
        remedy = "compare texts with texts, in quotes, and numbers with numbers, without"
        raise wrong(table, f"in the query {where!r}, {mixed!r} holds {holds}", remedy)
    # in an 8-bit column, 0 - 1 would be 255
    narrow = rows.select_dtypes(["int8", "uint8", "int16", "uint16", "int32", "uint32"])
    try:
        chosen = rows.astype(dict.fromkeys(narrow, np.int64)).eval(where, engine="python")
    except Exception as error:  # pandas raises nearly anything on a bad query
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
    if not isinstance(index, h5py.Dataset):
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
