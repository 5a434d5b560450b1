"""Where an interrupted training run is kept: its whole state, and its history while it runs.

`checkpoint.pt` is replaced as a whole or not at all, and holds tensors and plain values only: reading
it executes no code. `history.csv` gets a row an epoch, for whoever watches.
"""

import csv
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

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
        """Replace the state on disk."""
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = self.folder / f"{STATE}.partial"
        with partial.open("wb") as file:
            torch.save({"identity": dict(self.identity), **state}, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, self.folder / STATE)

    def load(self, progress: Callable[[str], None]) -> dict[str, Any] | None:
        """Return the state on disk; None, and why, if there is none that this run can go on from."""
        path = self.folder / STATE
        if not path.exists():
            return None
        try:
            saved: dict[str, Any] = torch.load(path, weights_only=True)
            identity = saved.pop("identity")
        except Exception:  # torch raises nearly anything on a damaged file
            progress(f"the checkpoint {path} is refused, it cannot be read: starting afresh")
            return None
        other = [part for part in self.identity if identity.get(part) != self.identity[part]]
        if other:
            parts = " and ".join(other)
            progress(f"the checkpoint {path} is refused, it is of other {parts}: starting afresh")
            return None
        return saved

    def begin_history(self, rows: list[dict[str, float]]) -> int:
        """Start the live history with the epochs that are kept; return how many that were there are lost."""
        path = self.folder / HISTORY
        there = max(len(path.read_text(encoding="utf-8").splitlines()) - 1, 0) if path.exists() else 0
        path.unlink(missing_ok=True)
        for row in rows:
            self.append(row)
        return max(there - len(rows), 0)

    def append(self, row: Mapping[str, float]) -> None:
        """Add an epoch to the live history."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / HISTORY).open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(row), lineterminator="\n")
            if file.tell() == 0:
                writer.writeheader()
            writer.writerow(row)
