"""Files and folders are made beside their place and take it whole, so that nothing there is half-written.

A job that is killed leaves what it was making; the next job for the same place clears it away. Jobs may also
outlive the workflow that started them, and go on beside the next one's: nobody clears away what one that
still runs is making, which it holds a lock on.
"""

import errno
import fcntl
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

MOST_TRIES = 5  # to lock a file; some file systems number one file differently each time
ABANDONED = 24 * 3600.0  # s without a change, where the file system has no locks


@contextmanager
def building(place: str | Path) -> Iterator[Path]:
    """Yield a path beside a place; the file or folder made there takes the place if the block ends well.

    The path keeps the place's suffix. What lay at the place before goes; after an error it stays, and what
    was made goes. The folder of the place must be there.

    Raises:
        OSError: what was made cannot be moved.
    """
    place = Path(place)
    _clear(place)
    path = place.with_name(f".{place.stem}.building-{secrets.token_hex(4)}{place.suffix}")
    lock, old = _beside(path)
    held = _lock(lock)
    try:
        yield path
        if path.is_dir():
            _replace_folder(place, path, old)
        else:
            path.replace(place)
    finally:
        for rest in (path, old, lock):
            _remove(rest)
        os.close(held)


def _beside(path: Path) -> tuple[Path, Path]:
    """Return the lock of what is made at a path, and where what it replaces lies meanwhile."""
    return path.with_name(f"{path.name}.lock"), path.with_name(f"{path.name}.old")


def _lock(lock: Path) -> int:
    """Make a file and lock it for as long as this process holds it open; return its descriptor."""
    held = os.open(lock, os.O_CREAT | os.O_RDWR, 0o666)
    for _ in range(MOST_TRIES):
        with suppress(OSError):  # a file system without locks
            fcntl.flock(held, fcntl.LOCK_EX)
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(held), lock.stat()):
                break
        # another job took it for left behind before it was locked
        os.close(held)
        held = os.open(lock, os.O_CREAT | os.O_RDWR, 0o666)
    return held


def _clear(place: Path) -> None:
    """Remove what killed jobs were making for a place."""
    stem, suffix = re.escape(place.stem), re.escape(place.suffix)
    ours = re.compile(rf"(\.{stem}\.building-[0-9a-f]{{8}}{suffix})(?:\.lock|\.old)?")
    for name in {match[1] for entry in os.listdir(place.parent) if (match := ours.fullmatch(entry))}:
        path = place.with_name(name)
        lock, old = _beside(path)
        with suppress(OSError):
            held = os.open(lock, os.O_CREAT | os.O_RDWR, 0o666)
            try:
                if _is_left_behind(held, path):
                    if not place.exists():  # killed between the old one's going and the new one's coming
                        with suppress(OSError):
                            old.rename(place)
                    for rest in (path, old, lock):
                        _remove(rest)
            finally:
                os.close(held)


def _is_left_behind(lock: int, path: Path) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return path.exists() and time.time() - path.stat().st_mtime > ABANDONED
    return True


def _replace_folder(place: Path, path: Path, old: Path) -> None:
    try:
        while True:
            with suppress(FileNotFoundError):
                place.rename(old)
            try:
                path.rename(place)
                return
            except OSError as error:
                # another job has put its own there since
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
            _remove(old)
    except BaseException:
        with suppress(OSError):
            old.rename(place)
        raise


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink(missing_ok=True)
