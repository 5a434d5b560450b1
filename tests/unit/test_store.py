"""Stores are whole or absent."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from colatent import store
from colatent.errors import InputError


@pytest.fixture
def dataset() -> xr.Dataset:
    rng = np.random.default_rng(0)
    return xr.Dataset(
        {
            "value": (("trial", "channel"), rng.normal(size=(4, 3))),
            "seen": ("trial", np.array([1, 0, 1, 1], bool)),
        },
        coords={"channel": ["a", "<b>", "ünit"], "time": ("trial", np.arange(4.0), {"units": "s"})},
        attrs={"kind": "spikes"},
    )  # fmt: skip


def test_what_is_written_is_read_back(tmp_path, dataset):
    folder = tmp_path / "s"
    store.write_store(folder, {"modality/x": dataset, "trials": dataset}, {"session": "s"})
    store.check_store(folder)
    xr.testing.assert_identical(store.read_group(folder, "modality/x"), dataset)
    assert store.read_attrs(folder) == {"session": "s"}
    assert store.group_names(folder) == ["modality/x", "trials"]


def test_arrays_of_any_shape_come_back(tmp_path):
    arrays = {"a|b.c": np.arange(6.0).reshape(2, 3), "n": np.array(3), "f": np.float32([1.5])}
    store.write_store(tmp_path / "s", {"state": store.arrays_to_dataset(arrays)}, {})
    back = store.dataset_to_arrays(store.read_group(tmp_path / "s", "state"))
    assert set(back) == set(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(back[name], array)
        assert back[name].dtype == array.dtype


def test_the_same_data_give_the_same_bytes(tmp_path, dataset):
    for name in "ab":
        store.write_store(tmp_path / name, {"g": dataset}, {"k": 1})
    one, other = (json.loads((tmp_path / name / store.MARKER).read_text()) for name in "ab")
    assert one == other


def test_variables_come_in_one_order_whatever_the_disk_lists_first(tmp_path, dataset, monkeypatch):
    folder, listed = tmp_path / "s", Path.iterdir
    store.write_store(folder, {"g": dataset.assign(a=dataset["seen"], b=dataset["seen"])}, {})
    orders = []
    for backwards in (False, True):
        monkeypatch.setattr(Path, "iterdir", lambda p, b=backwards: iter(sorted(listed(p), reverse=b)))
        orders.append(list(store.read_group(folder, "g").to_dataframe()))
    assert orders[0] == orders[1] == ["a", "b", "seen", "value", "time"]


def test_a_damaged_or_unfinished_store_is_refused(tmp_path, dataset):
    folder = tmp_path / "s"
    store.write_store(folder, {"g": dataset}, {})
    chunk = next(
        f for f in (folder / "data.zarr" / "g" / "value").rglob("*") if f.is_file() and f.name != "zarr.json"
    )
    chunk.write_bytes(chunk.read_bytes()[:-1] + b"x")
    with pytest.raises(InputError, match="not as it was written"):
        store.check_store(folder)
    chunk.unlink()
    with pytest.raises(InputError, match="is missing"):
        store.check_store(folder)
    shutil.copytree(folder, tmp_path / "t")
    (tmp_path / "t" / store.MARKER).unlink()
    with pytest.raises(InputError, match="not a complete store"):
        store.check_store(tmp_path / "t")


def test_what_varies_between_runs_does_not_change_a_stores_identity(tmp_path, dataset):
    for name, written in (("a", "today"), ("b", "tomorrow"), ("c", "today")):
        attrs = {"code": name == "c", "volatile": {"written": written}}
        store.write_store(tmp_path / name, {"g": dataset}, attrs)
        store.check_store(tmp_path / name)
    a, b, c = (store.identity(tmp_path / name) for name in "abc")
    assert a == b != c


def test_a_large_array_is_cut_along_trials_and_sparse_counts_take_little_room(tmp_path):
    counts = np.random.default_rng(0).poisson(0.05, (400, 100, 200)).astype(float)
    store.write_store(
        tmp_path / "s", {"g": xr.Dataset({"value": (("trial", "time", "channel"), counts)})}, {}
    )
    chunks = [f for f in (tmp_path / "s/data.zarr/g/value/c").rglob("*") if f.is_file()]
    assert 2 <= len(chunks) <= 3
    assert sum(f.stat().st_size for f in chunks) < counts.nbytes / 15
    np.testing.assert_array_equal(store.read_group(tmp_path / "s", "g")["value"], counts)


def test_a_store_of_a_newer_format_is_refused(tmp_path, dataset):
    store.write_store(tmp_path / "s", {"g": dataset}, {})
    marker = tmp_path / "s" / store.MARKER
    marker.write_text(marker.read_text().replace('"format": 1', '"format": 2'))
    with pytest.raises(InputError, match=r"newer colatent \(format 2, this one reads 1\)"):
        store.check_store(tmp_path / "s")


def test_a_failed_write_leaves_the_old_store_and_nothing_else(tmp_path, dataset):
    folder = tmp_path / "s"
    store.write_store(folder, {"g": dataset}, {"version": 1})
    with pytest.raises(TypeError):
        store.write_store(folder, {"g": dataset}, {"version": object()})
    assert store.read_attrs(folder) == {"version": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["s"]
