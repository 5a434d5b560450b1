"""Tables of scores, cell by cell."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from colatent.results.compare.differences import (
    Difference,
    Differs,
    compare_labels,
    compare_numbers,
    only_in_one,
)
from colatent.results.compare.plain import plain
from colatent.errors import InputError

# columns that say what a row is about; all others are measured
KEYS = (
    "session", "model", "fold", "seed", "heldout", "given", "predicted", "channel", "metric",
    "other", "group", "latent", "n_latents",
    "varied", "share",
)  # fmt: skip


def compare_tables(a: Path, b: Path) -> list[Difference]:
    """Return how two CSV tables differ: columns, rows, then cells column by column.

    Rows that tell what they are about (``KEYS``) are matched by that, so that a model more or less does not
    shift all others. Numbers are compared within one metric, because a tolerance is a share of the largest.

    Raises:
        InputError: one of them is no table.
    """
    tables = [_read(a), _read(b)]
    found: list[Difference] = only_in_one("column ", tables[0].columns, tables[1].columns)
    common = [c for c in tables[0].columns if c in tables[1].columns]
    if common != [c for c in tables[1].columns if c in common]:
        found.append(Differs("columns", "the same in another order"))
    one, other, unmatched = _matched(tables[0][common], tables[1][common])
    found += unmatched
    if len(one) != len(other):  # rows that cannot be told apart: which belong together is unknown
        return found
    for column in common:
        found += _compare_column(column, one, other)
    return found


def _read(path: Path) -> pd.DataFrame:
    try:
        # without a header: then a row that is longer than the first one is an error, not an index
        cells = pd.read_csv(path, header=None, dtype=str, na_filter=False, encoding="utf-8").fillna("")
    except (OSError, ValueError) as error:
        reason = plain(error, 200)
        raise InputError(
            f"{plain(path)}: cannot be read as a table ({reason}); delete it and run again"
        ) from None
    names = [str(name) for name in cells.iloc[0]]
    if len(set(names)) < len(names):
        raise InputError(f"{plain(path)}: names a column twice; delete it and run again")
    return cells.iloc[1:].set_axis(names, axis=1).reset_index(drop=True)


def _matched(a: pd.DataFrame, b: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame, list[Difference]]:
    """Return the rows that both tables have, in the order of the first, and how the others differ."""
    keys = [k for k in KEYS if k in a.columns]
    if a[keys].equals(b[keys]) and len(a) == len(b):
        return a, b, []
    if not keys or a.duplicated(keys).any() or b.duplicated(keys).any():
        rows = Differs("rows", "number", str(len(a)), str(len(b)))
        return a, b, [rows] if len(a) != len(b) else []
    one, other = (t.set_axis(pd.MultiIndex.from_frame(t[keys])) for t in (a, b))
    in_other, in_one = one.index.isin(other.index), other.index.isin(one.index)
    found: list[Difference] = [
        Differs("rows", f"{count} only in {name}")
        for count, name in ((int((~in_other).sum()), "A"), (int((~in_one).sum()), "B"))
        if count
    ]
    one, other = one[in_other], other[in_one]
    if not one.index.equals(other.index):
        found.append(Differs("rows", "the same in another order"))
    return one, other.loc[one.index], found


def _compare_column(column: str, a: pd.DataFrame, b: pd.DataFrame) -> list[Difference]:
    if column in KEYS or "metric" not in a:
        return _compare_cells(column, a[column].to_numpy(str), b[column].to_numpy(str))
    found: list[Difference] = []
    for metric in a["metric"].unique():
        rows = (a["metric"] == metric).to_numpy()
        cells = [t[column].to_numpy(str)[rows] for t in (a, b)]
        found += _compare_cells(f"{column} of {metric}", *cells)
    return found


def _compare_cells(part: str, a: NDArray[np.str_], b: NDArray[np.str_]) -> list[Difference]:
    numbers = [_numbers(cells) for cells in (a, b)]
    if part in KEYS or numbers[0] is None or numbers[1] is None:
        return compare_labels(part, a, b)
    found = compare_numbers(part, numbers[0], numbers[1], differs=a != b)
    # two NaN are no difference in numbers, but nothing and `nan` are other cells
    emptied = ((a == "") != (b == "")) & np.isnan(numbers[0]) & np.isnan(numbers[1])
    return found + compare_labels(part, a[emptied], b[emptied])


def _numbers(cells: NDArray[np.str_]) -> NDArray[np.int64] | NDArray[np.float64] | None:
    """Return cells as integers, or as numbers, empty ones as NaN; None if there is other text among them."""
    if all(re.fullmatch(r"-?[0-9]{1,18}", cell) for cell in cells):
        return cells.astype(np.int64)
    try:
        return np.array([float(cell or "nan") for cell in cells])
    except ValueError:
        return None
