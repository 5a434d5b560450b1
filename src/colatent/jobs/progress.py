"""Progress of a job: on the terminal and in its log file."""

import os
import platform
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import Timeout

from colatent.errors import InputError
from colatent.jobs.causes import likely_cause
from colatent.jobs.locks import holder, is_held, take
from colatent.jobs.signals import Interrupted, interruptible

DONE, FAILED, CAUSE = "done in", "error:", "; likely cause:"


@contextmanager
def job(log: str | Path, label: str) -> Iterator[Callable[[str], None]]:
    """Run a job's body with a function that reports progress.

    Lines go to the terminal with the job's label, and to ``log`` with the seconds since the start.
    An InputError, or a signal to stop, ends the process with its one sentence; any other error leaves its
    traceback in the log as well. The last line names the likely cause, where it shows.

    Args:
        log: the log file. A file beside it is locked while the job runs: so it can be told from one that was
            killed, and a job that an earlier, killed Snakemake left running is waited for, not raced.
        label: the rule and what it works on, the rule's name first.
    """
    started = time.monotonic()
    log = Path(log)
    log.parent.mkdir(parents=True, exist_ok=True)
    log.unlink(missing_ok=True)  # not emptied: a job that was left running would write on in it
    with log.open("w", buffering=1, encoding="utf-8", errors="backslashreplace") as file:

        def write(line: str) -> None:
            file.write(f"{time.monotonic() - started:8.1f} s  {line}\n")

        def progress(line: str) -> None:
            write(line)
            with suppress(OSError):  # the terminal may be gone: that is what SIGHUP says
                print(f"[{label}] {line}", file=sys.stderr, flush=True)

        def warn(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
            write(f"{category.__name__}: {message}")

        write(f"{label}: {_whereabouts()}")
        with warnings.catch_warnings(), interruptible():
            warnings.showwarning = warn
            try:
                with _locked(_lock_of(log), progress):
                    yield progress
            except InputError as error:
                progress(f"{FAILED} {error}")
                sys.exit(1)
            except Interrupted as error:
                progress(f"{FAILED} {error}{_advice(str(error), label)}")
                sys.exit(1)
            except Exception as error:
                file.write(traceback.format_exc())
                said = f"{type(error).__name__}: {error}"
                progress(f"{FAILED} {said} (traceback in {log}){_advice(said, label)}")
                raise
        progress(f"{DONE} {time.monotonic() - started:.1f} s")


def is_running(log: Path) -> bool:
    """Is the job of this log at work?"""
    return is_held(_lock_of(log))


def _lock_of(log: Path) -> Path:
    """Return the file that is locked: not the log, which Snakemake deletes before the next job for it."""
    return log.with_name(f".{log.name}.lock")


@contextmanager
def _locked(file: Path, progress: Callable[[str], None]) -> Iterator[None]:
    """Hold a lock, and leave in it who does; wait for a job that holds it, and say so."""
    try:
        lock = take(file, _whereabouts())
    except Timeout:
        progress(
            f"waiting for this job of an earlier run, at work since {holder(file)}; to end it, `kill` "
            "that process there, or `scancel` a SLURM job"
        )
        lock = take(file, _whereabouts(), wait=True)
    try:
        yield
    finally:
        lock.release()


def _whereabouts() -> str:
    slurm = os.environ.get("SLURM_JOB_ID")
    began = time.strftime("%Y-%m-%d %H:%M:%S")
    return f"{began} on {platform.node()}, process {os.getpid()}" + (f", SLURM job {slurm}" if slurm else "")


def _advice(text: str, label: str) -> str:
    cause = likely_cause(text)
    if cause is None:
        return ""
    return f"{CAUSE} {cause.name}. To change: {cause.remedy.format(rule=label.split()[0])}"
