"""Killed at any moment and started again, on one core, or in more processes: the results are the same.

No two fits that ask for a GPU share one; where there is none, CUDA_VISIBLE_DEVICES pretends that there is.

COLATENT_KILLS says at how many random moments (2; 30 takes about half an hour on two idle cores).
"""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import yaml
from typer.testing import CliRunner
from warm_python import run_snakemake

from colatent.cli import app
from colatent.store.checksums import CHECKSUMS
from colatent.store.stores import identity, read_attrs

ROOT = Path(__file__).parents[2]
N_MOMENTS = int(os.environ.get("COLATENT_KILLS", "2"))
PROJECT = ("--snakefile", str(ROOT / "Snakefile"), "--configfile", "config.yaml", "--cores")
MODELS = {"mmgpvae": {"kind": "mm-gpvae", "latents": {"spikes": 2}, "epochs": 25, "batch_size": 4}}

pytestmark = [pytest.mark.workflow, pytest.mark.usefixtures("few_figures")]

FITS = [f"out/small/fit/mmgpvae/fold-{fold}_seed-0/complete.json" for fold in range(2)]
RUNNING_ON = (
    f"on the GPU {torch.cuda.get_device_name()}"
    if torch.cuda.is_available()
    else "device: auto, and there is no GPU here that PyTorch can use: running on the CPU"
)
WAITING = "waiting for a GPU: other jobs have 0"


def write_config(folder: Path) -> Path:
    folder.mkdir()
    demo = yaml.safe_load((ROOT / "config/config.yaml").read_text()) | {
        "sessions": "sessions.tsv", "results": "out",
        "simulate": {"seed": 5, "trials": 16, "units": 14}, "models": MODELS,
        "heldout": {"folds": 2}, "truth": None,
    }  # fmt: skip
    demo["modalities"].pop("pose")
    (folder / "config.yaml").write_text(yaml.safe_dump(demo))
    (folder / "sessions.tsv").write_text("session\tnwb\nsmall\tsmall.simulated.nwb\n")
    return folder


def started(folder: Path, log: str, *arguments: str) -> subprocess.Popen[bytes]:
    """Start the workflow as a process that does not take its jobs along when it is killed."""
    with (folder / log).open("w") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "snakemake", *PROJECT, *arguments],
            cwd=folder,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdout=file,
            stderr=file,
            start_new_session=True,
        )


def killed_after(folder: Path, delay: float, with_children: bool, cores: str) -> str:
    """Run the workflow, kill it after ``delay`` seconds, and return how far it had come."""
    run = started(folder, "killed.log", cores)
    time.sleep(delay)
    if with_children:
        os.killpg(run.pid, signal.SIGKILL)
    else:
        run.kill()
    run.wait()
    said = (folder / "killed.log").read_text().splitlines()
    return next((line for line in reversed(said) if "rule " in line or " done" in line), "before any job")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """Results, and the seconds that they took."""
    folder = write_config(tmp_path_factory.mktemp("undisturbed") / "run")
    started = time.monotonic()
    run = run_snakemake(folder, *PROJECT, "2")
    assert run.returncode == 0, run.stderr[-3000:]
    return folder, time.monotonic() - started


def test_a_recording_read_by_several_processes_is_the_same(undisturbed, tmp_path: Path) -> None:
    several = "distributed={above_gb: 1e-9}"
    store = "out/small/session"
    folder = Path(shutil.copytree(undisturbed[0], tmp_path / "run", symlinks=True))
    shutil.rmtree(folder / store)
    run = run_snakemake(folder, f"{store}/complete.json", *PROJECT, "2", "--config", several)
    assert run.returncode == 0, run.stderr[-3000:]
    assert "is read by 2 processes (local)" in (folder / "out/logs/small/ingest.log").read_text()
    assert identity(folder / store) == identity(undisturbed[0] / store)
    plan = run_snakemake(undisturbed[0], *PROJECT, "2", "--config", several, "--dry-run")
    assert "rule record" in plan.stdout and "rule ingest" not in plan.stdout, plan.stdout[-2000:]


def awaited(log: Path, words: str, run: subprocess.Popen[bytes]) -> str:
    """Return what a log says once it says these words; fail if the run ends before."""
    while words not in (said := log.read_text() if log.is_file() else ""):
        assert run.poll() is None, f"ended without {words!r}: {said}"
        time.sleep(0.05)
    return said


def test_a_job_left_running_is_waited_for_and_its_result_replaced(undisturbed, tmp_path: Path) -> None:
    """It is of an earlier config, and stands still until the next one waits: so neither can be faster."""
    fit = "out/small/fit/mmgpvae/fold-0_seed-0"
    folder = Path(shutil.copytree(undisturbed[0], tmp_path / "run", symlinks=True))
    config, log = folder / "config.yaml", folder / "out/logs/small/fit/mmgpvae_fold-0_seed-0.log"
    asked = config.read_text()
    config.write_text(asked.replace("epochs: 25", "epochs: 60"))
    first = started(folder, "said.log", "1", f"{fit}/complete.json")
    said = awaited(log, "epoch 10/60", first)
    left = int(re.search(r"process (\d+)", said)[1])
    os.kill(left, signal.SIGSTOP)
    first.kill()
    first.wait()
    config.write_text(asked)
    try:
        assert run_snakemake(folder, *PROJECT, "1", "--unlock").returncode == 0
        second = started(folder, "said.log", "1", f"{fit}/complete.json", "--rerun-incomplete")
        said = awaited(log, "waiting for this job of an earlier run", second)
        assert f"process {left}; to end it, `kill` that process there" in said
        time.sleep(1)
        assert log.read_text() == said and not (folder / fit / "complete.json").exists()
    finally:
        os.kill(left, signal.SIGCONT)
    assert second.wait(300) == 0, (folder / "said.log").read_text()[-3000:]
    assert f"process {left}; to end it" in (folder / "said.log").read_text()
    assert "epoch 25/25" in log.read_text() and "epoch 60" not in log.read_text()
    with pytest.raises(ProcessLookupError):
        os.kill(left, 0)
    assert identity(folder / fit) == identity(undisturbed[0] / fit)
    assert not (folder / "out/.checkpoints/small/mmgpvae/fold-0_seed-0").exists()


@pytest.mark.parametrize("moment", random.Random(0).sample(range(N_MOMENTS), N_MOMENTS))
def test_killed_and_started_again_or_on_one_core(undisturbed, tmp_path: Path, moment: int) -> None:
    reference, duration = undisturbed
    # one moment in each of equal parts of the run; of every three, one leaves jobs behind that go on alone
    share = (moment + random.Random(moment).random()) / N_MOMENTS
    cores = "1" if moment % 2 == 0 else "2"  # all of the run has one core, before and after
    folder = write_config(tmp_path / "run")
    reached = killed_after(folder, share * duration, moment % 3 != 1, cores)
    print(f"killed at {share:.0%} of {duration:.0f} s on {cores} cores: {reached}")
    assert run_snakemake(folder, *PROJECT, cores, "--unlock").returncode == 0
    again = run_snakemake(folder, *PROJECT, cores, "--rerun-incomplete")
    assert again.returncode == 0, again.stderr[-3000:]
    trees = reference / "out", folder / "out"
    compared = CliRunner().invoke(app, ["compare", *map(str, trees)])
    assert compared.exit_code == 0, compared.output
    assert compared.output.startswith("identical") and "made with other" not in compared.output
    verified = CliRunner().invoke(app, ["verify", str(folder / "out")])
    assert verified.exit_code == 0, verified.output
    assert not list((folder / "out").glob("**/.*making*"))
    records = [json.loads((tree / "provenance.json").read_text()) for tree in trees]
    for record in records:
        assert "snakemake" in record["volatile"]["command"]
        assert record["volatile"]["stores"]["small/session"]["peak_memory_mib"] > 10
        del record["volatile"], record["checksum"]
        # pages say when they were made
        of_pages = (".html", CHECKSUMS)
        record["files"] = {k: v for k, v in record["files"].items() if not k.endswith(of_pages)}
    assert records[0] == records[1]


def times_of_device(folder: Path) -> tuple[list[tuple[float, float]], str]:
    """Return when each fit had the device (s), in order, and all their lines."""
    found, said = [], ""
    for log in (folder / "out/logs/small/fit").glob("*.log"):
        text = log.read_text()
        reserved, given_back, done = (
            float(re.search(rf"^ *([\d.]+) s  {line}", text, re.MULTILINE)[1])
            for line in ("GPU 0 is reserved", "GPU 0 is given back", "done in")
        )
        started = log.stat().st_mtime - done
        found.append((started + reserved, started + given_back))
        said += text
    return sorted(found), said


@pytest.mark.parametrize("resources", [(), ("--resources", "gpu=1")], ids=["two at once", "one at a time"])
def test_no_two_fits_have_one_device(undisturbed, tmp_path: Path, resources: tuple[str, ...]) -> None:
    folder = Path(shutil.copytree(undisturbed[0], tmp_path / "run", symlinks=True))
    locks = {"TMPDIR": str(folder), "CUDA_VISIBLE_DEVICES": "0"}
    auto = ("--config", "device=auto")
    run = run_snakemake(folder, *FITS, "--force", *resources, *PROJECT, "2", *auto, **locks)
    assert run.returncode == 0, run.stderr[-3000:]
    times, said = times_of_device(folder)
    assert len(times) == 2
    slack = 0.3  # times in logs are rounded
    assert all(a[1] <= b[0] + slack for a, b in pairwise(times)), times
    assert RUNNING_ON in said
    # told of one, Snakemake starts the second when the first has ended; else the lock keeps them apart
    assert not resources or WAITING not in said


@pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch has no GPU here")
def test_the_report_names_the_gpu(undisturbed, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(undisturbed[0], tmp_path / "run", symlinks=True))
    page = "out/report/sessions/small/index.html"
    run = run_snakemake(folder, page, *PROJECT, "2", "--config", "device=cuda")
    assert run.returncode == 0, run.stderr[-3000:]
    name = f"cuda ({torch.cuda.get_device_name()})"
    assert [read_attrs(folder / Path(fit).parent)["device"] for fit in FITS] == [name, name]
    assert name in (folder / page).read_text()
