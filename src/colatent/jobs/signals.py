"""Signals that ask a job to stop: SLURM's warning before a time limit, scancel, a shutdown, Ctrl-C.

A job ends at once and says so. Only what has something to save first puts the signal off. Ctrl-C reaches
Snakemake and its jobs alike: it starts no others and waits for these. A second one ends them at once.
What a job was started to ignore (``nohup``: SIGHUP) it ignores.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP)


class Interrupted(BaseException):
    """The job was told to stop: one sentence with the signal and what was kept.

    Like KeyboardInterrupt it is no Exception: code that goes on after any error of a library, such as one in
    reading a checkpoint, would swallow it.
    """


@contextmanager
def interruptible() -> Iterator[None]:
    """Raise Interrupted where the code is when a signal comes."""

    def stop(number: int, _: Any) -> None:
        raise Interrupted(f"stopped by {signal.Signals(number).name}")

    with _handler(stop):
        yield


@contextmanager
def postponed() -> Iterator[list[str]]:
    """Collect the names of signals that come; the code inside looks at the list and stops by itself."""
    received: list[str] = []
    with _handler(lambda number, _: received.append(signal.Signals(number).name)):
        yield received


@contextmanager
def _handler(handler: Callable[[int, Any], None]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield  # Python hands signals to the main thread only
        return

    def heed(number: int, frame: Any) -> None:
        if number == signal.SIGINT:
            signal.signal(number, signal.SIG_DFL)  # a second one does not wait for Python
        handler(number, frame)

    heeded = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, heed) for number in heeded}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
