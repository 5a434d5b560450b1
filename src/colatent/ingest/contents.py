"""What is inside a file: tables to read, and a config section to paste."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import yaml
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from colatent.errors import InputError
from colatent.ingest.clocks import NANOSECONDS
from colatent.ingest.nwb import (
    find,
    name_of,
    neurodata_type,
    nwb_version,
    open_nwb,
    paths,
    readable,
)
from colatent.ingest.series import is_series, open_series
from colatent.ingest.spikes import require_units
from colatent.ingest.tables import n_rows, scalar_columns

_SAMPLE_ROWS = 10_000
_DEFAULT_BIN = 0.02


@dataclass(frozen=True)
class Item:
    """One thing in a file that a modality could be made of; `problem` says why not."""

    kind: str
    path: str
    shape: str = ""
    rate: float = np.nan
    unit: str = ""
    gaps: int = 0
    missing: str = ""
    problem: str = ""


@dataclass(frozen=True)
class Contents:
    """What is inside one file; rich prints it as tables and a config section.

    Attributes:
        version: of NWB.
        items: units tables, series and poses.
        tables: path of each table of intervals -> (number of rows, names of its columns).
    """

    version: str
    items: tuple[Item, ...]
    tables: dict[str, tuple[int, tuple[str, ...]]]

    def config_section(self) -> str:
        """Return the sections `alignment` and `modalities` as YAML, ready to paste and edit."""
        usable = [item for item in self.items if not item.problem]
        slowest = min((i.rate for i in usable if i.kind != "spikes"), default=1 / _DEFAULT_BIN)
        bin_width = max(_DEFAULT_BIN, float(f"{1 / slowest:.3g}"))
        alignment: dict[str, Any] = {"window": 100 * bin_width, "gap": 10 * bin_width}
        if self.tables:
            path = next(iter(self.tables))
            alignment = {"intervals": path, "start": "start_time", "stop": "stop_time"}
        modalities: dict[str, Any] = {}
        for item in usable:
            name = _modality_name(item.path, modalities)
            modalities[name] = {"kind": item.kind, "source": item.path}
        section = {
            "results": "results/my_recording",
            "alignment": {**alignment, "bin_width": bin_width},
            "modalities": modalities,
        }
        return yaml.safe_dump(section, sort_keys=False, allow_unicode=True)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        inside = Table("kind", "path", "shape", "rate (Hz)", "unit", "gaps", "missing", "problem")
        for i in self.items:
            rate = "" if np.isnan(i.rate) else f"{i.rate:.4g}"
            inside.add_row(
                *map(printable, (i.kind, i.path, i.shape, rate, i.unit, str(i.gaps), i.missing, i.problem))
            )
        trials = Table("intervals", "rows", "columns")
        for path, (rows, columns) in self.tables.items():
            trials.add_row(printable(path), str(rows), printable(", ".join(columns)))
        yield Text(f"NWB {self.version}")
        yield inside
        yield trials
        yield Text(self.config_section())


def inspect(nwb: str | Path, allow_external: bool = False) -> Contents:
    """List what a file holds for `colatent`.

    Args:
        nwb: an NWB 2 file, or the URL of one (text such as https://…).
        allow_external: whether links may lead to other files.

    Raises:
        InputError: the file cannot be opened as NWB 2.
    """
    with readable(nwb), open_nwb(nwb, allow_external) as file:
        groups = {p: node for p in paths(file) if isinstance(node := file.get(p), h5py.Group)}
        poses = [p for p, g in groups.items() if neurodata_type(g) == "PoseEstimation"]
        series = [p for p, g in groups.items() if is_series(g) and p.rpartition("/")[0] not in poses]
        units = [p for p, g in groups.items() if neurodata_type(g) == "Units"]
        intervals = [p for p, g in groups.items() if neurodata_type(g) == "TimeIntervals"]
        items = [_units_item(file, p) for p in units]
        items += [_pose_item(file, p) for p in poses]
        items += [_series_item(file, p) for p in series]
        tables = {p: (n_rows(groups[p]), tuple(map(str, scalar_columns(groups[p])))) for p in intervals}
        return Contents(nwb_version(file), tuple(items), tables)


def printable(value: str) -> Text:
    """Return text from a file for a terminal: no markup, and no control characters."""
    return Text("".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in value))


def _units_item(file: h5py.File, path: str) -> Item:
    table = find(file, path)
    try:
        spikes = require_units(table)["spike_times"].shape[0]
    except InputError as error:
        return Item("spikes", path, problem=str(error).partition(": ")[2])
    return Item("spikes", path, f"{n_rows(table)} units, {spikes} spikes", unit="s")


def _pose_item(file: h5py.File, path: str) -> Item:
    points = [child for child in find(file, path).values() if is_series(child)]
    if not points:
        return Item("pose", path, problem="no keypoints")
    one = _series_item(file, str(points[0].name).strip("/"))
    shape = f"{len(points)} keypoints: {', '.join(map(name_of, points))}; {one.shape}"
    return Item("pose", path, shape, one.rate, one.unit, one.gaps, one.missing, one.problem)


def _series_item(file: h5py.File, path: str) -> Item:
    node = find(file, path)
    try:
        series = open_series(node, None, 3.0)
    except InputError as error:
        return Item("continuous", path, problem=str(error).partition(": ")[2])
    rate = NANOSECONDS / series.clock.step
    shape = " x ".join(map(str, node["data"].shape))
    return Item("continuous", path, shape, rate, series.unit, series.clock.gaps, _missing(series))


def _missing(series: Any) -> str:
    """Share of NaN in the first rows: a look at all of a raw file would take minutes."""
    rows = min(series.clock.size, _SAMPLE_ROWS)
    share = np.isnan(series.read(0, rows)).mean()
    whole = "" if rows == series.clock.size else f" of the first {rows} rows"
    return f"{share:.1%}{whole}" if share else ""


def _modality_name(path: str, taken: dict[str, Any]) -> str:
    name = re.sub(r"\W", "_", path.rsplit("/", 1)[-1], flags=re.ASCII)
    name = name if name[:1].isalpha() else f"m_{name}"
    return name if name not in taken else f"{name}_{len(taken)}"
