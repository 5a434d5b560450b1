"""The workflow inside another one, unpacked from an archive, and in its locked environment."""

import json
import subprocess
import tomllib
from importlib.metadata import requires, version
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from typer.testing import CliRunner
from warm_python import run_snakemake

from colatent.cli import app
from colatent.config.file import load_config
from colatent.results.manifest import checksum
from colatent.store.stores import check_store

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.workflow


def snakemake(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return run_snakemake(folder, "--cores", "1", *arguments, **environment)


def write_config(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    demo = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    small = {"sessions": f"{folder.name}/my_sessions.tsv", "simulate": {"seed": 5, "trials": 16, "units": 14}}
    small["heldout"] = {"folds": 2}
    (folder / "my_sessions.tsv").write_text("session\tnwb\nsmall\t../sim/small.simulated.nwb\n")
    (folder / "config.yaml").write_text(yaml.safe_dump(demo | small))
    return folder / "config.yaml"


def test_another_workflow_uses_this_one_as_a_module(tmp_path):
    write_config(tmp_path / "config")
    (tmp_path / "Snakefile").write_text(
        f"""
configfile: "config/config.yaml"

module colatent:
    snakefile: "{ROOT}/Snakefile"
    config: config

use rule * from colatent

rule mine:
    default_target: True
    input: "results/small/session/complete.json"
    output: "mine.txt"
    shell: "cp {{input}} {{output}}"
"""
    )
    run = snakemake(tmp_path)
    assert run.returncode == 0, run.stderr[-3000:]
    assert (tmp_path / "mine.txt").is_file()
    check_store(tmp_path / "results/small/session")


def test_an_archive_runs_where_it_is_unpacked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = write_config(tmp_path / "analysis")
    (tmp_path / "results").mkdir()
    settings = load_config(config).model_dump(mode="json")
    record = {"stores": {"s/session": {"identity": "0"}}, "files": {"scores.csv": "0"}, "config": settings}
    record["volatile"] = {"folder": "."}
    (tmp_path / "results/provenance.json").write_text(json.dumps(record | {"checksum": checksum(record)}))
    run = CliRunner().invoke(app, ["archive", str(config), "old.tar.gz"])
    assert run.exit_code == 0, run.output
    subprocess.run(["tar", "--extract", "--file", "old.tar.gz"], check=True)
    old = tmp_path / "old"
    archived = sorted(p.name for p in (old / "archived").iterdir())
    assert archived == ["config.yaml", "provenance.json", "sessions.tsv"]
    assert not list(old.rglob("*.nwb")) and not list(old.rglob("*.pyc"))
    plan = snakemake(old, "--dry-run", "--configfile", "archived/config.yaml", PYTHONPATH=str(old / "src"))
    assert plan.returncode == 0, plan.stderr[-3000:]
    assert "rule fit" in plan.stdout + plan.stderr and "sim/small.simulated.nwb" in plan.stdout + plan.stderr
    again = CliRunner().invoke(app, ["archive", str(config), "old.tar.gz"])
    assert again.exit_code == 1 and "there is such a file already" in again.output


def locked() -> dict[str, str]:
    lines = (ROOT / "envs/requirements.txt").read_text().splitlines()
    pins = [line.partition(" ")[0].partition("==") for line in lines if line and not line.startswith("#")]
    assert all(separator == "==" for _, separator, _ in pins)
    return {canonicalize_name(name): pinned for name, _, pinned in pins}


def needed(requirement: Requirement) -> list[Requirement]:
    """What a locked package needs here, with the extras that were asked for."""
    extras = requirement.extras or {""}
    found = [Requirement(line) for line in requires(requirement.name) or []]
    return [r for r in found if r.marker is None or any(r.marker.evaluate({"extra": e}) for e in extras)]


def test_the_lock_is_what_pyproject_resolves_to():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    waiting, seen, pins = [Requirement(line) for group in groups for line in group], set(), locked()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        assert name in pins, f"{requirement} is not in envs/requirements.txt: make lock"
        assert requirement.specifier.contains(pins[name], prereleases=True), f"{requirement}: {pins[name]}"
        if str(requirement) not in seen:
            seen.add(str(requirement))
            waiting += needed(requirement)
    unused = set(pins) - {canonicalize_name(Requirement(text).name) for text in seen}
    assert not unused, f"locked, but nothing needs them: {unused}"


def test_what_is_installed_is_the_lock():
    installed = {name: version(name).partition("+")[0] for name in locked()}
    assert installed == locked()


def test_the_conda_environment_agrees_with_the_lock():
    environment = yaml.safe_load((ROOT / "envs/colatent.yaml").read_text())
    assert {"pip": ["-r requirements.txt", "-e .."]} in environment["dependencies"]
    (python,) = [d for d in environment["dependencies"] if str(d).startswith("python")]
    least = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    assert python == f"python ={least.removeprefix('>=')}"
