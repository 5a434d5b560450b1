"""The table of sessions: which NWB file each session lies in."""

import os
import re
from pathlib import Path

from pydantic import Field

from colatent.config import Settings
from colatent.config.location import is_url, protocol
from colatent.errors import InputError

SIMULATED = ".simulated.nwb"  # suffix of files that the workflow writes itself


class Session(Settings):
    """One row of the table of sessions."""

    session: str
    nwb: str | Path  # text if it is a URL
    metadata: dict[str, str] = Field(default_factory=dict)

    @property
    def files(self) -> list[Path]:
        """The local file that the workflow needs; none for a URL."""
        return [] if is_url(self.nwb) else [Path(self.nwb)]

    @property
    def url(self) -> str:
        """The URL, or nothing for a file."""
        return str(self.nwb) if is_url(self.nwb) else ""


def is_simulated(nwb: str | Path) -> bool:
    """Return whether a recording is a file that the workflow writes itself."""
    return not is_url(nwb) and str(nwb).endswith(SIMULATED)


def load_sessions(table: str | Path) -> dict[str, Session]:
    """Read the table of sessions.

    Paths in the column ``nwb`` may hold environment variables and ``~``, and are relative to the
    table; a URL stays text, so that it never becomes a path. Any further columns are kept as metadata.
    """
    table = Path(table)
    if not table.is_file():
        raise InputError(f"{table}: there is no such table of sessions; see the key `sessions`")
    try:
        text = table.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{table}: is not UTF-8 text; save it as a tab-separated text file") from None
    lines = [(i, line.split("\t")) for i, line in enumerate(text.splitlines(), start=1) if _holds_a_row(line)]
    header = [cell.strip() for cell in lines[0][1]] if lines else []
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise InputError(f"{table}: the column {twice[0]!r} appears twice; give each its own name")
    missing = {"session", "nwb"} - set(header)
    if missing:
        raise InputError(
            f"{table}: the column {sorted(missing)[0]!r} is missing; the table needs the columns "
            "session and nwb, separated by tabs"
        )
    if len(lines) == 1:
        raise InputError(f"{table}: has no sessions; add a line with its name and its NWB file")
    sessions: dict[str, Session] = {}
    for line, cells in lines[1:]:
        if len(cells) != len(header):
            raise InputError(
                f"{table}, line {line}: {len(cells)} values for {len(header)} columns; separate them by "
                "single tabs"
            )
        row = dict(zip(header, (cell.strip() for cell in cells), strict=True))
        name = row["session"]
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}", name):
            raise InputError(
                f"{table}, line {line}: the session name {name!r} must be letters, digits, . _ and - "
                "(up to 100 of them)"
            )
        if name in sessions:
            raise InputError(f"{table}, line {line}: the session {name!r} appears twice")
        sessions[name] = Session(
            session=name,
            nwb=_resolve(row["nwb"], table, line),
            metadata={k: v for k, v in row.items() if k not in ("session", "nwb")},
        )
    return sessions


def _holds_a_row(line: str) -> bool:
    return bool(line.strip()) and not line.startswith("#")


def _resolve(text: str, table: Path, line: int) -> str | Path:
    # a relative path inside a variable was set in the user's shell: it is relative to that folder
    start = re.match(r"\$\{?(\w+)\}?", text)
    base = Path.cwd() if start and start.group(1) in os.environ else table.parent
    parts = [os.path.expandvars(part) for part in text.split("$$")]  # a name may hold a dollar, written $$
    expanded = os.path.expanduser("$".join(parts))
    unset = next((found for part in parts if (found := re.search(r"\$\{?(\w+)\}?", part))), None)
    if unset:
        raise InputError(
            f"{table}, line {line}: the environment variable {unset.group(1)} in {text!r} is not set; "
            f"set it, as in `export {unset.group(1)}=/path/to/data` (a dollar in a name is written $$)"
        )
    if is_url(expanded):
        try:
            protocol(expanded)
        except InputError as error:
            raise InputError(f"{table}, line {line}: {error}") from None
        return expanded
    path = Path(os.path.normpath(base / expanded))
    here = Path.cwd()
    return path.relative_to(here) if path.is_absolute() and path.is_relative_to(here) else path
