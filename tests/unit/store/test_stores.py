"""Stores are whole or absent."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from colatent.errors import InputError
from colatent.store import stores as store


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


ARRAYS = {
    "emg+spikes>pose|weight": np.arange(6.0).reshape(2, 3),
    "network.0.bias": np.float32([1.5, -0.0, np.inf]),
    "NaN of other bits": np.array([0x7FF8000000000123, 0xFFF8000000000000], np.uint64).view(float),
    "denormal": np.array(5e-324),
    "order": np.array([2**63 - 1, -(2**63)]),
    "kernel": np.array(3),
    "scalar": np.float64(0.02),
    "seen": np.array([True, False]),
    "flag": np.array(True),
    "transposed": np.arange(6.0).reshape(2, 3).T,
    "backwards, every other": np.arange(9, dtype=np.int8)[::-2],
    "broadcast": np.broadcast_to(np.float32(2.5), (2, 2)),
    "none": np.zeros((0, 3)),
    "ünit": np.zeros((1, 1, 1, 0), bool),
}


def test_tensors_come_back_bit_for_bit(tmp_path):
    store.write_store(tmp_path / "s", {}, {"k": 1}, {"state": ARRAYS, "nothing": {}})
    store.check_store(tmp_path / "s")
    assert store.tensor_names(tmp_path / "s") == ["nothing", "state"]
    assert store.read_tensors(tmp_path / "s", "nothing") == {}
    back = store.read_tensors(tmp_path / "s", "state")
    assert list(back) == sorted(ARRAYS)
    for name, array in ARRAYS.items():
        assert (back[name].dtype, back[name].shape) == (array.dtype, array.shape)
        assert back[name].tobytes() == array.tobytes()
        assert back[name].flags.writeable  # torch takes it as it is


def test_the_same_tensors_give_the_same_bytes_in_whatever_order(tmp_path):
    for name, order in (("a", list(ARRAYS)), ("b", list(ARRAYS)[::-1])):
        store.write_store(tmp_path / name, {}, {}, {"state": {n: ARRAYS[n].copy() for n in order}})
    assert store.identity(tmp_path / "a") == store.identity(tmp_path / "b")


def test_tensors_are_numbers(tmp_path):
    for wrong in (np.array(["matern"]), np.array([None])):
        with pytest.raises(Exception, match="Unknown dtype"):
            store.write_store(tmp_path / "s", {}, {}, {"state": {"kernel": wrong}})
    assert not list(tmp_path.iterdir())


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size - 1)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (Path.unlink, "state.safetensors is missing"),
        (flip, "state.safetensors is not as it was written"),
        (cut, "state.safetensors is not as it was written"),
        (lambda file: shutil.copy(file, file.with_stem("more")), "more.safetensors was not written with it"),
    ],
    ids=["missing", "flipped", "truncated", "additional"],
)
def test_damaged_tensors_are_refused(tmp_path, spoil, said):
    folder = tmp_path / "s"
    store.write_store(folder, {}, {}, {"state": {"x": np.arange(3.0)}})
    spoil(folder / "state.safetensors")
    with pytest.raises(InputError, match=f"{said}; make it anew: your snakemake command with --force"):
        store.check_store(folder)


def test_a_fit_of_an_older_colatent_is_to_be_made_anew(tmp_path, dataset):
    store.write_store(tmp_path / "s", {"state": dataset}, {})
    store.check_store(tmp_path / "s")
    with pytest.raises(InputError, match=r"state.safetensors: it cannot be read .*; make it anew: "):
        store.read_tensors(tmp_path / "s", "state")


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
