"""What jobs ask for, and the profiles that say where they run: dry runs only."""

import re
from pathlib import Path

import pytest
import yaml
from support import run_snakemake

ROOT = Path(__file__).parents[2]
PROFILES = ROOT / "workflow/profiles"

pytestmark = pytest.mark.workflow


def dry_run(folder: Path, *arguments: str, device: str = "auto", **environment: str):
    demo = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    (folder / "config.yaml").write_text(yaml.safe_dump(demo | {"device": device, "heldout": {"folds": 2}}))
    (folder / "sessions.tsv").write_text("session\tnwb\na\ta.simulated.nwb\n")
    snakefile = ("--snakefile", str(ROOT / "Snakefile"), "--configfile", "config.yaml", "--dry-run")
    return run_snakemake(folder, *snakefile, *arguments, **environment)


def said_by_colatent(run) -> list[str]:
    assert "Traceback" not in run.stderr
    return [line for line in run.stderr.splitlines() if line.startswith("colatent: ")]


@pytest.mark.parametrize("name", ["workstation", "slurm"])
def test_each_profile_plans_a_run(tmp_path: Path, name: str) -> None:
    run = dry_run(tmp_path, "--workflow-profile", str(PROFILES / name))
    assert run.returncode == 0, run.stderr[-3000:]
    assert f"workflow specific profile {PROFILES / name}" in run.stderr.replace("\n", " ")
    plan = run.stdout + run.stderr
    fits = re.findall(r"rule fit:.*?resources: ([^\n]*)", plan, re.DOTALL)
    assert len(fits) == 2 * 6 and sum("gpu=1" in fit for fit in fits) == 2
    assert all(re.search(r"\bmem_mb=\d+", fit) and re.search(r"\bruntime=\d+", fit) for fit in fits)
    assert ("--signal=TERM@120" in plan) == (name == "slurm")


@pytest.mark.parametrize(
    "option", [["--workflow-profile", "{}"], ["--workflow-profile={}"], ["--workflow-profil", "{}"]]
)
@pytest.mark.parametrize("name", ["workflow/profiles/slrum", "slurm"])
def test_a_mistyped_profile_is_an_error(tmp_path: Path, option: list[str], name: str) -> None:
    run = dry_run(tmp_path, "--cores", "1", *(part.format(name) for part in option))
    assert run.returncode != 0
    (sentence,) = [line for line in run.stderr.splitlines() if line.startswith("colatent: ")]
    assert f"there is no workflow profile {name!r}" in sentence
    assert str(PROFILES / "slurm") in sentence and str(PROFILES / "workstation") in sentence
    assert "Traceback" not in run.stderr


@pytest.mark.parametrize(
    ("mistake", "right"),
    [
        ({"default-resouces": {"slurm_partition": "main"}}, "default-resources"),
        ({"set-thredas": {"fit": 4}}, "set-threads"),
        ({"set-resources": {"fitt": {"runtime": 400}}}, "fit"),
        ({"set-resources": {"fit": {"rutime": 400}}}, "runtime"),
        ({"resources": {"gup": 2}}, "gpu"),
        ({"groups": ["model_pagee=pages"]}, "model_page"),
        ({"group-components": ["pagse=8", "baselines=8"]}, "pages"),
    ],
)
def test_a_mistyped_name_in_a_profile_is_an_error(tmp_path: Path, mistake: dict, right: str) -> None:
    profile = yaml.safe_load((PROFILES / "slurm/config.yaml").read_text()) | mistake
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab/config.yaml").write_text(yaml.safe_dump(profile))
    run = dry_run(tmp_path, "--workflow-profile", "lab")
    assert run.returncode != 0
    (sentence,) = [line for line in run.stderr.splitlines() if line.startswith("colatent: ")]
    assert sentence.startswith("colatent: lab/config.yaml: ") and f"did you mean {right}?" in sentence
    assert "Traceback" not in run.stderr


@pytest.mark.parametrize(
    ("mistake", "right"),
    [
        (["--set-resources", "fitt:gpu=2"], "fit"),
        (["--set-resources", "fit:mem_mb=9", "fit:gpus=2"], "gpu"),
        (["--set-threads", "fitt=3"], "fit"),
        (["--res", "gpus=2"], "gpu"),
        (["--default-resources", "mem_mbb=2"], "mem_mb"),
        (["--executor", "local", "--set-resources", "fit:partition=long"], "slurm_partition"),
        (["--group-components", "baseline=2"], "baselines"),
        (["--batch", "alll=1/2"], "all"),
    ],
)
def test_a_mistyped_name_on_the_command_line_is_an_error(
    tmp_path: Path, mistake: list[str], right: str
) -> None:
    run = dry_run(tmp_path, "--cores", "1", *mistake)
    assert run.returncode != 0
    (sentence,) = said_by_colatent(run)
    assert sentence.startswith("colatent: command line: ") and f"did you mean {right}?" in sentence


def test_right_names_on_the_command_line_are_let_through(tmp_path: Path) -> None:
    options = [
        "--set-resources",
        "fit:gpu=2",
        "fit:mem_mb=9",
        "--set-threads",
        "fit=3",
        "--resources",
        "gpu=2",
    ]
    groups = [
        "--groups",
        "export=exports",
        "--group-components",
        "exports=2",
        "--default-resources",
        "mem_mb=2",
    ]
    run = dry_run(tmp_path, "--cores", "3", *options, *groups)
    assert run.returncode == 0 and not said_by_colatent(run), run.stderr[-3000:]


@pytest.mark.parametrize("how", ["option", "environment"])
def test_a_profile_for_many_workflows_is_checked_too(tmp_path: Path, how: str) -> None:
    def run(text: str):
        (tmp_path / "site.yaml").write_text(text)
        asked = ["--profile", "site.yaml"] if how == "option" else []
        return dry_run(tmp_path, *asked, SNAKEMAKE_PROFILE="none" if asked else "site.yaml")

    names = run("{cores: 1, set-threads: {fitt: 3}, resources: {gpus: 2}}")
    assert names.returncode == 0, names.stderr[-3000:]
    rule, resource = said_by_colatent(names)
    assert rule.startswith("colatent: site.yaml: set-threads: there is no rule 'fitt'; did you mean fit?")
    assert resource.startswith(
        "colatent: site.yaml: resources: there is no resource 'gpus'; did you mean gpu?"
    )
    option = run("{cores: 1, set-thredas: {fit: 3}}")
    assert option.returncode != 0
    assert said_by_colatent(option) == [
        "colatent: site.yaml: there is no option 'set-thredas'; did you mean set-threads?"
    ]


def test_resources_of_another_executor_are_let_through(tmp_path: Path) -> None:
    (tmp_path / "lab.yaml").write_text("{cores: 1, default-resources: {lsf_queue: \"'long'\"}}")
    run = dry_run(tmp_path, "--workflow-profile", "lab.yaml")
    assert run.returncode == 0, run.stderr[-3000:]


@pytest.mark.parametrize("kind", ["--profile", "--workflow-profile"])
def test_profiles_are_found_where_snakemake_is_started(tmp_path: Path, kind: str) -> None:
    (tmp_path / "lab.yaml").write_text("{cores: 1, set-thredas: {fit: 3}}")
    run = dry_run(tmp_path, kind, "lab.yaml", "--directory", str(tmp_path / "elsewhere"))
    assert said_by_colatent(run) == [
        "colatent: lab.yaml: there is no option 'set-thredas'; did you mean set-threads?"
    ]


def test_no_gpu_is_asked_for_on_the_cpu(tmp_path: Path) -> None:
    run = dry_run(tmp_path, "--cores", "1", device="cpu")
    assert run.returncode == 0 and "gpu=1" not in run.stdout + run.stderr
