"""Which jobs an edit makes run again: the project's code, config and recordings, changed one at a time."""

import fcntl
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import pytest
import yaml
from support import run_snakemake

from colatent.simulate import simulate_reach, write_reach_nwb
from colatent.store.stores import MARKER

ROOT = Path(__file__).parents[2]
LAST = {"scores", "report", "record"}
MODELS = {
    "gpfa": {"kind": "gpfa", "latents": {"spikes": 2}},
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
    exports = {("export", s, "gpfa") for s in sessions if "gpfa" in models}
    return fits | exports | pages(sessions, models)


pytestmark = pytest.mark.workflow
OPTIONS = ("--configfile", "config/config.yaml", "--config", "heldout={folds: 2}")


def snakemake(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the copy of the project, with its own code, in its own folder."""
    own = {"PYTHONPATH": str(project / "src")}
    return run_snakemake(project, "--cores", "2", *arguments, *OPTIONS, **own)


def planned(project: Path) -> set[tuple[str, str, str] | str]:
    """Return the jobs that would run: (rule, session, model), or the rule's name where it has neither."""
    run = snakemake(project, "--dry-run")
    assert run.returncode == 0, run.stderr[-3000:]
    jobs: set = set()
    for block in re.split(r"\n(?=\[|rule |localrule )", run.stdout + run.stderr):
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
    for name in ("src", "workflow", "config", "envs"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "Snakefile", folder)
    write_reach_nwb(simulate_reach(seed=3, n_trials=16, n_units=14), folder / "a.nwb")
    for name in "bc":
        shutil.copy(folder / "a.nwb", folder / f"{name}.nwb")
    write_table(folder, "a", "b")
    config = yaml.safe_load((ROOT / "config/config.yaml").read_text()) | {
        "sessions": "sessions.tsv", "results": "out", "models": MODELS, "simulate": None, "truth": None,
        "heldout": {"folds": 3, "channels": {"spikes": 0.25}},
    }  # fmt: skip
    config["modalities"] = {"spikes": config["modalities"]["spikes"]}  # fewer figures
    (folder / "config/config.yaml").write_text(yaml.safe_dump(config))
    run = snakemake(folder)
    assert run.returncode == 0, run.stderr[-4000:]
    assert planned(folder) == set()
    return folder


def edited(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert text.count(old) >= 1
    file.write_text(text.replace(old, new, 1))


@pytest.mark.parametrize(
    ("file", "old", "new", "expected"),
    [
        ("src/colatent/models/gpfa_fit.py", "\nimport ", "\n# a remark\nimport ", set()),
        ("src/colatent/gp.py", "Gaussian-process priors", "Priors", set()),
        ("src/colatent/gp.py", "return torch.exp(-0.5 * r**2)", "return torch.exp(-0.6 * r**2)",
         from_fits("ab") | LAST),
        ("src/colatent/report/style.py", "#0072B2", "#0072B3", pages("ab") | {"report", "record"}),
        ("config/config.yaml", "    latents:\n      spikes: 2\n", "    latents:\n      spikes: 3\n",
         from_fits("ab", ("gpfa",)) | LAST),
    ],
    ids=["comment", "docstring", "kernel", "colour", "key of one model"],
)  # fmt: skip
def test_an_edit_redoes_what_depends_on_it(project, file, old, new, expected):
    kept = (project / file).read_text()
    edited(project / file, old, new)
    jobs = planned(project)
    (project / file).write_text(kept)
    assert jobs == expected


def test_what_older_code_made_is_recorded_where_it_is_kept_on_purpose(project):
    file, record = project / "src/colatent/gp.py", "out/provenance.json"
    kept = file.read_text()
    edited(file, "return torch.exp(-0.5 * r**2)", "return torch.exp(-0.6 * r**2)")
    run = snakemake(project, "--rerun-triggers", "mtime", "--force", record)
    file.write_text(kept)
    assert run.returncode == 0, run.stderr[-3000:]
    assert planned(project) == {"record"}  # now of one code again
    assert snakemake(project).returncode == 0 and planned(project) == set()


def test_a_recording_that_was_touched_redoes_nothing(project):
    os.utime(project / "a.nwb")
    assert planned(project) == set()


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
    assert "a.nwb: this is another file than out/a/session was made from" in older.stderr
    assert "`touch a.nwb` to ingest it" in older.stderr


def test_a_run_that_remembers_nothing_does_not_take_old_results_for_new_ones(project):
    """As in another folder, or where .snakemake was deleted: Snakemake knows of no change there."""
    config, memory = project / "config/config.yaml", project / ".snakemake"
    kept = config.read_text()
    memory.rename(project / "memory")
    try:
        assert planned(project) == set()
        edited(config, "bin_width: 0.02", "bin_width: 0.04")
        refused = snakemake(project, "out/a/score/mean.csv"), snakemake(project, "--forcerun", "score")
        told = snakemake(project, "--dry-run", "--forcerun", "ingest")
        config.write_text(kept)
        edited(config, "  mean:\n    kind: condition-mean\n", "")
        fewer_models = snakemake(project)
    finally:
        config.write_text(kept)
        shutil.rmtree(memory, ignore_errors=True)
        (project / "memory").rename(memory)
    for run in refused:
        assert_refused(run, "out/a/session")
        assert "--forcerun ingest" in run.stderr
    assert "rule ingest" in told.stdout + told.stderr
    assert_refused(fewer_models, "out/provenance.json")
    assert "--forcerun scores" in fewer_models.stderr


def test_results_put_back_are_not_taken_for_those_that_snakemake_remembers(project):
    config, markers = project / "config/config.yaml", sorted((project / "out").rglob(MARKER))
    kept, times = config.read_text(), [file.stat().st_mtime_ns for file in markers]
    for file, time in zip(markers, times, strict=True):
        os.utime(file, ns=(time, time - 10_000_000_000))
    try:
        assert planned(project) == set()
        edited(config, "bin_width: 0.02", "bin_width: 0.04")
        assert_refused(snakemake(project), "out/a/session")
    finally:
        config.write_text(kept)
        for file, time in zip(markers, times, strict=True):
            os.utime(file, ns=(time, time))
    assert planned(project) == set()


def assert_refused(run: subprocess.CompletedProcess[str], output: str) -> None:
    (sentence,) = [line for line in run.stderr.splitlines() if line.startswith("colatent: ")]
    assert run.returncode != 0 and "Traceback" not in run.stderr
    assert f"{output}: made with other settings or code than now" in sentence


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
    return subprocess.run(
        [sys.executable, "-c", "from colatent.cli import app; app()", *arguments],
        cwd=folder or project,
        env=os.environ | {"PYTHONPATH": str(project / "src")},
        capture_output=True,
        text=True,
    )


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


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("a/session", flip), ("a/session", unmark),
        ("a/fit/gpfa/fold-1_seed-0", delete), ("a/fit/gpfa/fold-1_seed-0", truncate),
    ],
)  # fmt: skip
def test_damage_is_found_named_and_repaired_alone(project, name, damage):
    store = project / "out" / name
    damage(store)
    found = colatent(project, "verify", "out")
    assert found.returncode == 1
    assert f"colatent: out/{name}: " in found.stderr and "Traceback" not in found.stderr
    assert found.stderr.count("colatent: ") == 1
    command = found.stderr.strip().splitlines()[-1].split()
    assert command[:4] == ["snakemake", "--cores", "2", "--force"] and command[4] == f"out/{name}/{MARKER}"
    repair = snakemake(project, "--force", command[4])
    assert repair.returncode == 0, repair.stderr[-3000:]
    assert len(re.findall(r"rule \w+:", repair.stdout + repair.stderr)) == 1
    assert colatent(project, "verify", "out").returncode == 0
    assert planned(project) == set()


def test_damaged_tables_and_figures_are_named(project):
    for name, target in (("scores.csv", "out/scores.csv"), ("a/latents/gpfa.nwb", "out/a/latents/gpfa.nwb")):
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
    flip(project / "out/a/fit/gpfa/fold-0_seed-0")
    found = colatent(project, "verify", str(project / "out"), folder=tmp_path)
    assert "2 of " in found.stderr and "Traceback" not in found.stderr
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(project / "src"), "OMP_NUM_THREADS": "1"}
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
    target = f"out/a/fit/gpfa/fold-0_seed-0/{MARKER}"
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
    target = f"out/a/fit/gpfa/fold-0_seed-0/{MARKER}"
    with (project / "out/.lock").open("a") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
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
    [("size=32k", "No space left on device"), ("ro", "the folder elsewhere/out cannot be written")],
    ids=["full disk", "read-only"],
)
def test_results_that_cannot_be_written_are_said(project, options, sentence):
    if os.geteuid() != 0 or not mounted(project / "elsewhere", options):
        pytest.skip("only root can mount a small disk to fill")
    config = project / "config/config.yaml"
    kept = config.read_text()
    try:
        edited(config, "results: out", "results: elsewhere/out")
        run = snakemake(project, "--nolock")
        left = [p for p in (project / "elsewhere").rglob("*") if p.name == MARKER or ".building" in p.name]
    finally:
        config.write_text(kept)
        subprocess.run(["umount", str(project / "elsewhere")], check=True)
    assert run.returncode != 0 and sentence in run.stdout + run.stderr, run.stderr[-2000:]
    assert left == []
