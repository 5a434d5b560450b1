"""Interrupted at any epoch and resumed, a training run ends with the bytes of one that was not."""

import csv
import errno
import io
import multiprocessing
import os
import pickle
import signal
from pathlib import Path

import pytest
import torch
from support import Killed, plant
from torch import Tensor, nn

from colatent.errors import InputError
from colatent.jobs.checkpoint import HISTORY, STATE, Checkpoint
from colatent.jobs.signals import SIGNALS, Interrupted, interruptible
from colatent.models.adam import AdamW, Rated
from colatent.models.mmgpvae.training import Schedule, Trainer

IDENTITY = {"config": "c", "data": "d", "code": "x"}
FORK = multiprocessing.get_context("fork")
EPOCHS = 23
UNREADABLE = "it cannot be read, or is not as it was written"


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
    optimizer = AdamW([Rated(list(line.parameters()), 0.1, 0.01)])
    trainer = Trainer(line, loss, optimizer, schedule, torch.Generator().manual_seed(0))
    trainer.run(torch.randperm(16, generator=trainer.generator), progress, checkpoint)
    return pickle.dumps([line.slope.detach().numpy(), trainer.history, trainer.generator.get_state().numpy()])


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


@pytest.mark.parametrize("number", SIGNALS)
def test_told_to_stop_it_finishes_the_epoch_and_writes(tmp_path: Path, number: signal.Signals) -> None:
    checkpoint, lines = Checkpoint(tmp_path, IDENTITY), []
    before = signal.getsignal(number)
    with pytest.raises(Interrupted, match=f"^stopped by {number.name} after epoch 7; the checkpoint is wri"):
        train(checkpoint, after=lambda epoch: os.kill(os.getpid(), number) if epoch == 7 else None)
    assert signal.getsignal(number) == before
    assert train(checkpoint, lines.append) == train(None)
    assert lines[0] == "resumed after epoch 7; 0 epochs are trained a second time"


@pytest.mark.parametrize("patience", [EPOCHS, 3])
def test_told_to_stop_in_the_last_epoch_it_stops(tmp_path: Path, patience: int) -> None:
    """Also in that in which training stops early: what follows the training may take long."""
    straight = train(None, patience=patience)
    last = len(pickle.loads(straight)[1])
    stop = lambda epoch: os.kill(os.getpid(), signal.SIGTERM) if epoch == last else None  # noqa: E731
    checkpoint = Checkpoint(tmp_path, IDENTITY)
    with pytest.raises(Interrupted, match=f"^stopped by SIGTERM after epoch {last}; the checkpoint is writ"):
        train(checkpoint, after=stop, patience=patience)
    assert train(checkpoint, patience=patience) == straight


@pytest.mark.parametrize(("told", "stopped"), [(5, 6), (EPOCHS, EPOCHS)])
def test_a_signal_between_two_epochs_is_not_lost(tmp_path: Path, told: int, stopped: int) -> None:
    """It comes while the checkpoint is about to be written."""

    def stop(line: str) -> None:
        if line.startswith(f"epoch {told}/"):
            os.kill(os.getpid(), signal.SIGTERM)

    checkpoint = Checkpoint(tmp_path, IDENTITY)
    with pytest.raises(Interrupted, match=f"^stopped by SIGTERM after epoch {stopped};"):
        train(checkpoint, stop)
    assert train(checkpoint) == train(None)


def test_a_signal_while_a_checkpoint_is_read_is_no_damage(tmp_path: Path, monkeypatch) -> None:
    train(Checkpoint(tmp_path, IDENTITY))
    monkeypatch.setattr("torch.load", lambda *_, **__: os.kill(os.getpid(), signal.SIGTERM))
    with interruptible(), pytest.raises(Interrupted, match=r"^stopped by SIGTERM$"):
        Checkpoint(tmp_path, IDENTITY).load(pytest.fail)
    assert (tmp_path / STATE).is_file()


def test_a_second_ctrl_c_ends_the_process_at_once(tmp_path: Path) -> None:
    def interrupt(epoch: int) -> None:
        for _ in range(2 if epoch == 7 else 0):
            os.kill(os.getpid(), signal.SIGINT)

    process = FORK.Process(target=train, args=(Checkpoint(tmp_path, IDENTITY), quiet, interrupt))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGINT and len(rows(tmp_path)) == 6
    assert train(Checkpoint(tmp_path, IDENTITY)) == train(None)


def test_what_a_job_was_started_to_ignore_it_ignores(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        hang_up = lambda epoch: os.kill(os.getpid(), signal.SIGHUP)  # noqa: E731
        assert train(Checkpoint(tmp_path, IDENTITY), after=hang_up) == train(None)
    finally:
        signal.signal(signal.SIGHUP, before)


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


def starts_afresh(folder: Path, why: str) -> None:
    """Assert that a run refuses what is in its folder in one sentence, and is not changed by it."""
    lines: list[str] = []
    assert train(Checkpoint(folder, IDENTITY), lines.append) == train(None)
    assert lines[0] == f"the checkpoint {folder / STATE} is refused, {why}: starting afresh"
    assert lines[1].startswith("epoch 5/") and len(rows(folder)) == EPOCHS


@pytest.mark.parametrize(
    "content",
    [
        {"identity": IDENTITY, "module": Code()},
        {"identity": 3},
        {"identity": None},
        {"module": {}},
        [1, 2],
    ],
)
def test_a_checkpoint_of_something_else_is_refused_and_never_executed(
    tmp_path: Path, monkeypatch, content: object
) -> None:
    monkeypatch.chdir(tmp_path)
    plant(tmp_path, content)
    starts_afresh(tmp_path, UNREADABLE)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("size", ["none", "half", "all but the last"])
def test_a_truncated_checkpoint_is_refused(tmp_path: Path, size: str) -> None:
    train(Checkpoint(tmp_path, IDENTITY))
    whole = (tmp_path / STATE).stat().st_size
    os.truncate(tmp_path / STATE, {"none": 0, "half": whole // 2, "all but the last": whole - 1}[size])
    starts_afresh(tmp_path, UNREADABLE)


def test_a_flipped_bit_in_a_weight_is_found(tmp_path: Path) -> None:
    """PyTorch reads it without a word: it looks at no checksum of its archive."""
    train(Checkpoint(tmp_path, IDENTITY))
    file = tmp_path / STATE
    saved = torch.load(io.BytesIO(file.read_bytes().partition(b"\n")[2]), weights_only=True)
    content, weight = bytearray(file.read_bytes()), saved["module"]["slope"].numpy().tobytes()
    content[content.index(weight) + 5] ^= 1
    torch.load(io.BytesIO(content.partition(b"\n")[2]), weights_only=True)
    file.write_bytes(content)
    starts_afresh(tmp_path, UNREADABLE)


@pytest.mark.parametrize("missing", ["module", "optimizer", "generator", "best", "history"])
def test_a_state_that_lacks_a_part_leaves_no_trace(tmp_path: Path, missing: str) -> None:
    train(Checkpoint(tmp_path, IDENTITY))
    saved = Checkpoint(tmp_path, IDENTITY).load(quiet)
    assert saved is not None
    del saved[missing]
    plant(tmp_path, saved | {"identity": IDENTITY})
    starts_afresh(tmp_path, "it is not the state of such a training run")


def test_a_folder_or_a_pipe_in_place_of_the_state(tmp_path: Path) -> None:
    (tmp_path / STATE / "more").mkdir(parents=True)
    starts_afresh(tmp_path, UNREADABLE)
    (tmp_path / STATE).unlink()
    os.mkfifo(tmp_path / STATE)
    starts_afresh(tmp_path, UNREADABLE)


def test_a_history_that_is_none_is_started_anew(tmp_path: Path) -> None:
    for place in ("text", "folder"):
        if place == "text":
            (tmp_path / HISTORY).write_bytes(b"epoch\n\xff\xfe\n")
        else:
            (tmp_path / HISTORY).unlink()
            (tmp_path / HISTORY / "more").mkdir(parents=True)
        (tmp_path / STATE).unlink(missing_ok=True)
        assert train(Checkpoint(tmp_path, IDENTITY)) == train(None)
        assert len(rows(tmp_path)) == EPOCHS


@pytest.mark.parametrize(("place", "why"), [("fit", "Not a directory"), ("fit/start-0", "File exists")])
def test_a_file_in_place_of_the_folder_is_named(tmp_path: Path, place: str, why: str) -> None:
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).write_text("")
    with pytest.raises(InputError) as error:
        train(Checkpoint(tmp_path / "fit/start-0", IDENTITY))
    assert str(error.value).startswith(f"{tmp_path / place}: a ")
    assert f" cannot be written ({why}); make room, change permissions or" in str(error.value)


def test_a_full_disk_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(InputError, match=r"a checkpoint cannot be written \(No space left on device\)"):
        train(Checkpoint(tmp_path, IDENTITY))


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
    optimizer = AdamW([Rated(list(line.parameters()), 0.1, 0.01)])
    trainer = Trainer(line, loss, optimizer, schedule, torch.Generator().manual_seed(0))
    order = torch.randperm(16, generator=trainer.generator)
    with pytest.raises(Interrupted, match="after epoch 7; the checkpoint is written"):
        trainer.train(7, order, quiet, checkpoint)
    assert train(checkpoint) == train(None)


@pytest.mark.parametrize("patience", [EPOCHS, 3])
@pytest.mark.parametrize("epoch", [1, 4, 5, 6, 7, 12])
def test_killed_before_or_after_the_loss_is_changed(tmp_path: Path, epoch: int, patience: int) -> None:
    """The epochs before the change are told from those after it, also where patience had ended them."""

    def run(checkpoint: Checkpoint | None, killed_in: int = 0) -> bytes:
        line = Line()

        def first(trial: Tensor, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
            loss, parts = line.loss(trial, generator)
            if not line.training and len(trainer.history) >= 2:
                loss = loss + 100  # no epoch is better than the second
            return then(trial, generator, loss)[0], parts

        def then(
            trial: Tensor, generator: torch.Generator, loss: Tensor | None = None
        ) -> tuple[Tensor, dict[str, Tensor]]:
            if not line.training and len(trainer.history) + 1 == killed_in:
                raise Killed
            return (2 * line.loss(trial, generator)[0] if loss is None else loss), {}

        schedule = Schedule(EPOCHS, batch_size=4, patience=patience, report_every=2)
        optimizer = AdamW([Rated(list(line.parameters()), 0.1, 0.01)])
        trainer = Trainer(line, first, optimizer, schedule, torch.Generator().manual_seed(0))
        order = torch.randperm(16, generator=trainer.generator)
        trainer.train(6, order, quiet, checkpoint)
        trainer.go_on_with(then)
        trainer.run(order, quiet, checkpoint)
        end = trainer.generator.get_state().numpy()
        return pickle.dumps([line.slope.detach().numpy(), trainer.history, trainer.changed, end])

    checkpoint = Checkpoint(tmp_path, IDENTITY)
    undisturbed = run(None)
    if epoch <= len(pickle.loads(undisturbed)[1]):
        with pytest.raises(Killed):
            run(checkpoint, epoch)
    assert run(checkpoint) == undisturbed
