"""What `verify` says of a record that is not that of the stores, without running the workflow."""

import json

import numpy as np
import pytest
import xarray as xr

from colatent import results, store
from colatent.config import Config
from colatent.errors import InputError


def fit(root, model, seed=0, place="fit/{model}/fold-0_seed-{seed}"):
    attrs = {"stage": "fit", "code": "c", "device": "cpu", "inputs": {}, "settings": {"seed": seed}}
    name = f"a/{place.format(model=model, seed=seed)}"
    folder = root / name
    store.write_store(folder, {"g": xr.Dataset({"x": ("t", np.arange(3.0))})}, attrs)
    recorded = {k: attrs[k] for k in ("stage", "code", "device", "inputs")}
    return {name: recorded | {"identity": store.identity(folder), "seed": seed}}


@pytest.fixture
def tree(tmp_path):
    (tmp_path / "scores.csv").write_text("session\n")
    record = {
        "config": {"models": {"gpfa": {}}},
        "stores": fit(tmp_path, "gpfa"),
        "files": {"scores.csv": store.file_sha256(tmp_path / "scores.csv")},
        "volatile": {"config_file": "config.yaml"},
    }
    return tmp_path, record


def found(root, record):
    (root / results.RECORD).write_text(json.dumps(record))
    return results.verify(root)[0]


def test_a_sound_tree_is_fine(tree):
    assert found(*tree) == []


@pytest.mark.parametrize("text", ["{}", '{"stores": {}, "files": {}}', "[" * 100_000])
def test_an_empty_or_endless_record_is_refused(tree, text):
    (tree[0] / results.RECORD).write_text(text)
    with pytest.raises(InputError, match="the record is damaged"):
        results.verify(tree[0])


@pytest.mark.parametrize(("key", "value"), [("seed", 5), ("code", "d"), ("device", "cuda")])
def test_a_record_that_contradicts_a_store_is_said(tree, key, value):
    root, record = tree
    next(iter(record["stores"].values()))[key] = value
    (damage,) = found(root, record)
    assert "the record says of it" in damage.sentence and damage.target == root / results.RECORD


def test_a_store_that_is_not_in_the_record_is_said(tree):
    fit(tree[0], "gpfa", seed=1)
    (damage,) = found(*tree)
    assert "not in the record" in damage.sentence


@pytest.mark.parametrize("place", ["fit/{model}/fold-0_seed-{seed}", "score/{model}", "latents/{model}"])
def test_what_is_left_of_a_removed_model_gets_no_command(tree, place):
    root, record = tree
    record["stores"] |= (left := fit(root, "gone", place=place))
    (root / next(iter(left)) / store.MARKER).unlink()
    (damage,) = found(root, record)
    assert damage.target is None and "the config no longer has its model" in damage.sentence


def test_a_newer_store_is_not_to_be_overwritten(tree):
    root, record = tree
    (root / "a/fit/gpfa/fold-0_seed-0" / store.MARKER).write_text('{"format": 99, "sha256": {}}')
    (damage,) = found(root, record)
    assert damage.target is None and "update colatent" in damage.sentence


@pytest.mark.parametrize("text", ['{"format": Infinity, "sha256": {}}', "[" * 100_000])
def test_an_absurd_marker_is_said(tree, text):
    root, record = tree
    (root / "a/fit/gpfa/fold-0_seed-0" / store.MARKER).write_text(text)
    (damage,) = found(root, record)
    assert "is damaged" in damage.sentence


def test_results_in_a_home_folder_are_refused():
    with pytest.raises(ValueError, match="begins with ~"):
        Config._folder("~/x")
