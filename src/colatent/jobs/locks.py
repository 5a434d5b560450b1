"""Locks that say who holds them; one workflow at a time on a tree of results, wherever it is run from.

Snakemake's own lock lies in the folder it runs in: two folders whose configs name the same results would
write over one another. The kernel drops a lock with its process. Other machines see it where the file system
passes it on (NFS, unless mounted with ``local_lock``; Lustre with ``flock``); where there are no locks,
nothing is refused.
"""

import errno
import os
import platform
from pathlib import Path

from filelock import FileLock, Timeout

from colatent.errors import InputError
from colatent.jobs.terminal import escaped

LOCK = ".lock"
_held: list[FileLock] = []  # one that is forgotten is released


def hold_results(results: str | Path) -> None:
    """Keep other workflows from a tree of results until this process ends, however it ends.

    Raises:
        InputError: another workflow is at work on them, or the file of the lock cannot be opened.
    """
    file = Path(results) / LOCK
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        _held.append(take(file, f"process {os.getpid()} on {platform.node()}, run in {os.getcwd()}"))
    except Timeout:
        raise InputError(
            f"{results}: another workflow is at work on these results ({holder(file)}); "
            "wait for it to end, or give another folder under `results`"
        ) from None
    except OSError as error:
        raise InputError(
            f"{file}: the lock of these results cannot be opened ({error.strerror or error}); remove it "
            "or change permissions, or give another folder under `results`"
        ) from None


def take(file: Path, holder: str, wait: bool = False) -> FileLock:
    """Lock a file where the file system has locks, and leave in it who holds it.

    Raises:
        Timeout: another process has it locked, and this one is not to wait.
        OSError: it cannot be opened.
    """
    lock = FileLock(file, timeout=-1 if wait else 0, thread_local=False)
    try:
        lock.acquire()
    except OSError as error:
        if error.errno != errno.ENOLCK:
            raise
    file.write_text(f"{holder}\n", encoding="utf-8", errors="backslashreplace")
    return lock


def holder(file: Path) -> str:
    """Return who left its name in a lock."""
    return escaped(file.read_text(encoding="utf-8", errors="replace").strip())


def is_held(file: Path) -> bool:
    """Is a lock held by a process?"""
    if not file.is_file():
        return False
    try:
        with FileLock(file, timeout=0, thread_local=False):
            return False
    except OSError as error:
        return isinstance(error, Timeout)
