"""The training loop on losses whose course is known."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from colatent.models.adam import AdamW, Rated
from colatent.models.mmgpvae.training import Schedule, Trainer


class Point(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.x = nn.Parameter(torch.tensor(0.0, dtype=torch.float64))


def trainer_of(point: Point, loss, **schedule) -> Trainer:
    optimizer = AdamW([Rated([point.x], 0.1)])
    schedule = {"epochs": 60, "batch_size": 4, "patience": 60} | schedule
    return Trainer(point, loss, optimizer, Schedule(**schedule), torch.Generator().manual_seed(0))


def train(point: Point, loss, **schedule) -> Trainer:
    trainer = trainer_of(point, loss, **schedule)
    trainer.run(torch.randperm(16, generator=trainer.generator), lambda _: None)
    return trainer


def test_keeps_the_best_held_out_weights_and_stops_early() -> None:
    """The updates pull x to 3, held-out trials want 1: the kept x lies near 1."""
    point = Point()

    def loss(trial: Tensor, generator: torch.Generator) -> tuple[Tensor, dict]:
        return (point.x - (3.0 if point.training else 1.0)).square(), {}

    trainer = train(point, loss, patience=5)
    assert len(trainer.history) == trainer.best_epoch + 5
    assert point.x.item() == pytest.approx(1.0, abs=0.2)


def changed(point: Point, first, then, after: int = 10, **schedule) -> Trainer:
    """Train with one loss for some epochs, then with the other."""
    trainer = trainer_of(point, first, **schedule)
    order = torch.arange(16)
    trainer.train(after, order, lambda _: None)
    trainer.go_on_with(then)
    trainer.run(order, lambda _: None)
    return trainer


class Pulled(Point):
    def to_three(self, trial: Tensor, generator: torch.Generator) -> tuple[Tensor, dict]:
        return (self.x - 3).square(), {"first": self.x}

    def to_one(self, trial: Tensor, generator: torch.Generator) -> tuple[Tensor, dict]:
        return 10 + (self.x - 1).square(), {}

    def broken(self, trial: Tensor, generator: torch.Generator) -> tuple[Tensor, dict]:
        return self.to_three(trial, generator)[0] * (math.nan if self.training else 1.0), {}


def test_weights_that_were_best_by_the_loss_before_are_not_kept() -> None:
    point = Pulled()
    trainer = changed(point, point.to_three, point.to_one)
    assert trainer.changed == 10 < trainer.best_epoch
    assert point.x.item() == pytest.approx(1.0, abs=0.05) and trainer.best_loss >= 10
    parts = [row["first"] for row in trainer.history]
    assert np.isfinite(parts[:10]).all() and np.isnan(parts[10:]).all()
    assert trainer.early_loss(99) == min(row["held_out_loss"] for row in trainer.history[:10]) < 10


def test_patience_counts_anew_from_a_change_of_the_loss() -> None:
    """Stopped early by the first loss, the run goes on with the second."""
    point = Pulled()
    point.x.data.fill_(3.0)  # nothing to gain
    trainer = changed(point, point.to_three, point.to_one, after=30, patience=4)
    assert trainer.changed < 10 and point.x.item() == pytest.approx(1.0, abs=0.2)


@pytest.mark.parametrize("change", [{"after": 60}, {"epochs": 1, "after": 1}])
def test_no_change_of_the_loss_after_the_last_epoch(change: dict[str, int]) -> None:
    point = Pulled()
    trainer = changed(point, point.to_three, point.to_one, **change)
    assert trainer.changed == 0 and trainer.best_loss < 10


def test_a_run_that_makes_no_step_is_not_begun_anew() -> None:
    point = Pulled()
    trainer = changed(point, point.broken, point.to_one)
    assert len(trainer.history) == 1 and trainer.changed == 0 and trainer.best_loss == 9


def test_steps_that_are_not_finite_are_skipped() -> None:
    point = Point()

    def loss(trial: Tensor, generator: torch.Generator) -> tuple[Tensor, dict]:
        bad = point.training and 0 in trial
        return (point.x - 1).square() * (math.nan if bad else 1.0), {}

    trainer = train(point, loss, validation_share=0.0)
    assert all(row["skipped_steps"] == 1 for row in trainer.history)
    assert point.x.item() == pytest.approx(1.0, abs=0.05)


def test_a_loss_that_is_never_finite_is_an_error() -> None:
    point = Point()
    with pytest.raises(FloatingPointError, match="never finite"):
        train(point, lambda trial, generator: (point.x * math.nan, {}))


@pytest.mark.parametrize(("fails_from", "promise"), [(99, 1.0), (3, math.inf), (1, math.inf)])
def test_a_run_that_makes_no_step_any_more_promises_nothing(fails_from: int, promise: float) -> None:
    point = Point()

    def loss(trial: Tensor, generator: torch.Generator) -> tuple[Tensor, dict]:
        broken = point.training and len(trainer.history) + 1 >= fails_from
        return (point.x - point.x.detach()).square() + (math.nan if broken else 1.0), {}

    schedule = Schedule(epochs=20, batch_size=4, patience=20)
    optimizer = AdamW([Rated([point.x], 1e-3)])
    trainer = Trainer(point, loss, optimizer, schedule, torch.Generator().manual_seed(0))
    trainer.train(4, torch.arange(16), lambda _: None)
    assert trainer.early_loss(4) == promise
