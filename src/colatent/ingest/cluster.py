"""Processes that share the reading of a large recording: on this machine, or as jobs of SLURM."""

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from colatent.config.location import is_url, shown
from colatent.errors import InputError

if TYPE_CHECKING:
    from distributed import Client, SpecCluster

    from colatent.config import Distributed

PATIENCE_S = 30 * 60


class Job(NamedTuple):
    """What the job has that reads a recording.

    Attributes:
        threads: as many processes run on its machine.
        memory_mb: in all (MB), of which each process gets its share.
        minutes: a job of SLURM that reads with it gets as many.
        logs: folder for what jobs of SLURM say.
    """

    threads: int
    memory_mb: float
    minutes: float
    logs: Path


@contextmanager
def reading_processes(
    settings: "Distributed | None", nwb: str | Path, job: Job, progress: Callable[[str], None]
) -> "Iterator[Client | None]":
    """Yield a client of processes where a recording is large enough to be read by them, else None.

    They open the file themselves, under the same path.

    Args:
        settings: when, where and how many.
        nwb: the recording; one that is streamed is read by this process alone.
        job: what this process may use.
        progress: receives a line about what is started.

    Raises:
        InputError: what would start them is not installed, or they did not start in time.
    """
    if settings is None or is_url(nwb) or not settings.reads(Path(nwb).stat().st_size / 1e9):
        yield None
        return
    from distributed import Client

    here = settings.cluster == "local"
    n = job.threads if here else settings.workers
    with (_on_this_machine if here else _as_slurm_jobs)(n, job) as cluster, Client(cluster) as client:
        progress(f"{shown(nwb)} is read by {n} processes ({settings.cluster})")
        try:
            client.wait_for_workers(1, timeout=PATIENCE_S)
        except TimeoutError:
            raise InputError(
                f"distributed.cluster {settings.cluster}: none of {n} processes started within "
                f"{PATIENCE_S // 60} minutes; see what became of their jobs, or leave `distributed` out"
            ) from None
        yield client


def _share_of_memory(job: Job) -> str:
    return f"{math.floor(job.memory_mb / (job.threads + 1))}MB"  # one for the job's own process


def _on_this_machine(n: int, job: Job) -> "SpecCluster":
    from distributed import LocalCluster

    return LocalCluster(
        n_workers=n,
        threads_per_worker=1,
        memory_limit=_share_of_memory(job),
        dashboard_address=None,
        silence_logs=logging.ERROR,
    )


def _as_slurm_jobs(n: int, job: Job) -> "SpecCluster":
    try:
        from dask_jobqueue import SLURMCluster
    except ImportError:
        raise InputError(
            "`distributed.cluster: slurm` needs dask-jobqueue: pip install dask-jobqueue"
        ) from None
    # partition, account and the like come from dask's own file: ~/.config/dask/jobqueue.yaml
    cluster: SpecCluster = SLURMCluster(
        cores=1,
        processes=1,
        memory=_share_of_memory(job),
        walltime=str(math.ceil(job.minutes)),
        log_directory=str(job.logs),
        silence_logs=logging.ERROR,
    )
    cluster.scale(n)
    return cluster
