"""The workflow on a real SLURM: the same bytes as a local run, whatever happens to the jobs.

`make test-slurm`. One run, of which every fit meets another mishap: scancel, requeue, the time limit; and
a recording that is read by SLURM jobs of dask.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from colatent.cli import app
from colatent.jobs.checkpoint import HISTORY
from colatent.models.mmgpvae.training import Schedule
from colatent.store.stores import identity

ROOT = Path(__file__).parents[2]
CLUSTER = Path(__file__).with_name("cluster.sh")
MODELS = {
    # some ten seconds a fit: long enough to be met in the middle
    "mmgpvae": {
        "kind": "mm-gpvae", "latents": {"spikes+emg": 2, "spikes": 1}, "epochs": 120, "batch_size": 4,
    },
    "mean": {"kind": "condition-mean"},
}  # fmt: skip
INTERVAL = Schedule.report_every
MIDDLE = INTERVAL + 4  # epoch in which a fit meets its mishap: none at which a checkpoint is written
PATIENCE_S = 400

pytestmark = [pytest.mark.slurm, pytest.mark.usefixtures("few_figures")]


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    started = subprocess.run(["bash", str(CLUSTER), "start"], capture_output=True, text=True)
    if started.returncode == 75:
        pytest.skip(started.stdout.strip().splitlines()[-1])
    assert started.returncode == 0, started.stdout + started.stderr
    yield
    subprocess.run(["bash", str(CLUSTER), "stop"], check=True)


def snakemake(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start the project's workflow, on the same recording, in a folder of its own."""
    folder.mkdir()
    demo = yaml.safe_load((ROOT / "config/config.yaml").read_text()) | {
        "sessions": "sessions.tsv", "results": "out",
        "simulate": {"seed": 5, "trials": 24, "units": 14}, "models": MODELS,
        "heldout": {"folds": 3}, "device": "auto", "truth": None,
    }  # fmt: skip
    demo["modalities"].pop("pose")
    (folder / "config.yaml").write_text(yaml.safe_dump(demo))
    (folder / "sessions.tsv").write_text("session\tnwb\nsmall\tsmall.simulated.nwb\n")
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile")]
    return subprocess.Popen(
        [*command, *arguments, "--configfile", "config.yaml"],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=(folder / "snakemake.log").open("w"),
        stderr=subprocess.STDOUT,
        text=True,
    )


def log_of(folder: Path, fold: int) -> Path:
    return folder / f"out/logs/small/fit/mmgpvae_fold-{fold}_seed-0.log"


def is_in_the_middle(folder: Path, fold: int) -> bool:
    history = folder / f"out/.checkpoints/small/mmgpvae/fold-{fold}_seed-0" / HISTORY
    return history.exists() and history.read_text().count("\n") > MIDDLE


def freeze(folder: Path, fold: int) -> str:
    """Stop a fit where it is, as on a node that hangs, and return its SLURM job; SLURM wakes what it ends."""
    process, job = re.search(r"process (\d+), SLURM job (\d+)", log_of(folder, fold).read_text()).groups()
    os.kill(int(process), signal.SIGSTOP)
    return job


MISHAPS = {
    0: lambda job: ("scancel", job),
    1: lambda job: ("scontrol", "requeue", job),
    2: lambda job: ("scontrol", "update", f"JobId={job}", "TimeLimit=1"),
}


def disturb(folder: Path, run: subprocess.Popen[str]) -> dict[int, str]:
    """Let each fold meet its mishap in the middle of its training; return fold -> SLURM job."""
    jobs: dict[int, str] = {}
    deadline = time.monotonic() + PATIENCE_S
    while len(jobs) < len(MISHAPS):
        assert run.poll() is None, (folder / "snakemake.log").read_text()[-3000:]
        assert time.monotonic() < deadline, f"only {sorted(jobs)} came to epoch {MIDDLE}"
        for fold in MISHAPS.keys() - jobs:
            if is_in_the_middle(folder, fold):
                jobs[fold] = freeze(folder, fold)
                subprocess.run(MISHAPS[fold](jobs[fold]), check=True)
        time.sleep(0.02)
    return jobs


def assert_small_jobs_share_one(folder: Path) -> None:
    """The fits of the condition mean, and the pages with the export, were a SLURM job each."""
    logs = {
        file.relative_to(folder / "out/logs/small"): file
        for file in (folder / "out/logs/small").rglob("*.log")
    }
    jobs = {name: set(re.findall(r"SLURM job (\d+)", file.read_text())) for name, file in logs.items()}
    fits = [Path(f"fit/mean_fold-{fold}_seed-0.log") for fold in range(3)]
    pages = [Path("session_page.log"), Path("export/mmgpvae.log")]
    pages += [Path(f"model_page/{model}.log") for model in MODELS]
    for group in (fits, pages):
        (job,) = set.union(*(jobs[name] for name in group))
        assert job not in set.union(*(jobs[name] for name in jobs if name not in group))


def test_cancelled_requeued_and_out_of_time_it_ends_in_the_bytes_of_a_local_run(cluster, tmp_path) -> None:
    local, slurm = tmp_path / "local", tmp_path / "slurm"
    profile = ("--workflow-profile", str(ROOT / "workflow/profiles/slurm"))
    here = ("--slurm-status-command", "squeue", "--slurm-no-account")
    quickly = ("--slurm-init-seconds-before-status-checks", "1", "--latency-wait", "10")
    few_cores = ("--cores", "2")  # of the node
    run = snakemake(slurm, *profile, *here, *quickly, *few_cores)
    try:
        jobs = disturb(slurm, run)
        # pages, and the record of them, say when they were made: they are never compared
        reference = snakemake(local, "out/scores.csv", "out/small/latents/mmgpvae.nwb", "--cores", "1")
        assert reference.wait(PATIENCE_S) == 0, (local / "snakemake.log").read_text()[-3000:]
        assert run.wait(PATIENCE_S) == 0, (slurm / "snakemake.log").read_text()[-3000:]
    finally:
        run.kill()
    for fold in range(3):
        (twice,) = re.findall(r"resumed after epoch \d+; (\d+) epochs", log_of(slurm, fold).read_text())
        assert int(twice) <= INTERVAL
    assert f"SLURM job {jobs[1]}\n" in log_of(slurm, 1).read_text()
    assert_small_jobs_share_one(slurm)
    shutil.rmtree(slurm / "out/report")
    (slurm / "out/provenance.json").unlink()
    compared = CliRunner().invoke(app, ["compare", str(local / "out"), str(slurm / "out")])
    assert compared.exit_code == 0 and compared.output.startswith("identical"), compared.output


def test_a_recording_is_read_by_jobs_of_slurm(cluster, tmp_path) -> None:
    session, jobs = "out/small/session", "distributed={above_gb: 1e-9, cluster: slurm, workers: 2}"
    shared, alone = tmp_path / "shared", tmp_path / "alone"
    for folder, more in ((shared, ("--config", jobs)), (alone, ())):
        run = snakemake(folder, f"{session}/complete.json", "--cores", "1", *more)
        assert run.wait(PATIENCE_S) == 0, (folder / "snakemake.log").read_text()[-3000:]
    assert "is read by 2 processes (slurm)" in (shared / "out/logs/small/ingest.log").read_text()
    names = subprocess.run(
        ["squeue", "--noheader", "--states=all", "--format=%j"], capture_output=True, text=True, check=True
    )
    assert names.stdout.split().count("dask-worker") == 2
    assert len(list((shared / "out/logs/small/ingest").iterdir())) >= 2
    assert {path.name for path in shared.iterdir()} == {path.name for path in alone.iterdir()}
    assert identity(shared / session) == identity(alone / session)
