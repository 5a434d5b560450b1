"""Training by stochastic gradients: Adam, cosine schedule, early stopping, resumable.

The loop knows nothing of the model: it gets a module and a function that returns its loss on some
trials. Some of the training trials are held out of the updates; the weights that did best on them
win. Interrupted and resumed, a run ends with the same bytes.
"""

import copy
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from colatent.jobs.checkpoint import Checkpoint
from colatent.jobs.signals import Interrupted, postponed
from colatent.models.base import FitRun, Progress

Loss = Callable[[Tensor, torch.Generator], tuple[Tensor, Mapping[str, Tensor]]]
RunPart = tuple[Progress, Checkpoint | None]  # gets lines; keeps the state

MAX_GRADIENT_NORM = 5.0
FINAL_LEARNING_RATE = 0.02  # share of the first
COLUMNS = ("epoch", "loss", "held_out_loss", "learning_rate", "skipped_steps")
VALIDATION_SEED = 1


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to train.

    Attributes:
        epochs: at most.
        batch_size: trials per step.
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
        loss: mean loss over the trials of an index tensor, and the terms that make it up, by name;
            it may draw from the generator and look at ``module.training``.
        optimizer: over the module's parameters.
        history: one row per epoch: ``epoch, loss, held_out_loss, learning_rate, skipped_steps``, and
            the terms of the loss.
        changed: epoch after which the loss was changed (`go_on_with`), 0 before.
    """

    module: nn.Module
    loss: Loss
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    generator: torch.Generator
    history: list[dict[str, float]] = field(default_factory=list)
    best_loss: float = math.inf
    best_epoch: int = 0
    changed: int = 0

    def __post_init__(self) -> None:
        self.best_weights = copy_weights(self.module.state_dict())
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(self.optimizer, self._cosine)

    def _cosine(self, epoch: int) -> float:
        turn = 0.5 * (1 + math.cos(math.pi * epoch / self.schedule.epochs))
        return FINAL_LEARNING_RATE + (1 - FINAL_LEARNING_RATE) * turn

    def run(self, order: Tensor, progress: Progress, checkpoint: Checkpoint | None = None) -> None:
        """Train, and leave the module with the weights of the best epoch, ready for use; see `train`.

        Raises:
            FloatingPointError: the loss was never finite.
        """
        self.train(self.schedule.epochs, order, progress, checkpoint)
        if not math.isfinite(self.best_loss):
            when = f", from epoch {self.changed + 1} on" if self.changed else ""
            raise FloatingPointError(
                f"the loss was never finite{when}: check the observations, lower the learning rate"
            )
        self.module.load_state_dict(self.best_weights)
        self.module.eval()
        progress(f"kept epoch {self.best_epoch}: held-out loss {self.best_loss:.4f}")

    def train(
        self, epochs: int, order: Tensor, progress: Progress, checkpoint: Checkpoint | None = None
    ) -> None:
        """Train until this many epochs are done, or training stops early.

        Args:
            order: the trials in random order; the first ones are held out.
            progress: gets plain lines.
            checkpoint: where the run is kept at an interval, and from where it goes on.

        Raises:
            Interrupted: a signal asked to stop; the checkpoint was written before.
        """
        judges, trained = self._judges(order), order[len(self.held_out(order)) :]
        if checkpoint is not None and not self.history:
            self._resume(checkpoint, progress)
            if self.changed:  # it was interrupted after these epochs
                return
        first, started = len(self.history), time.monotonic()
        with postponed() as signals:
            stop = False
            while not (stop or self._finished(epochs)):
                self._epoch(trained, judges)
                if checkpoint is not None:
                    checkpoint.append(self.history[-1])
                stop = bool(signals)  # asked once: what comes after it waits for the next epoch
                due = len(self.history) % self.schedule.report_every == 0
                if due or stop or self._finished(epochs):
                    progress(self._line((len(self.history) - first) / (time.monotonic() - started)))
                    if checkpoint is not None:
                        checkpoint.save(self._state())
        if signals:  # also where all is trained: who told the job to stop does not wait for what follows
            kept = "the checkpoint is written" if checkpoint else "nothing is kept"
            raise Interrupted(f"stopped by {signals[0]} after epoch {len(self.history)}; {kept}")

    def go_on_with(self, loss: Loss) -> None:
        """Train with another loss from here on, if epochs are left; a resumed run may do so already."""
        self.loss = loss
        if not (self.changed or self._diverged() or len(self.history) >= self.schedule.epochs):
            self.changed = self.best_epoch = len(self.history)
            self.best_loss = math.inf

    def promise(self, epochs: int) -> float:
        """Return the lowest held-out loss of the first epochs; infinite if the last one made no step."""
        rows = self.history[: self.changed or epochs]
        if math.isnan(rows[-1]["loss"]):
            return math.inf
        return min(
            (row["held_out_loss"] for row in rows if math.isfinite(row["held_out_loss"])), default=math.inf
        )

    def begin_with_present_weights(self, order: Tensor) -> None:
        """Take the current weights as the baseline that later epochs must beat."""
        self.best_loss = self._held_out_loss(self._judges(order))

    def held_out(self, order: Tensor) -> Tensor:
        """Return the trials that are held out of the updates."""
        return order[: min(math.ceil(self.schedule.validation_share * len(order)), len(order) - 1)]

    def _judges(self, order: Tensor) -> Tensor:
        """Return the trials that say which epoch was best: the held-out ones, or all if none are."""
        held_out = self.held_out(order)
        return held_out if len(held_out) else order

    def _finished(self, epochs: int) -> bool:
        epoch = len(self.history)
        if epoch == 0:
            return False
        return self._diverged() or epoch >= epochs or epoch - self.best_epoch >= self.schedule.patience

    def _diverged(self) -> bool:
        """Did the last epoch make no step?"""
        return math.isnan(self.history[-1]["loss"])

    def _epoch(self, trained: Tensor, judges: Tensor) -> None:
        self.module.train()
        order = trained[torch.randperm(len(trained), generator=self.generator)]
        batches = order.split(self.schedule.batch_size)
        steps = [step for batch in batches if (step := self._step(batch)) is not None]
        held_out_loss = self._held_out_loss(judges)
        row = dict.fromkeys(self.history[0] if self.history else COLUMNS, math.nan)
        for name in steps[0] if steps else ():
            row[name] = sum(step[name] for step in steps) / len(steps)
        row |= {
            "epoch": len(self.history) + 1,
            "held_out_loss": held_out_loss,
            "learning_rate": float(self.scheduler.get_last_lr()[0]),
            "skipped_steps": len(batches) - len(steps),
        }
        self.history.append(row)
        self.scheduler.step()
        if held_out_loss < self.best_loss:
            self.best_loss, self.best_epoch = held_out_loss, len(self.history)
            self.best_weights = copy_weights(self.module.state_dict())

    def _step(self, batch: Tensor) -> dict[str, float] | None:
        """Make one update and return the loss and its terms; make none if the loss is not finite."""
        self.optimizer.zero_grad(set_to_none=True)
        try:
            loss, parts = self.loss(batch, self.generator)
        except torch.linalg.LinAlgError:
            return None
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.module.parameters(), MAX_GRADIENT_NORM)
        if not (torch.isfinite(loss) and torch.isfinite(norm)):
            return None
        self.optimizer.step()
        return {name: float(value.detach()) for name, value in {"loss": loss, **parts}.items()}

    def _held_out_loss(self, judges: Tensor) -> float:
        self.module.eval()
        # The same noise each time, so that epochs are compared on equal terms.
        generator = torch.Generator().manual_seed(VALIDATION_SEED)
        try:
            with torch.no_grad():
                return float(self.loss(judges, generator)[0])
        except torch.linalg.LinAlgError:
            return math.inf

    def _line(self, rate: float) -> str:
        """One line on the last epoch; ``rate`` in epochs per second."""
        row = self.history[-1]
        parts = [name for name in row if name not in COLUMNS and not math.isnan(row[name])]
        losses = f"loss {row['loss']:.4f}, held-out {row['held_out_loss']:.4f}"
        terms = "".join(f", {name.replace('_', ' ')} {row[name]:.4f}" for name in parts)
        left = (self.schedule.epochs - row["epoch"]) / rate
        line = f"epoch {row['epoch']}/{self.schedule.epochs}: {losses}{terms}; "
        line += f"{rate:.3g} epochs/s, at most {left:.0f} s left"
        skipped = sum(r["skipped_steps"] for r in self.history)
        return line + (f"; {skipped} steps skipped (not finite)" if skipped else "")

    def _state(self) -> dict[str, Any]:
        return {
            "module": self.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "generator": self.generator.get_state(),  # all that is random is drawn from it
            "best": (self.best_loss, self.best_epoch, self.best_weights),
            "changed": self.changed,
            "history": self.history,
        }

    def _resume(self, checkpoint: Checkpoint, progress: Progress) -> None:
        saved = checkpoint.load(progress)
        if saved is not None:
            before = copy.deepcopy(self._state())
            try:
                self._restore(saved)
            except Exception:  # PyTorch raises nearly anything on a state of something else
                self._restore(before)
                checkpoint.refuse("it is not the state of such a training run", progress)
                saved = None
        lost = checkpoint.begin_history(self.history)
        if saved is not None:
            progress(f"resumed after epoch {len(self.history)}; {lost} epochs are trained a second time")

    def _restore(self, state: Mapping[str, Any]) -> None:
        """Become what `_state` was taken from."""
        self.module.load_state_dict(state["module"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        self.generator.set_state(state["generator"])
        self.best_loss, self.best_epoch, self.best_weights = state["best"]
        self.changed = state["changed"]
        self.history[:] = state["history"]


def part_of_run(run: FitRun, title: str, name: str) -> RunPart:
    """Return how one of several training runs of a fit reports, and where it is kept."""
    checkpoint = None if run.checkpoint is None else run.checkpoint.part(name)
    return (lambda line: run.progress(f"{title}: {line}")), checkpoint


def copy_weights(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights as they are now, whatever becomes of the module."""
    return {name: value.detach().clone() for name, value in weights.items()}
