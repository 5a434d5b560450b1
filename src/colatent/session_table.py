"""The table of sessions: which NWB file each session lies in."""

import os
import re
from pathlib import Path

import pandas as pd
from pydantic import Field

from colatent.config import Settings
from colatent.errors import InputError


class Session(Settings):
    """One row of the table of sessions."""

    session: str
    nwb: Path
    metadata: dict[str, str] = Field(default_factory=dict)


def load_sessions(table: str | Path) -> dict[str, Session]:
    """Read the table of sessions.

    Paths in the column ``nwb`` may hold environment variables and ``~``, and are relative to the
    table. Any further columns are kept as metadata.
    """
    table = Path(table)
    if not table.is_file():
        raise InputError(f"{table}: there is no such table of sessions; see the key `sessions`")
    rows = pd.read_csv(table, sep="\t", dtype=str, comment="#", keep_default_na=False)
    missing = {"session", "nwb"} - set(rows.columns)
    if missing:
        raise InputError(
            f"{table}: the column {sorted(missing)[0]!r} is missing; the table needs the columns "
            "session and nwb, separated by tabs"
        )
    if rows.empty:
        raise InputError(f"{table}: holds no session; add a line with its name and its NWB file")
    sessions: dict[str, Session] = {}
    for line, row in enumerate(rows.to_dict("records"), start=2):
        name = row["session"]
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
            raise InputError(
                f"{table}, line {line}: the session name {name!r} must be letters, digits, . _ and -"
            )
        if name in sessions:
            raise InputError(f"{table}, line {line}: the session {name!r} stands there twice")
        sessions[name] = Session(
            session=name,
            nwb=_resolve(row["nwb"], table, line),
            metadata={k: v for k, v in row.items() if k not in ("session", "nwb")},
        )
    return sessions


def _resolve(text: str, table: Path, line: int) -> Path:
    # a relative path inside a variable was written in the user's shell: it counts from there
    start = re.match(r"\$\{?(\w+)\}?", text)
    base = Path.cwd() if start and start.group(1) in os.environ else table.parent
    expanded = os.path.expanduser(os.path.expandvars(text))
    unset = re.search(r"\$\{?(\w+)\}?", expanded)
    if unset:
        raise InputError(
            f"{table}, line {line}: the environment variable {unset.group(1)} in {text!r} is not set; "
            f"set it, as in `export {unset.group(1)}=/path/to/data`"
        )
    path = Path(os.path.normpath(base / expanded))
    here = Path.cwd()
    return path.relative_to(here) if path.is_absolute() and path.is_relative_to(here) else path
