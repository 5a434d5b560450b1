"""Signals that ask a job to stop: SLURM's warning before a time limit, scancel, a shutdown.

A job ends at once and says so. Only what has something to save first puts the signal off.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class Interrupted(Exception):
    """The job was told to stop: one sentence with the signal and what was kept."""


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
    before = {number: signal.signal(number, handler) for number in SIGNALS}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
