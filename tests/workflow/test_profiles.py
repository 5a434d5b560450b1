"""What jobs ask for, and the profiles that say where they run: dry runs only."""

import re
from pathlib import Path

import pytest
import yaml
from warm_python import run_snakemake

ROOT = Path(__file__).parents[2]
PROFILES = ROOT / "workflow/profiles"

pytestmark = pytest.mark.workflow


def plan(folder: Path, *arguments: str, device: str = "auto") -> str:
    """Return what a dry run says of its jobs."""
    demo = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    small = {"device": device, "heldout": {"folds": 2}, "sessions": "sessions.tsv"}
    (folder / "config.yaml").write_text(yaml.safe_dump(demo | small))
    (folder / "sessions.tsv").write_text("session\tnwb\na\ta.simulated.nwb\n")
    snakefile = ("--snakefile", str(ROOT / "Snakefile"), "--configfile", "config.yaml", "--dry-run")
    run = run_snakemake(folder, *snakefile, *arguments)
    assert run.returncode == 0, run.stderr[-3000:]
    return run.stdout + run.stderr


@pytest.mark.parametrize("name", ["workstation", "slurm"])
def test_each_profile_plans_a_run(tmp_path: Path, name: str) -> None:
    said = plan(tmp_path, "--workflow-profile", str(PROFILES / name))
    assert f"workflow specific profile {PROFILES / name}" in said.replace("\n", " ")
    fits = re.findall(r"rule fit:.*?resources: ([^\n]*)", said, re.DOTALL)
    assert len(fits) == 2 * 8 and sum("gpu=1" in fit for fit in fits) == 2
    assert all(re.search(r"\bmem_mb=\d+", fit) and re.search(r"\bruntime=\d+", fit) for fit in fits)
    assert ("--signal=TERM@120" in said) == (name == "slurm")


def test_no_gpu_is_asked_for_on_the_cpu(tmp_path: Path) -> None:
    assert "gpu=1" not in plan(tmp_path, "--cores", "1", device="cpu")
