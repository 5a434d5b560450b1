"""Resumable stochastic gradient training with a cosine schedule and early stopping.

The loop does not depend on the model: it takes a module and a function that returns its loss on given
trials. Some training trials are held out of the updates, and the weights with the least loss on them are
kept. A run that is interrupted and resumed ends with the same bytes.
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
from colatent.models.adam import AdamW, cosine
from colatent.models.base import FitRun, Progress

Loss = Callable[[Tensor, torch.Generator], tuple[Tensor, Mapping[str, Tensor]]]
RunPart = tuple[Progress, Checkpoint | None]

MAX_GRADIENT_NORM = 5.0
FINAL_LEARNING_RATE = 0.02  # share of the initial rate
COLUMNS = ("epoch", "loss", "held_out_loss", "learning_rate", "skipped_steps")
VALIDATION_SEED = 1


@dataclass(frozen=True)
class Schedule:
    """Schedule of training.

    Attributes:
        epochs: maximum number of epochs.
        batch_size: trials per step.
        patience: epochs without a better held-out loss after which training stops.
        validation_share: share of the trials held out of the updates.
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
        module: module to train in place.
        loss: function of trial indices and a random generator that returns the loss and its terms by
            name; it may depend on ``module.training``.
        optimizer: optimiser of the module's parameters.
        history: one row per epoch: ``epoch, loss, held_out_loss, learning_rate, skipped_steps``, and
            the terms of the loss.
        changed: epoch after which the loss was changed (`go_on_with`), 0 if not yet.
        has_looked: whether it has looked for a checkpoint to go on from.
    """

    module: nn.Module
    loss: Loss
    optimizer: AdamW
    schedule: Schedule
    generator: torch.Generator
    history: list[dict[str, float]] = field(default_factory=list)
    best_loss: float = math.inf
    best_epoch: int = 0
    changed: int = 0
    has_looked: bool = False

    def __post_init__(self) -> None:
        self.best_weights = copy_weights(self.module.state_dict())
        self._parameters = list(self.module.parameters())

    def _rate(self) -> float:
        """Return the learning rate of the next epoch, relative to the first's."""
        left = cosine(len(self.history) / self.schedule.epochs)
        return FINAL_LEARNING_RATE + (1 - FINAL_LEARNING_RATE) * left

    def run(self, order: Tensor, progress: Progress, checkpoint: Checkpoint | None = None) -> None:
        """Train to the end and load the weights of the best epoch; see `train`.

        Raises:
            FloatingPointError: the loss was never finite.
        """
        self.train(self.schedule.epochs, order, progress, checkpoint)
        if not math.isfinite(self.best_loss):
            when = f", from epoch {self.changed + 1} on" if self.changed else ""
            raise FloatingPointError(
                f"the loss was never finite{when}: check the observations or lower the learning rate"
            )
        self.module.load_state_dict(self.best_weights)
        self.module.eval()
        progress(f"kept epoch {self.best_epoch}: held-out loss {self.best_loss:.4f}")

    def train(
        self, epochs: int, order: Tensor, progress: Progress, checkpoint: Checkpoint | None = None
    ) -> None:
        """Train up to the given number of epochs, unless training stops early.

        Args:
            epochs: total number of epochs, including past ones.
            order: the trials in random order; the first are held out.
            progress: called with lines of text.
            checkpoint: where the state is saved at intervals and resumed from.

        Raises:
            Interrupted: a signal asked to stop; the checkpoint has been written.
        """
        validation, trained = self._validation_trials(order), order[len(self.held_out(order)) :]
        if self.resume(progress, checkpoint) and self.changed:
            return  # interrupted in a later phase
        first, started = len(self.history), time.monotonic()
        with postponed() as signals:
            stop = False
            while not (stop or self._finished(epochs)):
                self._epoch(trained, validation)
                if checkpoint is not None:
                    checkpoint.append(self.history[-1])
                stop = bool(signals)  # read once: a later signal waits for the next epoch
                due = len(self.history) % self.schedule.report_every == 0
                if due or stop or self._finished(epochs):
                    progress(self._line((len(self.history) - first) / (time.monotonic() - started)))
                    if checkpoint is not None:
                        checkpoint.save(self._state())
        if signals:  # even after the last epoch: a stopped job must not start the next steps
            kept = "the checkpoint is written" if checkpoint else "nothing is kept"
            raise Interrupted(f"stopped by {signals[0]} after epoch {len(self.history)}; {kept}")

    def go_on_with(self, loss: Loss) -> None:
        """Switch to another loss, if epochs are left; in a resumed run this may have happened already."""
        self.loss = loss
        if not (self.changed or self._diverged() or len(self.history) >= self.schedule.epochs):
            self.changed = self.best_epoch = len(self.history)
            self.best_loss = math.inf

    def early_loss(self, epochs: int) -> float:
        """Return the lowest held-out loss of the first epochs; infinite if the last made no step."""
        rows = self.history[: self.changed or epochs]
        if math.isnan(rows[-1]["loss"]):
            return math.inf
        return min(
            (row["held_out_loss"] for row in rows if math.isfinite(row["held_out_loss"])), default=math.inf
        )

    def set_baseline(self, order: Tensor) -> None:
        """Take the current weights as the baseline that later epochs must beat."""
        loss = self._held_out_loss(self._validation_trials(order))
        self.best_loss = math.inf if math.isnan(loss) else loss
        self.best_weights = copy_weights(self.module.state_dict())

    def held_out(self, order: Tensor) -> Tensor:
        """Return the trials held out of the updates."""
        return order[: min(math.ceil(self.schedule.validation_share * len(order)), len(order) - 1)]

    def _validation_trials(self, order: Tensor) -> Tensor:
        """Return the trials that determine the best epoch: the held-out ones, or all if there are none."""
        held_out = self.held_out(order)
        return held_out if len(held_out) else order

    def _finished(self, epochs: int) -> bool:
        epoch = len(self.history)
        if epoch == 0:
            return False
        return self._diverged() or epoch >= epochs or epoch - self.best_epoch >= self.schedule.patience

    def _diverged(self) -> bool:
        """Whether the last epoch made no step."""
        return math.isnan(self.history[-1]["loss"])

    def _epoch(self, trained: Tensor, validation: Tensor) -> None:
        self.module.train()
        order = trained[torch.randperm(len(trained), generator=self.generator)]
        batches = order.split(self.schedule.batch_size)
        steps = [step for batch in batches if (step := self._step(batch)) is not None]
        held_out_loss = self._held_out_loss(validation)
        row = dict.fromkeys(self.history[0] if self.history else COLUMNS, math.nan)
        for name in steps[0] if steps else ():
            row[name] = sum(step[name] for step in steps) / len(steps)
        row |= {
            "epoch": len(self.history) + 1,
            "held_out_loss": held_out_loss,
            "learning_rate": self._rate() * self.optimizer.groups[0].rate,
            "skipped_steps": len(batches) - len(steps),
        }
        self.history.append(row)
        if held_out_loss < self.best_loss:
            self.best_loss, self.best_epoch = held_out_loss, len(self.history)
            self.best_weights = copy_weights(self.module.state_dict())

    def _step(self, batch: Tensor) -> dict[str, float] | None:
        """Make one update and return the loss and its terms, or None without an update if not finite."""
        self.optimizer.zero_grad()
        try:
            loss, parts = self.loss(batch, self.generator)
        except torch.linalg.LinAlgError:
            return None
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self._parameters, MAX_GRADIENT_NORM)
        if not (torch.isfinite(loss) and torch.isfinite(norm)):
            return None
        self.optimizer.step(self._rate())
        return {name: float(value.detach()) for name, value in {"loss": loss, **parts}.items()}

    def _held_out_loss(self, validation: Tensor) -> float:
        self.module.eval()
        # the same noise every time, so that epochs are comparable
        generator = torch.Generator().manual_seed(VALIDATION_SEED)
        try:
            with torch.no_grad():
                return float(self.loss(validation, generator)[0])
        except torch.linalg.LinAlgError:
            return math.inf

    def _line(self, rate: float) -> str:
        """Return a progress line for the last epoch; ``rate`` in epochs per second."""
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
            "generator": self.generator.get_state(),  # the only source of randomness
            "best": (self.best_loss, self.best_epoch, self.best_weights),
            "changed": self.changed,
            "history": self.history,
        }

    def resume(self, progress: Progress, checkpoint: Checkpoint | None) -> bool:
        """Go on from a checkpoint that holds an epoch, and say whether there is one."""
        if checkpoint is None or self.has_looked:
            return False
        self.has_looked = True
        saved = checkpoint.load(progress)
        if saved is not None:
            before = copy.deepcopy(self._state())
            try:
                self._restore(saved)
            except Exception:  # PyTorch raises errors of almost any type for a foreign state
                self._restore(before)
                checkpoint.refuse("it is not the state of such a training run", progress)
                saved = None
        lost = checkpoint.begin_history(self.history)
        if saved is not None:
            progress(f"resumed after epoch {len(self.history)}; {lost} epochs are trained a second time")
        return saved is not None

    def _restore(self, state: Mapping[str, Any]) -> None:
        """Restore the run from `_state`."""
        self.module.load_state_dict(state["module"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"])
        self.best_loss, self.best_epoch, self.best_weights = state["best"]
        self.changed = state["changed"]
        self.history[:] = state["history"]


def part_of_run(run: FitRun, title: str, name: str) -> RunPart:
    """Return the progress callback and checkpoint of one of several training runs of a fit."""
    checkpoint = None if run.checkpoint is None else run.checkpoint.part(name)
    return (lambda line: run.progress(f"{title}: {line}")), checkpoint


def copy_weights(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a copy of the weights that is independent of the module."""
    return {name: value.detach().clone() for name, value in weights.items()}
