"""Progress of a job: on the terminal and in its log file."""

import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from colatent.errors import InputError


@contextmanager
def job(log: str | Path, label: str) -> Iterator[Callable[[str], None]]:
    """Run a job's body with a function that reports progress.

    Lines go to the terminal with the job's label, and to ``log`` with the seconds since the start.
    An InputError ends the process with its one sentence; any other error leaves its traceback in
    the log as well.
    """
    started = time.monotonic()
    Path(log).parent.mkdir(parents=True, exist_ok=True)
    with Path(log).open("w", buffering=1) as file:

        def progress(line: str) -> None:
            file.write(f"{time.monotonic() - started:8.1f} s  {line}\n")
            print(f"[{label}] {line}", file=sys.stderr, flush=True)

        def warn(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
            file.write(f"{time.monotonic() - started:8.1f} s  {category.__name__}: {message}\n")

        with warnings.catch_warnings():
            warnings.showwarning = warn
            try:
                yield progress
            except InputError as error:
                progress(f"error: {error}")
                sys.exit(1)
            except Exception as error:
                file.write(traceback.format_exc())
                progress(f"error: {type(error).__name__}: {error} (traceback in {log})")
                raise
        progress(f"done in {time.monotonic() - started:.1f} s")
