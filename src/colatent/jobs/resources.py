"""Memory and time that a job asks for, estimated from the size of its data and its model.

Asked for generously, about three times what `tests/benchmarks/demand.py` measured: a job that gets too
little is killed. What is still too little grows with each attempt (in the rules).
"""

import json
import math
from functools import cache
from pathlib import Path

import numpy as np

from colatent.config import Distributed, Model
from colatent.config.models import Size
from colatent.store.stores import MARKER

BASE_MB = 1500  # Python with its libraries, and what surrounds the arrays
BASE_MINUTES = 30  # also for what waits: a slow disk, a core that others use


def session_size(store: str | Path) -> Size:
    """Return the size of a session's store; zero while there is no such store."""
    marker = Path(store) / MARKER
    return _size(marker.parent, marker.stat().st_mtime_ns) if marker.is_file() else Size(0.0, 0)


@cache
def _size(folder: Path, written_ns: int) -> Size:
    """Read what is the same for all jobs on a session only once."""
    nodes = (json.loads(file.read_text()) for file in (folder / "data.zarr").rglob("zarr.json"))
    arrays = [node for node in nodes if node["node_type"] == "array"]
    mb = sum(math.prod(a["shape"]) * np.dtype(a["data_type"]).itemsize for a in arrays) / 1e6
    return Size(mb, max((math.prod(a["shape"][:2]) for a in arrays if len(a["shape"]) == 3), default=0))


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


def reading_mb(size: Size) -> int:
    """Memory of a job that reads a session and fits nothing (MB): its split, a page, an export."""
    return math.ceil(BASE_MB + 15 * size.mb)


def fit_mb(size: Size, model: Model) -> int:
    """Memory of a fit (MB)."""
    return math.ceil(BASE_MB + (8 * model.n_copies + 4) * size.mb + model.posterior_mb(size))


def score_mb(size: Size, model: Model) -> int:
    """Memory of scoring a model's fits, one after the other (MB)."""
    return math.ceil(BASE_MB + 30 * size.mb + 1.5 * model.posterior_mb(size))


def fit_and_score_mb(size: Size, model: Model) -> int:
    """Memory of a job that fits and scores (MB), as learning curves do."""
    return max(fit_mb(size, model), score_mb(size, model))


def fit_minutes(size: Size, model: Model) -> int:
    """Time of a fit on one core (minutes)."""
    return math.ceil(BASE_MINUTES + model.fit_seconds(size) / 60)


def score_minutes(size: Size, n_fits: int) -> int:
    """Time of scoring a model's fits on one core (minutes)."""
    return math.ceil(BASE_MINUTES + 5 * size.mb * n_fits / 60)
