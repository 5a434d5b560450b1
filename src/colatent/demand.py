"""Memory and time that a job asks for, told from the size of its data and its model.

Asked for generously, about three times what was measured: a job that gets too little is killed. What is
still too little grows with each attempt (in the rules).
"""

import json
import math
from functools import cache
from pathlib import Path

import numpy as np

from colatent.config import Distributed, MMGPVAEModel, Model
from colatent.store import MARKER

BASE_MB = 1500  # Python with its libraries, and what surrounds the arrays


def decoded_mb(store: str | Path) -> float:
    """Return the size of a store's arrays in memory (MB); zero while there is no such store."""
    marker = Path(store) / MARKER
    return _decoded_mb(marker.parent, marker.stat().st_mtime_ns) if marker.is_file() else 0.0


@cache
def _decoded_mb(folder: Path, written_ns: int) -> float:
    """Read what is the same for all jobs on a session only once."""
    nodes = (json.loads(file.read_text()) for file in (folder / "data.zarr").rglob("zarr.json"))
    arrays = (node for node in nodes if node["node_type"] == "array")
    return sum(math.prod(a["shape"]) * np.dtype(a["data_type"]).itemsize for a in arrays) / 1e6


def ingest_mb(
    recording_mb: float, read_mb: float, threads: int, distributed: Distributed | None = None
) -> int:
    """Memory of ingest (MB): blocks of the file in several copies, and the bins, less than the recording."""
    here = distributed and distributed.cluster == "local" and distributed.reads(recording_mb / 1e3)
    processes = threads + 1 if here else 1
    return math.ceil(BASE_MB * processes + 8 * read_mb * threads + min(recording_mb, 32_000))


def ingest_minutes(recording_mb: float) -> int:
    """Time of ingest (minutes): 10 MB a second, slower than any disk that was met."""
    return math.ceil(30 + recording_mb / 600)


def fit_mb(session_mb: float) -> int:
    """Memory of a fit, or of scoring a model's fits (MB), from the decoded size of the session's store."""
    return math.ceil(BASE_MB + 80 * session_mb)


def fit_minutes(session_mb: float, model: Model) -> int:
    """Time of a fit on one core (minutes), from the decoded size of the session's store."""
    epochs = 500.0
    if isinstance(model, MMGPVAEModel):
        epochs = model.epochs * (1 + (model.restarts - 1) / 5)  # a start takes a fifth of them
    return math.ceil(30 + epochs * session_mb / 150)
