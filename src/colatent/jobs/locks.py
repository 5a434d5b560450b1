"""Locks that say who holds them; one workflow at a time on a tree of results, wherever it is run from.

Snakemake's own lock lies in the folder it runs in: two folders whose configs name the same results would
write over one another.
"""

import fcntl
import os
import platform
from pathlib import Path
from typing import TextIO

from colatent.errors import InputError
from colatent.jobs.terminal import escaped

LOCK = ".lock"
_held: list[TextIO] = []  # a file that is closed holds no lock


def hold_results(results: str | Path) -> None:
    """Keep other workflows from a tree of results until this process ends, however it ends.

    The lock is the kernel's (``flock``): nothing is left to remove after a crash. Whether it is seen on
    other machines is up to the file system: NFS passes it on since Linux 2.6.12, unless mounted with
    ``local_lock``; Lustre needs the option ``flock``. Where there are no locks, nothing is refused.

    Raises:
        InputError: another workflow is at work on them, or the file of the lock cannot be opened.
    """
    handle = _opened(Path(results) / LOCK)
    try:
        holder = other_holder(handle)
    except OSError:
        holder = None
    if holder is not None:
        handle.close()
        raise InputError(
            f"{results}: another workflow is at work on these results ({holder}); "
            "wait for it to end, or give another folder under `results`"
        )
    sign(handle, f"process {os.getpid()} on {platform.node()}, run in {os.getcwd()}")
    _held.append(handle)


def other_holder(file: TextIO) -> str | None:
    """Lock a file until it is closed; if another process has it locked, return what that one left in it.

    Raises:
        OSError: there are no locks here.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        return escaped(file.read().strip())
    return None


def sign(file: TextIO, holder: str) -> None:
    """Leave in a locked file who holds it."""
    file.truncate(0)
    file.write(f"{holder}\n")
    file.flush()


def _opened(file: Path) -> TextIO:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        return file.open("a+", encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise InputError(
            f"{file}: the lock of these results cannot be opened ({error.strerror or error}); remove it or "
            "change permissions, or give another folder under `results`"
        ) from None
