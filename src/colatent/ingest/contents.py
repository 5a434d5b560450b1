"""What is inside a file: tables to read, and a config to paste."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from colatent.config import Modality
from colatent.config.sections import sections_of
from colatent.errors import InputError
from colatent.ingest.modalities.base import Candidate, FileGroups, reader_of
from colatent.ingest.nwb.file import get, neurodata_type, nwb_version, open_nwb, paths, readable
from colatent.ingest.nwb.tables import INTERVAL, n_rows, scalar_columns
from colatent.ingest.suggestion import suggest_config
from colatent.jobs.terminal import escaped


@dataclass(frozen=True)
class Contents:
    """What is inside one file; rich prints it as tables.

    Attributes:
        version: of NWB.
        items: candidates for modalities: units tables, series, poses.
        tables: path of each table of intervals -> (number of rows, names of its columns).
        config: YAML with everything usable, ready to paste and edit; print it plainly, as rich wraps lines.
    """

    version: str
    items: tuple[Candidate, ...]
    tables: dict[str, tuple[int, tuple[str, ...]]]
    config: str

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        inside = Table("kind", "path", "shape", "rate (Hz)", "unit", "gaps", "missing", "problem")
        for i in self.items:
            rate, gaps = ("", "") if np.isnan(i.rate) else (f"{i.rate:.4g}", str(i.gaps))
            inside.add_row(
                *map(printable, (i.kind, i.path, i.shape, rate, i.unit, gaps, i.missing, i.problem))
            )
        trials = Table("table", "rows", "columns (for `where`)")
        units = {i.path: (i.channels, i.columns) for i in self.items if i.columns}
        for path, (rows, columns) in {**units, **self.tables}.items():
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
        contents = FileGroups(groups, {p: neurodata_type(g) for p, g in groups.items()})
        kinds: Any = sections_of(Modality).values()
        items = [item for kind in kinds for item in reader_of(kind).candidates(contents)]
        tables = {p: found for p, group in groups.items() if (found := _intervals(group)) is not None}
        config = suggest_config(nwb, file, items, tables)
        return Contents(nwb_version(file), tuple(items), tables, config)


def _intervals(group: h5py.Group) -> tuple[int, tuple[str, ...]] | None:
    """Number of rows, and names of the columns, of a table of intervals; None for another group."""
    if not {"id", *INTERVAL} <= set(group):
        return None
    try:
        return n_rows(group), tuple(map(str, scalar_columns(group)))
    except InputError:
        return None


def printable(value: str) -> Text:
    """Return text from a file safe for a terminal: without markup and control characters."""
    return Text(escaped(value))
