"""The record of a tree of results: of what the config makes and nothing else, and only if all is sound."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from support import make_config, scores

from colatent.config.file import load_config
from colatent.errors import InputError
from colatent.results.manifest import read_record, write_record
from colatent.results.verify import verify
from colatent.scoring.tables import join_scores, write_table
from colatent.store.checksums import write_checksums
from colatent.store.layout import CONFIG, latent_models, planned_pages, planned_stores
from colatent.store.provenance import provenance
from colatent.store.stores import file_sha256, identity, write_store


def write_tree(config, sessions):
    """Write all that a config makes, with next to nothing in it."""
    root = Path(config.results)
    for number, (name, plan) in enumerate(planned_stores(config, sessions).items()):
        made_from = {
            key: [identity(root / part) for part in of] if isinstance(of, list) else identity(root / of)
            for key, of in plan.made_from.items()
        }
        attrs = provenance(plan.stage, plan.settings, made_from | plan.inputs)
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        if plan.stage == "ingest":
            attrs["source"] = {"sha256": name}
        if plan.stage == "score":
            write_table(scores(Path(name).name, ["a", "b", "c", "d"]), root / f"{name}.csv")
            attrs["table"] = file_sha256(root / f"{name}.csv")
        if plan.stage == "export":
            (root / f"{name}.nwb").write_text(name)
            attrs["nwb"] = file_sha256(root / f"{name}.nwb")
        write_store(root / name, {"g": xr.Dataset({"x": ("t", np.full(3, float(number)))})}, attrs)
    names = [name for name, plan in planned_stores(config, sessions).items() if plan.stage == "score"]
    join_scores([str(root / f"{name}.csv") for name in names], [root / name for name in names], root)
    for folder in planned_pages(config, sessions):
        (root / folder / "figures").mkdir(parents=True)
        files = [root / folder / "index.html", root / folder / "figures/a.png"]
        for file in files:
            file.write_text(f"{file}")
        write_checksums(root / folder, files)
        (root / folder / "figures/.snakemake_timestamp").touch()


def record(config, sessions=("a", "b")):
    root = Path(config.results)
    write_record(root, config, sessions)
    return read_record(root)


def changed(config, **keys):
    return type(config).model_validate(config.model_dump(mode="json") | keys)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    config = make_config(tmp_path_factory.mktemp("made") / "out", ["spikes", "emg"])
    write_tree(config, ["a", "b"])
    return config


@pytest.fixture
def config(made, tmp_path):
    shutil.copytree(made.results, tmp_path / "out")
    return changed(made, results=str(tmp_path / "out"))


def test_all_that_the_config_makes_is_recorded(config):
    found, root = record(config), Path(config.results)
    assert set(found["stores"]) == set(planned_stores(config, ["a", "b"]))
    assert set(found["recordings"]) == {"a/session", "b/session"}
    expected = {"scores.csv", "paired_differences.csv", "SHA256SUMS"}
    expected |= {f"{s}/score/{m}.csv" for s in "ab" for m in config.models}
    expected |= {f"{s}/latents/{m}.nwb" for s in "ab" for m in latent_models(config)}
    pages = planned_pages(config, ["a", "b"])
    expected |= {f"{p}/{f}" for p in pages for f in ("index.html", "figures/a.png", "SHA256SUMS")}
    assert set(found["files"]) == expected
    assert verify(root) == ([], len(found["stores"]) + len(expected), [])


def test_what_another_config_left_is_no_part_of_the_record(config):
    """With one session less; and of a fold and a model that are gone, from another split."""
    root = Path(config.results)
    left = ["a/fit/mean/fold-9_seed-0", "a/fit/gone/fold-0_seed-0", "a/score/gone"]
    for name in left:
        write_store(root / name, {}, provenance("fit", {"seed": 0}, {"split": "another"}))
    (root / "my_notes.csv").write_text("mine")
    with pytest.raises(InputError, match="joined from other tables"):
        record(config, ["a"])
    names = [f"a/score/{model}" for model in config.models]
    join_scores([str(root / f"{name}.csv") for name in names], [root / name for name in names], root)
    found = record(config, ["a"])
    assert not [name for name in found["stores"] if name.startswith("b/") or name in left]
    assert not [name for name in found["files"] if "/b/" in f"/{name}" or "notes" in name]
    assert set(found["recordings"]) == {"a/session"}
    assert set(left) < {p.relative_to(root).as_posix() for p in verify(root).unknown}


@pytest.mark.parametrize(
    ("keys", "name"),
    [
        ({"read_mb": 64}, "a/session"),
        ({"heldout": {"folds": 3, "seeds": [0, 1], "channels": {"spikes": 0.5}}}, "a/split"),
    ],
)
def test_stores_of_another_config_are_refused(config, keys, name):
    with pytest.raises(InputError, match=f"{name}: made with other settings than the config has"):
        record(changed(config, **keys))


@pytest.mark.parametrize(
    ("there", "instead", "sentence"),
    [
        ("a/fit/mean/fold-0_seed-0", "a/fit/mean/fold-1_seed-0", "made with other settings"),
        ("a/fit/mean/fold-0_seed-0", "a/fit/mean/fold-0_seed-1", "made with other settings"),
        ("a/fit/mean/fold-0_seed-0", "a/fit/ridge/fold-0_seed-0", "made with other settings"),
        ("a/fit/mean/fold-0_seed-0", "b/fit/mean/fold-0_seed-0", "made from another session"),
        ("a/split", "b/split", "made from another session"),
        ("a/score/mean", "b/score/mean", "made from another session"),
    ],
)
def test_a_store_in_another_ones_place_is_refused(config, there, instead, sentence):
    root = Path(config.results)
    shutil.rmtree(root / there)
    shutil.copytree(root / instead, root / there)
    with pytest.raises(InputError, match=sentence):
        record(config)


def test_scores_of_other_fits_are_refused(config):
    root = Path(config.results)
    plan = planned_stores(config, ["a"])["a/fit/mean/fold-1_seed-0"]
    inputs = {part: identity(root / "a" / part) for part in ("session", "split")} | plan.inputs
    write_store(root / "a/fit/mean/fold-1_seed-0", {}, provenance("fit", plan.settings, inputs))
    with pytest.raises(InputError, match="a/score/mean: made from another fits than lies beside it"):
        record(config)


def test_the_config_lies_beside_the_record(config):
    record(config)
    assert load_config(Path(config.results) / CONFIG) == config


@pytest.mark.parametrize(
    "name",
    [
        "paired_differences.csv", "scores.csv", "a/score/mean.csv", "b/latents/vae.nwb", "report/index.html",
        "report/sessions/a/figures/a.png", "report/sessions/b/models/mean/index.html",
    ],
)  # fmt: skip
@pytest.mark.parametrize("damage", [lambda f: f.write_text("edited"), Path.unlink], ids=["edited", "deleted"])
def test_an_edited_file_is_never_recorded_as_genuine(config, name, damage):
    damage(Path(config.results) / name)
    with pytest.raises(InputError, match=f"{name}: the file is (not as it was written|missing)"):
        record(config)


@pytest.mark.parametrize("text", ["", "\xff", "no checksum", "0  ../../a\n"])
def test_damaged_checksums_are_said(config, text):
    (Path(config.results) / "report/sessions/a/SHA256SUMS").write_bytes(text.encode("latin-1"))
    with pytest.raises(
        InputError, match=r"SHA256SUMS: the checksums are missing or damaged|: not in .*SHA256SUMS"
    ):
        record(config)


@pytest.mark.parametrize("name", ["", "report/sessions/a/"])
def test_shortened_checksums_guard_nothing_and_are_refused(config, name):
    sums = Path(config.results) / f"{name}SHA256SUMS"
    lines = sums.read_text().splitlines(keepends=True)
    for left_out in range(len(lines)):
        sums.write_text("".join(line for i, line in enumerate(lines) if i != left_out))
        with pytest.raises(InputError, match=r"not in .*SHA256SUMS; make it anew"):
            record(config)
    sums.write_text("".join(lines))
    record(config)


def test_versions_are_those_that_made_the_stores(config, monkeypatch):
    root = Path(config.results)
    monkeypatch.setattr("colatent.store.provenance.package_version", lambda package: "9.9.9")
    assert record(config)["versions"]["scipy"] != "9.9.9"
    plan = planned_stores(config, ["b"])["b/latents/vae"]
    inputs = {"session": identity(root / "b/session"), "score": identity(root / "b/score/vae")}
    attrs = provenance("export", plan.settings, inputs) | {"nwb": file_sha256(root / "b/latents/vae.nwb")}
    write_store(root / "b/latents/vae", {}, attrs)
    assert record(config)["versions"]["scipy"].endswith(", 9.9.9")
