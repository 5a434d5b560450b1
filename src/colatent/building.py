"""Files and folders are made beside their place and take it whole, so that nothing there is half-written.

A job that is killed leaves what it was making; the next job for the same place clears it away. Jobs may also
outlive the workflow that started them, and go on beside the next one's: nobody clears away what one that
still runs is making.
"""

import errno
import os
import platform
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

ABANDONED = 24 * 3600.0  # s without a change, for what a job on another machine left: it cannot be asked


@contextmanager
def building(place: str | Path) -> Iterator[Path]:
    """Yield a path beside a place; the file or folder made there takes the place if the block ends well.

    The path keeps the place's suffix. What lay at the place before goes; after an error it stays, and what
    was made goes. The folder of the place must be there.

    Raises:
        OSError: what was made cannot be moved.
    """
    place = Path(place)
    for left_behind in _left_behind(place):
        _remove(left_behind)
    path = place.with_name(f".{place.stem}.building-{platform.node()}-{os.getpid()}{place.suffix}")
    try:
        yield path
        if path.is_dir():
            _replace_folder(place, path)
        else:
            path.replace(place)
    finally:
        _remove(path)


def _left_behind(place: Path) -> Iterator[Path]:
    """Yield what jobs that run no more were making for a place."""
    stem, suffix = re.escape(place.stem), re.escape(place.suffix)
    ours = re.compile(rf"\.{stem}\.building-(.*)-(\d+)(?:\.old)?{suffix}")
    for entry in place.parent.iterdir():
        if match := ours.fullmatch(entry.name):
            node, process = match.groups()
            if not (_runs(int(process)) if node == platform.node() else _changed_lately(entry)):
                yield entry


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # another user's
        return True
    return True


def _changed_lately(path: Path) -> bool:
    with suppress(FileNotFoundError):
        return time.time() - path.lstat().st_mtime < ABANDONED
    return False


def _replace_folder(place: Path, path: Path) -> None:
    old = path.with_name(f"{path.name.removesuffix(place.suffix)}.old{place.suffix}")
    try:
        while True:
            _remove(old)
            with suppress(FileNotFoundError):
                place.rename(old)
            try:
                path.rename(place)
                return
            except OSError as error:
                # another job has put its own there since
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
    finally:
        _remove(old)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink(missing_ok=True)
