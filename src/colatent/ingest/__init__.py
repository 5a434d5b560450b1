"""From NWB files to trials on common bins: opening, reading, checking, aligning."""

from typing import Any


def __getattr__(name: str) -> Any:
    # Loaded when asked for: checking a file before any job starts needs neither dask nor SciPy.
    if name == "ingest_session":
        from colatent.ingest.session import ingest_session

        return ingest_session
    if name == "inspect":
        from colatent.ingest.contents import inspect

        return inspect
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
