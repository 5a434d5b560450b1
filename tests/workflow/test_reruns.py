"""Which jobs an edit makes run again: the project's code, config and recordings, changed one at a time."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import pytest
import yaml
from filelock import FileLock
from support import copy_package
from warm_python import run_python, run_snakemake, warm_python

from colatent.simulate import simulate_reach, write_reach_nwb
from colatent.store.stores import MARKER

ROOT = Path(__file__).parents[2]
LAST = {"scores", "report", "record"}
MODELS = {
    "fa": {"kind": "smoothed-fa", "latents": {"spikes": 2}},  # which needs no PyTorch, slow to import
    "mean": {"kind": "condition-mean"},
}
# the start page and the record of the whole tree follow whatever changes


def pages(sessions: str, models: tuple[str, ...] = tuple(MODELS)) -> set[tuple[str, str, str]]:
    """Return the jobs of the pages of these models and of their sessions."""
    of_models = {("model_page", s, m) for s in sessions for m in models}
    return of_models | {("session_page", s, "") for s in sessions}


def from_fits(sessions: str, models: tuple[str, ...] = tuple(MODELS)) -> set[tuple[str, str, str]]:
    """Return the jobs of fits and of all that is made from them."""
    fits = {(rule, s, m) for rule in ("fit", "score") for s in sessions for m in models}
    exports = {("export", s, "fa") for s in sessions if "fa" in models}
    return fits | exports | pages(sessions, models)


pytestmark = pytest.mark.workflow
OPTIONS = ("--configfile", "config/config.yaml", "--config", "heldout={folds: 2}")


def snakemake(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the copy of the project, with its own code, in its own folder."""
    own = {"PYTHONPATH": str(project / "src")}
    return run_snakemake(project, "--cores", "2", *arguments, *OPTIONS, **own)


def planned(project: Path, *targets: str) -> set[tuple[str, str, str] | str]:
    """Return the jobs that would run: (rule, session, model), or the rule's name where it has neither."""
    run = snakemake(project, *targets, "--dry-run")
    assert run.returncode == 0, run.stderr[-3000:]
    jobs: set = set()
    for block in re.split(r"\n *(?=\[|rule |localrule )", run.stdout + run.stderr):  # indented in a group
        rule = re.match(r"(?:local)?rule (\w+):", block)
        if rule and rule[1] != "all":
            named = dict(re.findall(r"(session|model)=(\w+)", block.partition("wildcards:")[2]))
            jobs.add((rule[1], named["session"], named.get("model", "")) if named else rule[1])
    return jobs


def write_table(project: Path, *sessions: str) -> None:
    rows = "".join(f"{s}\t../{s}.nwb\n" for s in sessions)
    (project / "config/sessions.tsv").write_text("session\tnwb\n" + rows)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reruns")
    copy_package(folder)
    for name in ("workflow", "config", "envs"):
        shutil.copytree(ROOT / name, folder / name)
    shutil.copy(ROOT / "Snakefile", folder)
    write_reach_nwb(simulate_reach(seed=3, n_trials=16, n_units=14), folder / "a.nwb")
    for name in "bc":
        shutil.copy(folder / "a.nwb", folder / f"{name}.nwb")
    write_table(folder, "a", "b")
    config = yaml.safe_load((ROOT / "config/config.yaml").read_text()) | {
        "sessions": "config/sessions.tsv", "results": "out", "models": MODELS,
        "simulate": None, "truth": None,
        "heldout": {"folds": 3},
    }  # fmt: skip
    config["modalities"] = {"spikes": config["modalities"]["spikes"]}
    (folder / "config/config.yaml").write_text(yaml.safe_dump(config))
    run = snakemake(folder)
    assert run.returncode == 0, run.stderr[-4000:]
    return folder


def copy_of(project: Path, folder: Path, without: str = "") -> Path:
    """Copy the project, to run in it what would cost minutes to undo."""
    ignored = shutil.ignore_patterns(without)
    return Path(shutil.copytree(project, folder / "copy", ignore=ignored, symlinks=True))


@contextmanager
def edited(file: Path, old: str, new: str) -> Iterator[None]:
    """Edit a file for the block."""
    text = file.read_text()
    assert text.count(old) >= 1
    file.write_text(text.replace(old, new, 1))
    try:
        yield
    finally:
        file.write_text(text)


EDITS = {
    "a constant of a kernel": (
        "src/colatent/models/gp.py", "return torch.exp(-0.5 * r**2)", "return torch.exp(-0.6 * r**2)",
        from_fits("ab") | LAST,
    ),
    "a colour": (
        "src/colatent/report/figures/style.py", "#0072B2", "#0072B3", pages("ab") | {"report", "record"},
    ),
    "a key of one model": (
        "config/config.yaml", "    latents:\n      spikes: 2\n", "    latents:\n      spikes: 3\n",
        from_fits("ab", ("fa",)) | LAST,
    ),
}  # fmt: skip


def test_comments_and_docstrings_redo_nothing(project):
    """Nor does anything else, right after all was made."""
    models = project / "src/colatent/models"
    with (
        edited(models / "gpfa/fit.py", "\nimport ", "\n# a remark\nimport "),
        edited(models / "gp.py", "Gaussian-process priors", "Priors"),
    ):
        assert planned(project) == set()


@pytest.mark.parametrize("edit", EDITS)
def test_an_edit_redoes_what_depends_on_it(project, edit):
    file, old, new, expected = EDITS[edit]
    with edited(project / file, old, new):
        assert planned(project) == expected


def test_what_was_edited_and_put_back_redoes_nothing_nor_does_a_recording_that_was_touched(project):
    """After the dry runs above, each of which left its settings and code beside the results."""
    os.utime(project / "a.nwb")
    assert planned(project) == set()


def test_settings_that_come_back_after_others_redo_what_those_made(project, tmp_path):
    copy, target = copy_of(project, tmp_path), f"out/a/score/mean/{MARKER}"
    with edited(
        copy / "config/config.yaml", "kind: condition-mean", "kind: smoothed-fa\n    latents: {spikes: 2}"
    ):
        assert snakemake(copy, target).returncode == 0
    jobs = planned(copy)
    assert jobs >= {("fit", "a", "mean"), ("score", "a", "mean")}
    assert not [job for job in jobs if job[0] in ("ingest", "split") or job[:1] + job[2:] == ("fit", "fa")]
    assert snakemake(copy, target).returncode == 0
    assert planned(copy, target) == set()


def test_a_changed_recording_redoes_its_session_only(project):
    kept = project / "a.nwb.kept"
    shutil.copy2(project / "a.nwb", kept)
    with h5py.File(project / "a.nwb", "a") as file:
        file["units/spike_times"][0] += 1e-3
    jobs = planned(project)
    # the same change in a file that looks older than the results
    os.utime(project / "a.nwb", (0, 0))
    older = snakemake(project, "--dry-run")
    kept.rename(project / "a.nwb")
    assert jobs == from_fits("a") | {("ingest", "a", ""), ("split", "a", "")} | LAST
    assert older.returncode != 0
    assert "a.nwb: this is not the file that out/a/session was made from" in older.stdout + older.stderr
    assert "`touch a.nwb` to ingest it" in older.stdout + older.stderr


def test_results_without_a_memory_are_not_taken_for_what_the_config_asks_for(project, tmp_path):
    """In another folder, or where .snakemake was deleted, times tell alone."""
    copy = copy_of(project, tmp_path, without=".snakemake")
    config = copy / "config/config.yaml"
    assert planned(copy) == set()
    with edited(config, "bin_width: 0.02", "bin_width: 0.04"):
        assert {("ingest", "a", ""), ("ingest", "b", "")} | from_fits("ab") | LAST <= planned(copy)
    assert planned(copy) == set()
    with edited(config, "  mean:\n    kind: condition-mean\n", ""):
        assert planned(copy) == {("session_page", s, "") for s in "ab"} | LAST


def test_the_order_of_models_is_that_of_the_tables(project):
    config = project / "config/config.yaml"
    kept = config.read_text()
    settings = yaml.safe_load(kept)
    settings["models"] = dict(reversed(settings["models"].items()))
    config.write_text(yaml.safe_dump(settings, sort_keys=False))
    jobs = planned(project)
    config.write_text(kept)
    assert jobs >= LAST and not [job for job in jobs if job[0] in ("fit", "score")]


def test_a_new_session_redoes_the_overview_only(project):
    write_table(project, "a", "b", "c")
    jobs = planned(project)
    write_table(project, "a", "b")
    assert jobs == from_fits("c") | {("ingest", "c", ""), ("split", "c", "")} | LAST


def colatent(project: Path, *arguments: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    own = {"PYTHONPATH": str(project / "src")}
    return run_python(folder or project, str(Path(sys.executable).with_name("colatent")), *arguments, **own)


def chunk_of(store: Path) -> Path:
    return next(p for p in sorted(store.rglob("c/**/*")) if p.is_file() and p.stat().st_size > 8)


def flip(store: Path) -> None:
    chunk = chunk_of(store)
    content = bytearray(chunk.read_bytes())
    content[len(content) // 2] ^= 1
    chunk.write_bytes(bytes(content))


def delete(store: Path) -> None:
    chunk_of(store).unlink()


def truncate(store: Path) -> None:
    os.truncate(chunk_of(store), 5)


def unmark(store: Path) -> None:
    (store / MARKER).unlink()


@pytest.mark.parametrize("damages", [(flip, truncate), (unmark, delete)])
def test_damage_is_found_named_and_repaired_alone(project, damages):
    names = ("a/session", "a/fit/fa/fold-1_seed-0")
    for name, damage in zip(names, damages, strict=True):
        damage(project / "out" / name)
    found = colatent(project, "verify", "out")
    assert found.returncode == 1
    assert (
        all(f"colatent: out/{name}: " in found.stderr for name in names) and "Traceback" not in found.stderr
    )
    assert found.stderr.count("colatent: ") == 2
    *commands, record = found.stderr.strip().splitlines()[-1].split(" && ")
    targets = [f"out/{name}/{MARKER}" for name in names]
    assert [command.split()[4] for command in commands] == targets and "--force out/provenance.json" in record
    for target in targets:
        repair = snakemake(project, "--force", target)
        assert repair.returncode == 0, repair.stderr[-3000:]
        assert len(re.findall(r"rule \w+:", repair.stdout + repair.stderr)) == 1
    assert colatent(project, "verify", "out").returncode == 0
    assert planned(project) == set()


def test_damaged_tables_and_figures_are_named(project):
    for name, target in (("scores.csv", "out/scores.csv"), ("a/latents/fa.nwb", "out/a/latents/fa.nwb")):
        file = project / "out" / name
        content, times = file.read_bytes(), file.stat()
        file.write_bytes(content.replace(b"0", b"1", 1))
        found = colatent(project, "verify", "out")
        file.write_bytes(content)
        os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
        assert found.returncode == 1 and f"out/{name}: the file is not as it was written" in found.stderr
        assert f"--force {target} " in found.stderr


def test_what_verify_prints_repairs(project, tmp_path):
    """The very line, in a shell, from elsewhere; the config that counts is not that of the file alone."""
    page = project / "out/report/index.html"
    page.write_text(page.read_text() + "edited")
    flip(project / "out/a/fit/fa/fold-0_seed-0")
    found = colatent(project, "verify", str(project / "out"), folder=tmp_path)
    assert "2 of " in found.stderr and "Traceback" not in found.stderr
    program = tmp_path / "bin/snakemake"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {warm_python()} -m snakemake "$@"\n')
    program.chmod(0o755)
    environment = os.environ | {
        "PATH": f"{program.parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(project / "src"),
        "OMP_NUM_THREADS": "1",
    }
    command = found.stderr.strip().splitlines()[-1]
    run = subprocess.run(command, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-3000:]
    assert colatent(project, "verify", "out").returncode == 0
    assert planned(project) == set()


def test_an_edited_table_goes_no_further(project):
    for name in ("a/score/mean.csv", "scores.csv"):
        file = project / "out" / name
        content = file.read_bytes()
        file.write_bytes(content.replace(b"0.", b"1.", 1))
        run = snakemake(project)
        assert run.returncode != 0
        assert re.search(f"out/{name}: the (file|table) is not as it was written; make it anew", run.stderr)
        assert colatent(project, "verify", "out").returncode != 0
        repair = snakemake(project, "--force", f"out/{name}")
        assert repair.returncode == 0 and file.read_bytes() == content
        assert snakemake(project).returncode == 0  # what stopped is made
    assert colatent(project, "verify", "out").returncode == 0


def test_verify_says_what_is_no_tree_of_results(project, tmp_path):
    for folder, sentence in ((tmp_path, "there is no such record"), (tmp_path / "none", "no such folder")):
        run = colatent(project, "verify", str(folder))
        assert run.returncode == 1 and sentence in run.stderr and len(run.stderr.splitlines()) == 1


def test_two_runs_at_once_are_refused(project):
    target = f"out/a/fit/fa/fold-0_seed-0/{MARKER}"
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "--force", target]
    first = subprocess.Popen(
        [*command, *OPTIONS],
        cwd=project,
        env=os.environ | {"PYTHONPATH": str(project / "src")},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert first.stderr is not None
    for line in first.stderr:  # until it works on a job, when it holds the lock
        if "rule fit:" in line:
            break
    second = snakemake(project, "--force", target)
    first.communicate()
    assert first.returncode == 0
    assert second.returncode != 0 and "lock" in second.stderr
    assert planned(project) == set()


def test_a_run_in_another_folder_on_the_same_results_is_refused(project):
    """Told by the lock on the results alone: that of Snakemake lies in the folder where it runs."""
    target = f"out/a/fit/fa/fold-0_seed-0/{MARKER}"
    with FileLock(project / "out/.lock"):
        refused = snakemake(project, "--force", target)
        assert planned(project) == set()  # a dry run changes nothing
    said = [line for line in refused.stderr.splitlines() if line.startswith("colatent: ")]
    assert refused.returncode != 0 and "Traceback" not in refused.stderr
    assert len(said) == 1 and "another workflow is at work on these results" in said[0]
    assert "rule fit:" not in refused.stderr


def mounted(folder: Path, options: str) -> bool:
    folder.mkdir(exist_ok=True)
    return subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]).returncode == 0


@pytest.mark.parametrize(
    ("options", "sentence"),
    [("size=120k", "No space left on device"), ("ro", "the folder elsewhere/out cannot be written")],
    ids=["full disk", "read-only"],
)
def test_results_that_cannot_be_written_are_said(project, options, sentence):
    if os.geteuid() != 0 or not mounted(project / "elsewhere", options):
        pytest.skip("only root can mount a small disk to fill")
    try:
        with edited(project / "config/config.yaml", "results: out", "results: elsewhere/out"):
            run = snakemake(project, "--nolock")
        places = list((project / "elsewhere").rglob("*"))
        left = [path for path in places if path.name == MARKER or ".making" in path.name]
    finally:
        subprocess.run(["umount", str(project / "elsewhere")], check=True)
    assert run.returncode != 0 and sentence in run.stdout + run.stderr, run.stderr[-2000:]
    assert left == []
