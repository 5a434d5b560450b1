"""What is inside a file: tables to read, and a config to paste."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from colatent.errors import InputError
from colatent.ingest.clocks import NANOSECONDS
from colatent.ingest.nwb import (
    find,
    get,
    name_of,
    neurodata_type,
    nwb_version,
    open_nwb,
    paths,
    readable,
)
from colatent.ingest.series import is_series, open_series
from colatent.ingest.spikes import require_units
from colatent.ingest.suggestion import Item, suggest_config
from colatent.ingest.tables import n_rows, scalar_columns
from colatent.jobs.terminal import escaped

_SAMPLE_ROWS = 10_000


@dataclass(frozen=True)
class Contents:
    """What is inside one file; rich prints it as tables.

    Attributes:
        version: of NWB.
        items: units tables, series and poses.
        tables: path of each table of intervals -> (number of rows, names of its columns).
        units: the same of each units table.
        config: YAML with everything usable, ready to paste and edit. It is not to be wrapped, as rich would.
    """

    version: str
    items: tuple[Item, ...]
    tables: dict[str, tuple[int, tuple[str, ...]]]
    config: str
    units: dict[str, tuple[int, tuple[str, ...]]]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        inside = Table("kind", "path", "shape", "rate (Hz)", "unit", "gaps", "missing", "problem")
        for i in self.items:
            rate, gaps = ("", "") if np.isnan(i.rate) else (f"{i.rate:.4g}", str(i.gaps))
            inside.add_row(
                *map(printable, (i.kind, i.path, i.shape, rate, i.unit, gaps, i.missing, i.problem))
            )
        trials = Table("table", "rows", "columns (for `where`)")
        for path, (rows, columns) in {**self.units, **self.tables}.items():
            trials.add_row(printable(path), str(rows), printable(", ".join(columns)))
        yield Text(f"NWB {self.version}")
        yield inside
        yield trials


def inspect(nwb: str | Path, allow_external: bool = False) -> Contents:
    """List what a file holds for `colatent`.

    Args:
        nwb: an NWB 2 file, or the URL of one (text such as https://…).
        allow_external: whether links may lead to other files.

    Raises:
        InputError: the file cannot be opened as NWB 2.
    """
    with readable(nwb), open_nwb(nwb, allow_external) as file:
        groups = {p: node for p in paths(file) if isinstance(node := get(file, p), h5py.Group)}
        types = {p: neurodata_type(g) for p, g in groups.items()}
        poses, units, intervals = (
            [p for p, kind in types.items() if kind == wanted]
            for wanted in ("PoseEstimation", "Units", "TimeIntervals")
        )
        inside_pose = set(poses)
        series = [p for p, g in groups.items() if p.rpartition("/")[0] not in inside_pose and is_series(g)]
        items = [_units_item(file, p) for p in units]
        items += [_pose_item(file, p) for p in poses]
        items += [_series_item(file, p) for p in series]
        tables = {p: _columns(groups[p]) for p in intervals}
        cells = {i.path: _columns(groups[i.path]) for i in items if i.kind == "spikes" and not i.problem}
        config = suggest_config(nwb, file, items, tables)
        return Contents(nwb_version(file), tuple(items), tables, config, cells)


def _columns(table: h5py.Group) -> tuple[int, tuple[str, ...]]:
    """Number of rows, and names of the columns with one value a row."""
    return n_rows(table), tuple(map(str, scalar_columns(table)))


def printable(value: str) -> Text:
    """Return text from a file for a terminal: no markup, and no control characters."""
    return Text(escaped(value))


def _units_item(file: h5py.File, path: str) -> Item:
    table = find(file, path)
    try:
        spikes = require_units(table)["spike_times"].shape[0]
    except InputError as error:
        return Item("spikes", path, problem=str(error).partition(": ")[2])
    rows = n_rows(table)
    return Item("spikes", path, f"{rows} units, {spikes} spikes", rows, unit="s")


def _pose_item(file: h5py.File, path: str) -> Item:
    points = [child for child in find(file, path).values() if is_series(child)]
    if not points:
        return Item("pose", path, problem="no keypoints")
    one = _series_item(file, str(points[0].name).strip("/"))
    shape = f"{len(points)} keypoints: {', '.join(map(name_of, points))}; {one.shape}"
    channels = len(points) * one.channels
    return Item("pose", path, shape, channels, one.rate, one.unit, one.gaps, one.missing, one.problem)


def _series_item(file: h5py.File, path: str) -> Item:
    node = find(file, path)
    try:
        series = open_series(node, None, 3.0)
    except InputError as error:
        return Item("continuous", path, problem=str(error).partition(": ")[2])
    rate = NANOSECONDS / series.clock.step
    shape = " x ".join(map(str, node["data"].shape))
    channels, gaps = len(series.channels), series.clock.gaps
    return Item(
        "continuous",
        path,
        shape,
        channels,
        rate,
        series.unit,
        gaps,
        _missing(series),
        extent=series.clock.extent,
    )


def _missing(series: Any) -> str:
    """Share of NaN in the first rows: a look at all of a raw file would take minutes."""
    rows = min(series.clock.size, _SAMPLE_ROWS)
    share = np.isnan(series.read(0, rows)).mean()
    whole = "" if rows == series.clock.size else f" of the first {rows} rows"
    return f"{share:.1%}{whole}" if share else ""
