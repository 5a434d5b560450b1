"""Training by stochastic gradients: Adam, cosine schedule, early stopping, resumable.

The loop knows nothing of the model: it gets a module and a function that returns its loss on some
trials. Some of the training trials are held out of the updates; the weights that did best on them
win. Interrupted and resumed, a run ends with the same bytes.
"""

import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

Loss = Callable[[Tensor, torch.Generator], Tensor]
Progress = Callable[[str], None]

CHECKPOINT = "checkpoint.pt"
MAX_GRADIENT_NORM = 5.0
FINAL_LEARNING_RATE = 0.02  # share of the first
VALIDATION_SEED = 1


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to train.

    Attributes:
        epochs: at most.
        batch_size: trials a step.
        patience: epochs without a better held-out loss after which training stops.
        validation_share: share of the trials that is held out of the updates.
        report_every: epochs between progress lines and checkpoints.
    """

    epochs: int
    batch_size: int
    patience: int
    validation_share: float = 0.1
    report_every: int = 10

    def __post_init__(self) -> None:
        if min(self.epochs, self.batch_size, self.patience, self.report_every) < 1:
            raise ValueError("epochs, batch_size, patience and report_every must be at least 1")
        if not 0 <= self.validation_share < 1:
            raise ValueError(f"validation_share must lie in [0, 1), not {self.validation_share}")


@dataclass
class Trainer:
    """One training run.

    Attributes:
        module: what is trained, in place.
        loss: mean loss over the trials of an index tensor; it may draw from the generator and
            look at ``module.training``.
        optimizer: over the module's parameters.
        history: one row an epoch: ``epoch, loss, held_out_loss, learning_rate, skipped_steps``.
    """

    module: nn.Module
    loss: Loss
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    generator: torch.Generator
    history: list[dict[str, float]] = field(default_factory=list)
    best_loss: float = math.inf
    best_epoch: int = 0

    def __post_init__(self) -> None:
        self.best_weights = _copy(self.module.state_dict())
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(self.optimizer, self._cosine)

    def _cosine(self, epoch: int) -> float:
        turn = 0.5 * (1 + math.cos(math.pi * epoch / self.schedule.epochs))
        return FINAL_LEARNING_RATE + (1 - FINAL_LEARNING_RATE) * turn

    def run(
        self, n_trials: int, progress: Progress, folder: Path | None = None, fingerprint: str = ""
    ) -> None:
        """Train, and leave the module with the weights of the best epoch.

        Args:
            n_trials: number of trials; the held-out ones are drawn here.
            progress: gets plain lines.
            folder: where a checkpoint is kept, and resumed from if ``fingerprint`` agrees.
            fingerprint: what identifies data, options and seed.

        Raises:
            FloatingPointError: the loss was never finite.
        """
        order = torch.randperm(n_trials, generator=self.generator)
        n_held_out = min(math.ceil(self.schedule.validation_share * n_trials), n_trials - 1)
        # With nothing to hold out, the training trials themselves say which epoch was best.
        held_out = order[:n_held_out] if n_held_out else order
        trained = order[n_held_out:]
        if folder is not None:
            self._resume(folder, fingerprint, progress)
        while len(self.history) < self.schedule.epochs:
            self._epoch(trained, held_out)
            epoch = len(self.history)
            stop = epoch - self.best_epoch >= self.schedule.patience or self._diverged(trained)
            if epoch % self.schedule.report_every == 0 or stop:
                progress(self._line())
                if folder is not None:
                    self._save(folder, fingerprint)
            if stop:
                break
        if not math.isfinite(self.best_loss):
            raise FloatingPointError(
                "the loss was never finite: check the observations, lower the learning rate"
            )
        self.module.load_state_dict(self.best_weights)
        progress(f"kept epoch {self.best_epoch}: held-out loss {self.best_loss:.4f}")

    def _epoch(self, trained: Tensor, held_out: Tensor) -> None:
        self.module.train()
        order = trained[torch.randperm(len(trained), generator=self.generator)]
        losses = [self._step(batch) for batch in order.split(self.schedule.batch_size)]
        finite = [x for x in losses if math.isfinite(x)]
        held_out_loss = self._held_out_loss(held_out)
        self.history.append(
            {
                "epoch": len(self.history) + 1,
                "loss": sum(finite) / len(finite) if finite else math.nan,
                "held_out_loss": held_out_loss,
                "learning_rate": float(self.scheduler.get_last_lr()[0]),
                "skipped_steps": len(losses) - len(finite),
            }
        )
        self.scheduler.step()
        if held_out_loss < self.best_loss:
            self.best_loss, self.best_epoch = held_out_loss, len(self.history)
            self.best_weights = _copy(self.module.state_dict())

    def _step(self, batch: Tensor) -> float:
        """Make one update and return the loss; make none, and return NaN, if it is not finite."""
        self.optimizer.zero_grad(set_to_none=True)
        try:
            loss = self.loss(batch, self.generator)
        except torch.linalg.LinAlgError:
            return math.nan
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.module.parameters(), MAX_GRADIENT_NORM)
        if not (torch.isfinite(loss) and torch.isfinite(norm)):
            return math.nan
        self.optimizer.step()
        return float(loss.detach())

    def _held_out_loss(self, held_out: Tensor) -> float:
        self.module.eval()
        # The same noise each time, so that epochs are compared on equal terms.
        generator = torch.Generator().manual_seed(VALIDATION_SEED)
        try:
            with torch.no_grad():
                return float(self.loss(held_out, generator))
        except torch.linalg.LinAlgError:
            return math.inf

    def _diverged(self, trained: Tensor) -> bool:
        return self.history[-1]["skipped_steps"] * self.schedule.batch_size >= len(trained)

    def _line(self) -> str:
        row = self.history[-1]
        epoch = f"epoch {row['epoch']}/{self.schedule.epochs}"
        line = f"{epoch}: loss {row['loss']:.4f}, held-out {row['held_out_loss']:.4f}"
        skipped = sum(r["skipped_steps"] for r in self.history)
        return line + (f", {skipped} steps skipped (not finite)" if skipped else "")

    def _save(self, folder: Path, fingerprint: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        partial = folder / f"{CHECKPOINT}.partial"
        torch.save(
            {
                "fingerprint": fingerprint,
                "module": self.module.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "scheduler": self.scheduler.state_dict(),
                "generator": self.generator.get_state(),
                "best": (self.best_loss, self.best_epoch, self.best_weights),
                "history": self.history,
            },
            partial,
        )
        os.replace(partial, folder / CHECKPOINT)

    def _resume(self, folder: Path, fingerprint: str, progress: Progress) -> None:
        path = folder / CHECKPOINT
        if not path.exists():
            return
        try:
            saved: dict[str, Any] = torch.load(path, weights_only=True)
        except Exception:  # torch raises nearly anything on a damaged file
            progress("the checkpoint there cannot be read: starting afresh")
            return
        if saved["fingerprint"] != fingerprint:
            progress("the checkpoint there is of another fit (data, options or seed): starting afresh")
            return
        self.module.load_state_dict(saved["module"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.scheduler.load_state_dict(saved["scheduler"])
        self.generator.set_state(saved["generator"])
        self.best_loss, self.best_epoch, self.best_weights = saved["best"]
        self.history[:] = saved["history"]
        progress(f"resumed after epoch {len(self.history)}")


def _copy(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in weights.items()}
