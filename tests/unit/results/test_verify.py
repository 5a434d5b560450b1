"""What `verify` says of a record that is not that of the stores, without running the workflow."""

import errno
import json
import os
import re
import shlex
import subprocess
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import yaml
from typer.testing import CliRunner

from colatent.cli import app
from colatent.config import Config
from colatent.errors import InputError
from colatent.results import verify
from colatent.results.manifest import checksum
from colatent.results.repair import repair_command
from colatent.store import checksums
from colatent.store import stores as store
from colatent.store.layout import CONFIG, PLAN, RECORD, walk_results

ROOT = Path(__file__).parents[3]
FIT = "a/fit/gpfa/fold-0_seed-0"


def fit(root, model, seed=0, place="fit/{model}/fold-0_seed-{seed}"):
    attrs = {"stage": "fit", "code": "c", "device": "cpu", "inputs": {}, "settings": {"seed": seed}}
    name = f"a/{place.format(model=model, seed=seed)}"
    folder = root / name
    store.write_store(folder, {"g": xr.Dataset({"x": ("t", np.arange(3.0))})}, attrs)
    recorded = {k: attrs[k] for k in ("stage", "code", "device", "inputs")}
    return {name: recorded | {"identity": store.identity(folder), "seed": seed}}


@pytest.fixture
def tree(tmp_path):
    root = tmp_path / "my project/out"
    root.mkdir(parents=True)
    (root / CONFIG).parent.mkdir()
    (root / "scores.csv").write_text("session\n")
    record = {
        "config": {"models": {"gpfa": {}}, "results": "out"},
        "stores": fit(root, "gpfa"),
        "files": {"scores.csv": store.file_sha256(root / "scores.csv")},
        "volatile": {"folder": str(root.parent)},
    }
    return root, record


def write(root, record):
    content = record | {"checksum": checksum(record)}
    if not (root / CONFIG).exists():
        (root / CONFIG).write_text(yaml.safe_dump(record["config"]))
    (root / RECORD).write_text(json.dumps(content))


def found(root, record):
    write(root, record)
    return verify.verify(root).damages


def test_a_sound_tree_is_fine(tree):
    assert found(*tree) == []


@pytest.mark.parametrize(
    "text",
    ["{}", "NaN", '{"stores": {}, "files": {}}', "[" * 100_000, '{"files": Infinity}', "9" * 5000, "\xff"],
)
def test_an_empty_or_endless_record_is_refused(tree, text):
    (tree[0] / RECORD).write_text(text, encoding="latin-1")
    with pytest.raises(InputError, match="the record is damaged"):
        verify.verify(tree[0])


def test_an_edited_record_is_damaged(tree):
    root, record = tree
    write(root, record)
    for old, new in (("scores.csv", "shores.csv"), ('"folder"', '"holder"'), ('"checksum"', '"check"')):
        text = (root / RECORD).read_text()
        (root / RECORD).write_text(text.replace(old, new))
        with pytest.raises(InputError, match="the record is damaged"):
            verify.verify(root)
        (root / RECORD).write_text(text)
    assert verify.verify(root).damages == []


@pytest.mark.parametrize(("key", "value"), [("seed", 5), ("code", "d"), ("device", "cuda")])
def test_a_record_that_contradicts_a_store_is_said(tree, key, value):
    root, record = tree
    next(iter(record["stores"].values()))[key] = value
    (damage,) = found(root, record)
    assert "the record says of it" in damage.sentence and damage.target == root / RECORD


def test_stores_that_are_not_in_the_record_are_named_and_no_damage(tree, monkeypatch):
    root, record = tree
    left = [*fit(root, "gone"), *fit(root, "gpfa", seed=1)]
    (root / left[0] / store.MARKER).unlink()
    write(root, record)
    assert verify.verify(root) == ([], 2, sorted(root / name for name in left))
    run = CliRunner().invoke(app, ["verify", str(root)])
    assert run.exit_code == 0
    assert "2 stores are not in the record" in run.output and "were not checked" in run.output


def test_a_newer_store_is_not_to_be_overwritten(tree):
    root, record = tree
    (root / "a/fit/gpfa/fold-0_seed-0" / store.MARKER).write_text('{"format": 99, "sha256": {}}')
    (damage,) = found(root, record)
    assert damage.target is None and "update colatent" in damage.sentence


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("stores", float("nan")),
        ("files", ["scores.csv"]),
        ("files", {"scores.csv": float("nan")}),
        ("config", {"results": "out", "models": float("inf")}),
        ("volatile", {"folder": float("nan")}),
    ],
)
def test_a_record_of_another_kind_is_refused(tree, key, value):
    root, record = tree
    with pytest.raises(InputError, match="the record is damaged"):
        found(root, record | {key: value})


@pytest.mark.parametrize(
    "text",
    [
        '{"format": Infinity, "sha256": {}}',
        '{"format": NaN, "sha256": {}}',
        '{"format": 1, "sha256": Infinity}',
        '{"format": 1, "sha256": [[1, "a"]]}',
        '{"format": 1, "sha256": {}}',
        "[" * 100_000,
    ],
)
def test_an_absurd_marker_is_said(tree, text):
    root, record = tree
    (root / "a/fit/gpfa/fold-0_seed-0" / store.MARKER).write_text(text)
    (damage,) = found(root, record)
    assert "is damaged" in damage.sentence


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("scores.csv", "the file is missing"),
        (f"{FIT}/{store.MARKER}", "not a complete store"),
        (f"{FIT}/data.zarr/zarr.json", "data.zarr/zarr.json is missing"),
        (f"{FIT}/data.zarr/g/more/zarr.json", "data.zarr/g/more/zarr.json was not written with it"),
    ],
)
def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(tree, name, sentence):
    root, record = tree
    (root / name).unlink(missing_ok=True)
    (root / name).parent.mkdir(exist_ok=True)
    os.mkfifo(root / name)
    (damage,) = found(root, record)
    assert sentence in damage.sentence


@pytest.mark.parametrize("text", [None, "{}", "NaN", '{"attributes": Infinity}', "[" * 100_000])
def test_attributes_that_cannot_be_read_are_one_sentence(tree, text):
    file = tree[0] / FIT / "data.zarr/zarr.json"
    file.unlink()
    os.mkfifo(file) if text is None else file.write_text(text)
    with pytest.raises(InputError, match=r"data.zarr/zarr.json is (missing|damaged)"):
        store.read_attrs(tree[0] / FIT)


def test_what_a_disk_does_not_give_is_damage(tree, monkeypatch):
    def unreadable(file):
        raise OSError(errno.EIO, "Input/output error", str(file))

    for module in (checksums, store):
        monkeypatch.setattr(module, "file_sha256", unreadable)
    stores, files = found(*tree)
    assert "Input/output error" in stores.sentence and "Input/output error" in files.sentence
    assert stores.target == tree[0] / FIT / store.MARKER and files.target == tree[0] / "scores.csv"


def command(root, record, monkeypatch, folder, name=None):
    """Return what is printed last when verify is run in a folder on results with a damaged table."""
    (root / "scores.csv").write_text("edited\n")
    write(root, record)
    monkeypatch.chdir(folder)
    run = CliRunner().invoke(app, ["verify", str(name or root)])
    assert run.exit_code == 1 and isinstance(run.exception, SystemExit)
    return run.output.splitlines()[-1]


OPTIONS = shlex.join(["--snakefile", str(ROOT / "Snakefile"), "--configfile", f"out/{CONFIG}"])
REPAIR = " && ".join(f"snakemake --cores 2 --force out/{name} {OPTIONS}" for name in ("scores.csv", RECORD))


def test_the_command_repeats_how_snakemake_was_run(tree, monkeypatch):
    assert command(*tree, monkeypatch, tree[0].parent, "out") == REPAIR


def test_in_the_project_itself_no_snakefile_is_named(tree, monkeypatch):
    monkeypatch.setattr("colatent.results.repair.PACKAGE", tree[0].parent / "src/colatent")
    assert "--snakefile" not in command(*tree, monkeypatch, tree[0].parent, "out")


def test_the_command_names_targets_as_snakemake_knows_them(tree, monkeypatch, tmp_path):
    root, record = tree
    assert command(root, record, monkeypatch, root.parent, root) == REPAIR
    elsewhere = f"cd '{root.parent}' && {REPAIR}"
    assert command(root, record, monkeypatch, tmp_path, root) == elsewhere
    assert command(root, record, monkeypatch, tmp_path, "my project/out") == elsewhere
    assert command(root, record, monkeypatch, root, ".") == elsewhere
    (tmp_path / "link").symlink_to(root)
    assert command(root, record, monkeypatch, tmp_path, "link") == elsewhere


def test_the_command_can_be_copied_whatever_the_names(tree, monkeypatch, tmp_path):
    root, record = tree
    folder = tmp_path / "wd :x: \x1b[2J\udcff\x85"
    name = "my 'out'\tt :warning:\u202e [red]"
    root.parent.rename(folder)
    (folder / "out").rename(folder / name)
    record["config"]["results"] = name
    record["volatile"] |= {"folder": str(folder)}
    printed = command(folder / name, record, monkeypatch, tmp_path)
    assert printed.isprintable()
    told = subprocess.run(
        ["bash", "-c", f'snakemake() {{ printf \'%s\\0\' "$PWD" "$4"; }}; {printed}'], capture_output=True
    )
    said = list(map(os.fsdecode, told.stdout.split(b"\0")))
    assert said[:-1] == [f"{folder}", f"{name}/scores.csv", f"{folder}", f"{name}/{RECORD}"]


def test_what_a_record_holds_does_not_steer_the_terminal(tree, monkeypatch):
    root, record = tree
    record["volatile"]["folder"] = "gone\x1b[31mRED\x1b[2J :heart:"
    said = command(root.rename(root.with_name("copy")), record, monkeypatch, root.parent)
    assert said.isprintable() and "gone\\x1b[31mRED\\x1b[2J :heart:" in said


def test_what_lies_between_two_damages_is_not_redone(tree):
    root, record = tree
    write(root, record)
    damaged = [
        "report/index.html",
        "report/sessions/a/index.html",
        "a/fit/gpfa/fold-1_seed-0/complete.json",
        "b/fit/gpfa/fold-1_seed-0/complete.json",
        "provenance.json",
        "a/session/complete.json",
    ]
    commands = repair_command(root, record, [root / name for name in damaged]).split(" && ")
    forced = [re.findall(r" out/(\S+)", line) for line in commands]
    steps = [damaged[5]], damaged[2:4], [damaged[1]], [damaged[0]], [RECORD]
    assert forced[1:] == [[*step, CONFIG] for step in steps]


def test_the_command_of_a_moved_project_is_run_where_it_is_now(tree, monkeypatch, tmp_path):
    root, record = tree
    root.parent.rename(tmp_path / "moved")
    assert (
        command(tmp_path / "moved/out", record, monkeypatch, tmp_path) == f"cd {tmp_path}/moved && {REPAIR}"
    )


def test_no_wrong_command_is_given(tree, monkeypatch, tmp_path):
    root, record = tree
    write(root, record)
    (root / CONFIG).unlink()
    with pytest.raises(InputError, match="the config of these results is missing"):
        repair_command(root, record, [root / "scores.csv"])
    (root / CONFIG).write_text("results: out\nmodels: {other: {}}\n")
    said = f"{root / CONFIG}: not the config that is in the record"
    assert verify.verify(root).damages == [verify.Damage(root / RECORD, said)]
    assert "is missing, or not as it was written" in command(root, record, monkeypatch, tmp_path)
    root.rename(tmp_path / "copy")
    said = command(tmp_path / "copy", record, monkeypatch, tmp_path)
    assert "the results do not lie where they were made" in said


def test_results_inside_results_are_their_own(tree):
    root, record = tree
    for inner, sign in (("nested", RECORD), ("begun", PLAN)):
        fit(root / inner, "gpfa")
        (root / inner / "scores.csv").write_text("session\n")
        (root / inner / sign).parent.mkdir(exist_ok=True)
        (root / inner / sign).write_text("{}")
    write(root, record)
    assert verify.verify(root) == ([], 2, [])


def test_sessions_behind_links_are_part_of_the_results(tree):
    root, record = tree

    def stores():
        return [place.path for place in walk_results(root) if place.is_store]

    (root / "a").rename(root.parent / "on another disk")
    (root / "a").symlink_to(root.parent / "on another disk")
    assert stores() == [root / FIT]
    (root / "a/round").symlink_to(root)
    (root / "a/self").symlink_to(root.parent / "on another disk")
    assert stores() == [root / FIT]
    assert found(root, record) == []


def test_results_in_a_home_folder_are_refused():
    with pytest.raises(ValueError, match="begins with ~"):
        Config._folder("~/x")


@pytest.mark.parametrize("name", ["./out", "out/", "out"])
def test_results_have_the_name_that_snakemake_tracks(name):
    assert Config._folder(name) == "out"
