"""Files and folders are made beside their place and take it whole, so that nothing there is half-written.

What is made lies in a hidden folder, locked while its job runs. A job that is killed leaves the folder; the
next job for the same place clears it away. Jobs may outlive the workflow that started them, and go on beside
the next one's: what is locked stays.
"""

import errno
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from colatent.errors import InputError

_LINGER_S = 0.1  # after an error, threads of a library may go on writing for a while
_MOST_TRIES = 20


@contextmanager
def atomically(place: str | Path) -> Iterator[Path]:
    """Yield a path beside a place; the file or folder made there takes the place if the block ends well.

    The path has the place's name. What lay at the place before goes; after an error it stays, and what was
    made goes. The folder of the place must be there.

    Raises:
        OSError: what was made cannot be moved.
    """
    place = Path(place)
    _clear(place)
    folder, lock = _locked_folder(place)
    path = folder / place.name
    try:
        yield path
        if path.is_dir():
            _replace_folder(place, path, folder / "old")
        else:
            path.replace(place)
    except BaseException:
        for _ in range(_MOST_TRIES):
            shutil.rmtree(folder, ignore_errors=True)
            time.sleep(_LINGER_S)
            if not folder.exists():
                break
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        lock.release()


@contextmanager
def writing(place: Path, what: str) -> Iterator[None]:
    """Make the folder of a place; say in one sentence why it cannot be written."""
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        blocked = next((above for above in place.parents if above.exists() and not above.is_dir()), place)
        raise InputError(
            f"{blocked}: {what} cannot be written ({error.strerror or error}); make room, change permissions "
            "or remove what is in its place, and run again"
        ) from error


def write_text(file: Path, text: str, what: str) -> None:
    """Write a file, whole or not at all.

    Raises:
        InputError: it, which is called ``what``, cannot be written.
    """
    with writing(file, what), atomically(file) as made:
        made.write_text(text, encoding="utf-8")


def _locked_folder(place: Path) -> tuple[Path, FileLock]:
    """Make a folder for what is being made, and hold its lock, where the file system has locks."""
    while True:
        folder = place.with_name(f".{place.name}.making-{secrets.token_hex(4)}")
        folder.mkdir()
        lock = _lock_of(folder)
        try:
            lock.acquire()
        except (FileNotFoundError, Timeout):  # another job took it for left behind before it was locked
            shutil.rmtree(folder, ignore_errors=True)
            continue
        except OSError:
            pass
        return folder, lock


def _lock_of(folder: Path) -> FileLock:
    return FileLock(folder / "lock", timeout=0, thread_local=False)


def _clear(place: Path) -> None:
    """Remove what killed jobs were making for a place."""
    ours = re.compile(rf"\.{re.escape(place.name)}\.making-[0-9a-f]{{8}}")
    for folder in [entry for entry in place.parent.iterdir() if ours.fullmatch(entry.name)]:
        with suppress(OSError, Timeout), _lock_of(folder):
            if not place.exists():  # killed between the old one's going and the new one's coming
                with suppress(OSError):
                    (folder / "old").rename(place)
            shutil.rmtree(folder, ignore_errors=True)


def _replace_folder(place: Path, path: Path, old: Path) -> None:
    try:
        while path.exists():
            with suppress(FileNotFoundError):
                place.rename(old)
            try:
                path.rename(place)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                shutil.rmtree(old, ignore_errors=True)  # another job has put its own there since
    except BaseException:
        with suppress(OSError):
            old.rename(place)
        raise
