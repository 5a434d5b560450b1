"""What `colatent status` tells from plans, logs and stores that are made here, and from jobs that die."""

import errno
import io
import multiprocessing
import os
import re
import signal
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from colatent.cli import app
from colatent.errors import InputError
from colatent.jobs.causes import CAUSES, Cause, likely_cause
from colatent.jobs.progress import job
from colatent.jobs.signals import SIGNALS
from colatent.results.status import failures, fit_statuses, write_plan
from colatent.store.layout import OUTPUTS, PLAN

GPU_MEMORY = "out of memory of the GPU"
FORK = multiprocessing.get_context("fork")


def log_of(root: Path, fold: int) -> Path:
    return root / f"logs/s/fit/m_fold-{fold}_seed-0.log"


def run_job(root: Path, fold: int, end=lambda progress: None) -> None:
    with job(log_of(root, fold), f"fit s m fold {fold} seed 0") as progress:
        progress("epoch 10/20")
        end(progress)
        store = root / f"s/fit/m/fold-{fold}_seed-0"
        store.mkdir(parents=True)
        (store / "complete.json").touch()


def start(root: Path, fold: int, end) -> multiprocessing.Process:
    process = FORK.Process(target=run_job, args=(root, fold, end))
    process.start()
    while not log_of(root, fold).exists() or "epoch" not in log_of(root, fold).read_text():
        time.sleep(0.01)
    return process


def sleep(_) -> None:
    time.sleep(60)


def fail(error: Exception):
    def end(_) -> None:
        raise error

    return end


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_plan("out", ["s"], ["m"], range(5), [0])
    return Path("out")


def test_each_state_is_told_from_the_others(root: Path) -> None:
    run_job(root, 0)
    with pytest.raises(MemoryError):
        run_job(root, 1, fail(MemoryError("no room")))
    running, killed = start(root, 2, sleep), start(root, 3, sleep)
    killed.kill()
    killed.join()
    statuses = fit_statuses(root)
    shown = CliRunner().invoke(app, ["status", str(root)])
    running.kill()
    running.join()
    assert [s.state for s in statuses] == ["done", "failed", "running", "failed", "waiting"]
    assert statuses[0].line.startswith("done in") and statuses[4].line == ""
    assert statuses[1].line.startswith("error: MemoryError: no room (traceback in ")
    assert "likely cause: out of memory" in statuses[1].line
    assert statuses[2].line == statuses[3].line == "epoch 10/20"
    assert shown.exit_code == 0
    assert "5 fits: 2 failed, 1 running, 1 waiting, 1 done" in shown.output
    told = shown.output.partition("5 fits")[2]
    assert f"rule fit (session=s, model=m, fold=1, seed=0), log {log_of(root, 1)}" in told
    assert "--set-resources fit:mem_mb=" in told and "killed without a word" in told
    assert fit_statuses(root)[2].state == "failed"  # now that its process is gone


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_said_and_ends_the_job(root: Path, number: signal.Signals) -> None:
    process = start(root, 0, sleep)
    os.kill(process.pid, number)
    process.join(10)
    assert process.exitcode == 1
    (status, *_), (failure,) = fit_statuses(root), failures(root)
    assert status.line.startswith(f"error: stopped by {number.name}; likely cause: told to stop")
    assert failure.cause.name.startswith("told to stop")


def test_a_job_whose_terminal_is_gone_still_writes_its_log(root: Path, monkeypatch) -> None:
    class Gone(io.StringIO):
        def write(self, _: str) -> int:
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("sys.stderr", Gone())
    run_job(root, 0)
    assert fit_statuses(root)[0].state == "done"


@pytest.mark.parametrize("seen_from", ["where it ran", "elsewhere", "elsewhere, all moved"])
def test_what_slurm_knows_goes_before_what_the_job_said(
    root: Path, tmp_path: Path, monkeypatch, seen_from: str
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    process = start(root, 0, sleep)
    os.kill(process.pid, signal.SIGTERM)
    process.join(10)
    slurm = Path(".snakemake/slurm_logs/rule_fit/s_m_0_0/4711.log")
    slurm.parent.mkdir(parents=True)
    slurm.write_text("slurmstepd: error: *** STEP 4711.0 ON n1 CANCELLED DUE TO TIME LIMIT ***\n")
    if seen_from != "where it ran":
        (tmp_path / "moved/below").mkdir(parents=True)
        root = root.resolve().rename(tmp_path / "moved/below/out")
        monkeypatch.chdir("/")
    if seen_from == "elsewhere, all moved":
        (tmp_path / ".snakemake").rename(tmp_path / "moved/.snakemake")
    (failure,) = failures(root)
    assert failure.cause.name == "time limit"
    assert "--set-resources fit:runtime=" in failure.sentences()[-1]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB", "out of memory"),
        ("slurmstepd: error: Detected 1 oom_kill event in StepId=1.0", "out of memory"),
        ("FloatingPointError: the loss was never finite: lower the learning rate", "NaN"),
        ("LinAlgError: the input is not positive-definite", "NaN"),
        ("AssertionError: Torch not compiled with CUDA enabled", "missing GPU"),
        ("RuntimeError: Found no NVIDIA driver on your system", "missing GPU"),
        ("KeyError: 'financial'", None),
        ("RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(h)`", GPU_MEMORY),
        ("RuntimeError: cuDNN error: CUDNN_STATUS_ALLOC_FAILED", GPU_MEMORY),
        ("OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB", GPU_MEMORY),
        ("MemoryError: no room", "out of memory"),
        ("OSError: [Errno 28] No space left on device: 'a'", "full disk"),
        ("OSError: [Errno 122] Disk quota exceeded", "full disk"),
        ("RuntimeError: [enforce fail at inline_container.cc:664] . unexpected pos 64 vs 0", "full disk"),
        ("RuntimeError: CUDA error: no CUDA-capable device is detected", "missing GPU"),
        ("AcceleratorError: CUDA error: CUDA-capable device(s) is/are busy or unavailable", "busy GPU"),
        ("RuntimeError: all CUDA-capable devices are busy or unavailable", "busy GPU"),
        ("ValueError: array must not contain infs or NaNs", "NaN"),
        ("ValueError: the loss is nan.", "NaN"),
        ("ValueError: [0.1, -nan, 2]", "NaN"),
        ("ValueError: NaN in x", "NaN"),
        ("FileNotFoundError: '/data/nan/rec.nwb'", None),
        ("FileNotFoundError: 'nan/rec.nwb'", None),
        ("FileNotFoundError: '/data/NaN'", None),
        ("FileNotFoundError: 'rat-nan.nwb'", None),
        ("FileNotFoundError: 'nan.nwb'", None),
    ],
)
def test_likely_causes(text: str, name: str | None) -> None:
    cause = likely_cause(text)
    assert cause is None if name is None else cause.name.startswith(name)


@pytest.mark.parametrize("cause", CAUSES, ids=lambda cause: cause.name)
def test_a_cause_s_own_words_point_to_no_other(cause: Cause) -> None:
    """They end the line of a job, in which `status` looks for its cause."""
    found = likely_cause(f"{cause.name}. To change: {cause.remedy.format(rule='fit')}")
    assert found is None or CAUSES.index(found) >= CAUSES.index(cause)


def test_a_sentence_that_says_all_gets_no_cause(root: Path) -> None:
    with pytest.raises(SystemExit):
        run_job(root, 0, fail(InputError("emg: 3 samples are NaN; set `checks: {nan: mask}`")))
    (failure,) = failures(root)
    assert failure.cause is None and failure.line.startswith("error: emg: 3 samples are NaN")


def test_a_job_that_was_left_running_is_waited_for(root: Path) -> None:
    left = start(root, 0, lambda _: time.sleep(1.0))
    log_of(root, 0).unlink()  # as Snakemake does before a job
    with pytest.raises(SystemExit):
        run_job(root, 0, fail(InputError("the second")))
    left.join()
    assert left.exitcode == 0 and (root / "s/fit/m/fold-0_seed-0/complete.json").is_file()
    lines = log_of(root, 0).read_text().splitlines()
    assert len(lines) == 4 and "epoch" in lines[2] and "error: the second" in lines[3]
    assert "waiting for this job of an earlier run" in lines[1] and f"process {left.pid};" in lines[1]


def test_a_job_that_waits_shows_as_running_and_heeds_signals(root: Path) -> None:
    left = start(root, 0, sleep)
    log_of(root, 0).unlink()
    waiting = FORK.Process(target=run_job, args=(root, 0))
    waiting.start()
    while waiting.is_alive() and (
        not log_of(root, 0).exists() or "waiting" not in log_of(root, 0).read_text()
    ):
        time.sleep(0.01)
    status = fit_statuses(root)[0]
    assert status.state == "running" and status.line.startswith("waiting for this job of an earlier run")
    os.kill(waiting.pid, signal.SIGTERM)
    waiting.join(10)
    assert waiting.exitcode == 1 and "stopped by SIGTERM" in log_of(root, 0).read_text()
    left.kill()
    left.join()


def test_a_job_runs_on_a_file_system_without_locks(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", flock)
    run_job(root, 0)
    assert fit_statuses(root)[0].state == "done"


def test_names_in_a_plan_are_shown_as_they_are(root: Path) -> None:
    write_plan(root, ["s\x1b[2J[red]:x:"], ["m"], [0], [0])
    shown = CliRunner().invoke(app, ["status", str(root)])
    assert "s\\x1b[2J[red]:x:" in shown.output and "\x1b" not in shown.output


def test_a_plan_that_cannot_be_written_is_one_sentence(tmp_path: Path, monkeypatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "logs").touch()
    with pytest.raises(InputError, match=r"/logs: the list of fits cannot be written \(File exists\); "):
        write_plan(tmp_path, ["s"], ["m"], [0], [0])
    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(InputError, match=r"logs/fits\.json: .* \(No space left on device\); make room"):
        write_plan(tmp_path / "out", ["s"], ["m"], [0], [0])


def test_no_results_is_one_sentence(tmp_path: Path) -> None:
    shown = CliRunner().invoke(app, ["status", str(tmp_path)])
    assert shown.exit_code == 1 and "no workflow has run there" in shown.output.replace("\n", " ")


@pytest.mark.parametrize(
    "plan",
    [
        *("3", "null", "[3]", "[[1,2]]", "{", "{}", "[" * 100_000),
        *(
            '{"fits": 3, "folder": "."}',
            '{"fits": [["s", "m", 0]], "folder": "."}',
            '{"fits": [], "folder": 3}',
        ),
    ],
)
def test_a_damaged_plan_is_one_sentence(root: Path, plan: str) -> None:
    (root / PLAN).write_text(plan)
    shown = CliRunner().invoke(app, ["status", str(root)])
    assert shown.exit_code == 1 and "the list of fits is damaged" in shown.output.replace("\n", " ")


def test_logs_of_no_job_of_the_workflow_are_no_failures(root: Path) -> None:
    """A log of the user's own, and those of an earlier config."""
    names = ["mine.log", "s/fit/m_fold-7_seed-0.log", "s/score/old.log", "gone/ingest.log"]
    for name in [*names, "s/fit/m_fold-2_seed-0.log"]:
        (root / "logs" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "logs" / name).write_text("     0.1 s  error: it failed\n")
    (failure,) = failures(root)
    assert failure.wildcards == {"session": "s", "model": "m", "fold": "2", "seed": "0"}
    shown = CliRunner().invoke(app, ["status", str(root)])
    assert "5 fits: 1 failed" in shown.output and "mine" not in shown.output


def test_a_failed_job_of_any_rule_is_told(tmp_path: Path) -> None:
    """The logs of all rules that write one into the results."""
    logs = {output.rule: output.path for output in OUTPUTS if output.kind == "log"}
    folder = Path(__file__).parents[3] / "workflow/rules"
    rules = "".join(file.read_text() for file in sorted(folder.glob("*.smk")))
    assert set(re.findall(r'place\("(\w+)", "log"\)', rules)) == set(logs) and len(logs) == 14
    named = {"session": "s", "model": "m", "fold": "0", "seed": "1"}
    write_plan(tmp_path, ["s"], ["m"], [0], [1])
    for log in logs.values():
        file = tmp_path / log.format(**named)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("     0.1 s  error: it failed\n")
    told = {failure.rule: failure.wildcards for failure in failures(tmp_path)}
    assert set(told) == set(logs)
    assert told["model_page"] == {"session": "s", "model": "m"} and told["session_page"] == {"session": "s"}
