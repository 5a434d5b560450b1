"""Where an interrupted training run is kept: its whole state, and its history while it runs.

`checkpoint.pt` is replaced as a whole or not at all. It is a line with the SHA-256 of what follows, since
PyTorch looks at no checksum of its own, and then what PyTorch writes: tensors and plain values only, so
that reading it executes no code. `history.csv` gets a row an epoch, for whoever watches.

Nothing but a run's own checkpoint is worth keeping here: what cannot be used is said to be, and goes.
"""

import csv
import hashlib
import io
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from colatent.store.atomic import atomically, writing

STATE = "checkpoint.pt"
HISTORY = "history.csv"


@dataclass(frozen=True)
class Checkpoint:
    """The checkpoint of one training run.

    Attributes:
        folder: holds the two files.
        identity: what the run must agree in to go on: part (``config``, ``data``, ``code``, ...) ->
            anything that tells it from another's.
    """

    folder: Path
    identity: Mapping[str, str]

    def part(self, name: str) -> "Checkpoint":
        """Return the checkpoint of one of several runs of the same fit."""
        return Checkpoint(self.folder / name, {**self.identity, "run": name})

    def save(self, state: Mapping[str, Any]) -> None:
        """Replace the state on disk.

        Raises:
            InputError: nothing can be written there.
        """
        buffer = io.BytesIO()
        torch.save({"identity": dict(self.identity), **state}, buffer)
        content, path = buffer.getbuffer(), self.folder / STATE
        with writing(path, "a checkpoint"), atomically(path) as made, made.open("wb") as file:
            file.write(_checksum(content) + b"\n")
            file.write(content)
            file.flush()
            os.fsync(file.fileno())

    def load(self, progress: Callable[[str], None]) -> dict[str, Any] | None:
        """Return the state on disk; None, and why, if there is none that this run can go on from.

        Raises:
            InputError: what is in its place cannot be removed.
        """
        path = self.folder / STATE
        if not os.path.lexists(path):
            return None
        try:
            saved = _read(path)
            identity = dict(saved.pop("identity"))
        except Exception:  # torch raises nearly anything on what others wrote
            self.refuse("it cannot be read, or is not as it was written", progress)
            return None
        if other := [part for part in self.identity if identity.get(part) != self.identity[part]]:
            self.refuse(f"it is of other {' and '.join(other)}", progress)
            return None
        return saved

    def refuse(self, why: str, progress: Callable[[str], None]) -> None:
        """Say that the run does not go on from the state on disk, and remove it."""
        path = self.folder / STATE
        progress(f"the checkpoint {path} is refused, {why}: starting afresh")
        with writing(path, "a checkpoint"):
            _remove(path)

    def begin_history(self, rows: list[dict[str, float]]) -> int:
        """Start the live history with the epochs that are kept; return how many that were there are lost."""
        path = self.folder / HISTORY
        with writing(path, "a history"):
            lines = path.read_bytes().splitlines() if path.is_file() else []
            _remove(path)
        for row in rows:
            self.append(row)
        return max(len(lines) - 1 - len(rows), 0)

    def append(self, row: Mapping[str, float]) -> None:
        """Add an epoch to the live history."""
        path = self.folder / HISTORY
        with writing(path, "a history"), path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(row), lineterminator="\n")
            if file.tell() == 0:
                writer.writeheader()
            writer.writerow(row)


def _read(path: Path) -> dict[str, Any]:
    """Return what was saved; an exception of nearly any kind if it is damaged."""
    if not path.is_file():  # to open a pipe would wait for ever
        raise ValueError("not a file")
    checksum, _, content = path.read_bytes().partition(b"\n")
    if checksum != _checksum(content):
        raise ValueError("not as it was written")
    saved: dict[str, Any] = torch.load(io.BytesIO(content), weights_only=True)
    return saved


def _checksum(content: bytes | memoryview) -> bytes:
    return hashlib.sha256(content).hexdigest().encode()


def _remove(path: Path) -> None:
    """Remove whatever is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
