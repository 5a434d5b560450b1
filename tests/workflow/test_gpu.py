"""Fits that ask for a GPU never share one: where there is none, one that CUDA_VISIBLE_DEVICES pretends."""

import re
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import yaml
from warm_python import run_snakemake

from colatent.simulate import simulate_reach, write_reach_nwb
from colatent.store.stores import read_attrs

ROOT = Path(__file__).parents[2]
FITS = [f"out/small/fit/mmgpvae/fold-{fold}_seed-0/complete.json" for fold in range(2)]
RUNNING_ON = (
    f"on the GPU {torch.cuda.get_device_name()}"
    if torch.cuda.is_available()
    else "device: auto, and there is no GPU here that PyTorch can use: running on the CPU"
)
WAITING = "waiting for a GPU: other jobs have 0"

pytestmark = pytest.mark.workflow


def snakemake(folder: Path, *arguments: str) -> None:
    project = ("--snakefile", str(ROOT / "Snakefile"), "--cores", "2", "--configfile", "config.yaml")
    locks = {"TMPDIR": str(folder), "CUDA_VISIBLE_DEVICES": "0"}
    run = run_snakemake(folder, *arguments, *project, **locks)
    assert run.returncode == 0, run.stderr[-3000:]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A session that is split, ready to be fitted."""
    folder = tmp_path_factory.mktemp("gpu")
    demo = yaml.safe_load((ROOT / "config/config.yaml").read_text()) | {
        "sessions": "sessions.tsv", "results": "out",
        "simulate": None, "heldout": {"folds": 2},
        "modalities": {"spikes": {"kind": "spikes"}}, "truth": None,
        "models": {"mmgpvae": {"kind": "mm-gpvae", "latents": {"spikes": 2}, "epochs": 5}}, "device": "auto",
    }  # fmt: skip
    write_reach_nwb(simulate_reach(seed=5, n_trials=16, n_units=14), folder / "small.nwb")
    (folder / "config.yaml").write_text(yaml.safe_dump(demo))
    (folder / "sessions.tsv").write_text("session\tnwb\nsmall\tsmall.nwb\n")
    snakemake(folder, "out/small/split/complete.json")
    return folder


def intervals(folder: Path) -> tuple[list[tuple[float, float]], str]:
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
def test_no_two_fits_have_one_device(folder: Path, resources: tuple[str, ...]) -> None:
    snakemake(folder, *FITS, "--force", *resources)
    times, said = intervals(folder)
    assert len(times) == 2
    slack = 0.3  # times in logs are rounded
    assert all(a[1] <= b[0] + slack for a, b in pairwise(times)), times
    assert RUNNING_ON in said
    # told of one, Snakemake starts the second when the first has ended; else the lock keeps them apart
    assert not resources or WAITING not in said


@pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch has no GPU here")
def test_the_report_names_the_gpu(folder: Path) -> None:
    page = folder / "out/report/sessions/small/index.html"
    snakemake(folder, str(page.relative_to(folder)), "--config", "device=cuda")
    name = f"cuda ({torch.cuda.get_device_name()})"
    assert [read_attrs(folder / Path(fit).parent)["device"] for fit in FITS] == [name, name]
    assert name in page.read_text()
