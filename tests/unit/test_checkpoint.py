"""Interrupted at any epoch and resumed, a training run ends with the bytes of one that was not."""

import csv
import os
import pickle
import signal
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from colatent.checkpoint import HISTORY, STATE, Checkpoint
from colatent.interruption import Interrupted
from colatent.training import Schedule, Trainer

IDENTITY = {"config": "c", "data": "d", "code": "x"}
EPOCHS = 23


class Line(nn.Module):
    """A noisy line through random points: every epoch draws from the generator."""

    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.zeros(3, dtype=torch.float64))
        self.register_buffer("x", torch.linspace(-1, 1, 48, dtype=torch.float64).reshape(16, 3))

    def loss(self, trial: Tensor, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        noise = torch.randn(len(trial), generator=generator, dtype=torch.float64)
        fit = (self.x[trial] @ self.slope - self.x[trial].sum(dim=1) - noise).square().mean()
        penalty = 0.01 * self.slope.square().sum()
        return fit + penalty, {"fit": fit, "penalty": penalty}


def quiet(line: str) -> None: ...


def train(checkpoint: Checkpoint | None, progress=quiet, after=None, patience: int = EPOCHS) -> bytes:
    """Train, calling ``after(epoch)`` in each epoch; return all that a run ends with."""
    line = Line()

    def loss(trial: Tensor, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        if after is not None and not line.training:
            after(len(trainer.history) + 1)
        return line.loss(trial, generator)

    schedule = Schedule(EPOCHS, batch_size=4, patience=patience, report_every=5)
    optimizer = torch.optim.AdamW(line.parameters(), lr=0.1)
    trainer = Trainer(line, loss, optimizer, schedule, torch.Generator().manual_seed(0))
    trainer.run(torch.randperm(16, generator=trainer.generator), progress, checkpoint)
    return pickle.dumps([line.slope.detach().numpy(), trainer.history, trainer.generator.get_state().numpy()])


class Killed(BaseException):
    """As abrupt as a test can be without dying itself."""


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / HISTORY).open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("epoch", [1, 5, 6, 14, EPOCHS])
def test_killed_in_an_epoch_and_resumed(tmp_path: Path, epoch: int) -> None:
    def kill(at: int) -> None:
        if at == epoch:
            raise Killed

    checkpoint, lines = Checkpoint(tmp_path, IDENTITY), []
    with pytest.raises(Killed):
        train(checkpoint, after=kill)
    kept, trained = 5 * ((epoch - 1) // 5), epoch - 1
    assert len(rows(tmp_path)) == trained if trained else not (tmp_path / HISTORY).exists()
    assert train(checkpoint, lines.append) == train(None)
    if kept:
        assert lines[0] == f"resumed after epoch {kept}; {trained - kept} epochs are trained a second time"
    assert [row["epoch"] for row in rows(tmp_path)] == [str(i + 1) for i in range(EPOCHS)]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_told_to_stop_it_finishes_the_epoch_and_writes(tmp_path: Path, number: signal.Signals) -> None:
    checkpoint, lines = Checkpoint(tmp_path, IDENTITY), []
    before = signal.getsignal(number)
    with pytest.raises(Interrupted, match=f"^stopped by {number.name} after epoch 7; the checkpoint is wri"):
        train(checkpoint, after=lambda epoch: os.kill(os.getpid(), number) if epoch == 7 else None)
    assert signal.getsignal(number) == before
    assert train(checkpoint, lines.append) == train(None)
    assert lines[0] == "resumed after epoch 7; 0 epochs are trained a second time"


def test_a_signal_in_the_last_epoch_changes_nothing(tmp_path: Path) -> None:
    stop = lambda epoch: os.kill(os.getpid(), signal.SIGTERM) if epoch == EPOCHS else None  # noqa: E731
    assert train(Checkpoint(tmp_path, IDENTITY), after=stop) == train(None)


def test_killed_after_early_stopping_it_trains_no_further(tmp_path: Path) -> None:
    straight = train(None, patience=3)
    assert len(pickle.loads(straight)[1]) < EPOCHS
    checkpoint = Checkpoint(tmp_path, IDENTITY)
    assert train(checkpoint, patience=3) == straight  # and was killed before the fit was written
    assert train(checkpoint, patience=3) == straight


@pytest.mark.parametrize("part", IDENTITY)
def test_a_checkpoint_of_another_run_is_refused_by_name(tmp_path: Path, part: str) -> None:
    train(Checkpoint(tmp_path, IDENTITY | {part: "another"}))
    lines: list[str] = []
    assert train(Checkpoint(tmp_path, IDENTITY), lines.append) == train(None)
    assert lines[0] == f"the checkpoint {tmp_path / STATE} is refused, it is of other {part}: starting afresh"
    assert lines[1].startswith("epoch 5/")


class Code:
    def __reduce__(self):
        return os.system, ("touch executed",)


@pytest.mark.parametrize("damage", ["truncated", "empty", "code"])
def test_a_damaged_checkpoint_is_refused_and_never_executed(tmp_path: Path, monkeypatch, damage: str) -> None:
    monkeypatch.chdir(tmp_path)
    checkpoint = Checkpoint(tmp_path, IDENTITY)
    train(checkpoint)
    file = tmp_path / STATE
    if damage == "code":
        torch.save({"identity": IDENTITY, "module": Code()}, file)
    else:
        os.truncate(file, 0 if damage == "empty" else file.stat().st_size // 2)
    lines: list[str] = []
    assert train(checkpoint, lines.append) == train(None)
    assert "is refused, it cannot be read: starting afresh" in lines[0]
    assert not (tmp_path / "executed").exists()


def test_a_line_an_interval_says_how_far_how_good_how_long() -> None:
    lines: list[str] = []
    history = pickle.loads(train(None, lines.append))[1]
    assert [line.split(":")[0] for line in lines[:-1]] == [f"epoch {i}/23" for i in (5, 10, 15, 20, 23)]
    row, (losses, speed) = history[9], lines[1].split("; ")
    assert losses == (
        f"epoch 10/23: loss {row['loss']:.4f}, held-out {row['held_out_loss']:.4f}, "
        f"fit {row['fit']:.4f}, penalty {row['penalty']:.4f}"
    )
    assert row["loss"] == pytest.approx(row["fit"] + row["penalty"])
    rate, left = speed.removesuffix(" s left").split(" epochs/s, at most ")
    assert float(left) == pytest.approx(13 / float(rate), abs=0.6)


def test_told_to_stop_in_the_last_epoch_of_a_part_it_stops(tmp_path: Path) -> None:
    """The part is done, the training is not: it goes on from there and ends with the same bytes."""
    line = Line()

    def loss(trial: Tensor, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        if not line.training and len(trainer.history) + 1 == 7 and not told:
            told.append(True)
            os.kill(os.getpid(), signal.SIGUSR1)
        return line.loss(trial, generator)

    told: list[bool] = []
    checkpoint = Checkpoint(tmp_path, IDENTITY)
    schedule = Schedule(EPOCHS, batch_size=4, patience=EPOCHS, report_every=5)
    optimizer = torch.optim.AdamW(line.parameters(), lr=0.1)
    trainer = Trainer(line, loss, optimizer, schedule, torch.Generator().manual_seed(0))
    order = torch.randperm(16, generator=trainer.generator)
    with pytest.raises(Interrupted, match="after epoch 7; the checkpoint is written"):
        trainer.train(7, order, quiet, checkpoint)
    assert train(checkpoint) == train(None)
