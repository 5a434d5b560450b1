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
    """Resources of the ingest job.

    Attributes:
        threads: number of processes on its machine.
        memory_mb: total memory (MB), shared by the processes.
        minutes: time limit of the SLURM jobs that read with it.
        logs: folder for the logs of SLURM jobs.
    """

    threads: int
    memory_mb: float
    minutes: float
    logs: Path


@contextmanager
def reading_processes(
    settings: "Distributed | None", nwb: str | Path, job: Job, progress: Callable[[str], None]
) -> "Iterator[Client | None]":
    """Yield a dask client if the recording is large enough for several processes, else None.

    The processes open the file themselves, under the same path.

    Args:
        settings: from which size, where, and how many.
        nwb: the recording; a streamed one is read by this process alone.
        job: resources of this job.
        progress: receives a line when processes are started.

    Raises:
        InputError: a package that starts them is missing, or they did not start in time.
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
                f"{PATIENCE_S // 60} minutes; check their jobs, or leave out `distributed`"
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
