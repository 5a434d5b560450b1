"""A result may come from anybody: to load one executes no code from it."""

import io
import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from support import plant

from colatent import GPFA
from colatent.errors import InputError
from colatent.jobs.checkpoint import Checkpoint
from colatent.models.gpfa.counts import CountGPFA
from colatent.store import stores as store


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self):
        return os.mkdir, (str(self.proof),)


@pytest.fixture
def payload(tmp_path: Path) -> Payload:
    payload = Payload(tmp_path / "proof")
    pickle.loads(pickle.dumps(payload))
    assert payload.proof.exists()  # it does what it is meant to
    payload.proof.rmdir()
    return payload


def forge_checksums(folder: Path) -> None:
    """Whoever plants something writes the checksums, too."""
    sums = {name: store._checksum(folder, name) for name in store._files(folder)}
    (folder / store.MARKER).write_text(json.dumps({"format": store.FORMAT, "sha256": sums}))
    store.check_store(folder)


def torch_bytes(payload: Payload) -> bytes:
    torch.save({"x": payload}, file := io.BytesIO())
    return file.getvalue()


def npz_bytes(payload: Payload) -> bytes:
    np.savez(file := io.BytesIO(), x=np.array([payload], dtype=object))
    return file.getvalue()


ARRAYS = {
    # Zarr 2 had a codec that unpickles objects
    ".zarray": {
        "zarr_format": 2, "shape": [1], "chunks": [1], "dtype": "|O", "compressor": None, "fill_value": None,
        "order": "C", "filters": [{"id": "pickle", "protocol": 5}],
    },
    "zarr.json": {
        "zarr_format": 3, "node_type": "array", "shape": [1], "data_type": "object", "fill_value": None,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [1]}}, "attributes": {},
        "chunk_key_encoding": {"name": "default"}, "dimension_names": ["x_0"],
        "codecs": [{"name": "numcodecs.pickle", "configuration": {"protocol": 5}}],
    },
}  # fmt: skip


@pytest.mark.parametrize("metadata", ARRAYS)
def test_a_store_with_a_planted_array_of_objects(tmp_path, payload, metadata):
    folder = tmp_path / "fit"
    store.write_store(folder, {"history": xr.Dataset({"x": ("x_0", np.zeros(1))})}, {})
    group = folder / "data.zarr/history"
    for file in (*group.glob("x/zarr.json"), *(f for f in group.rglob("c/*") if f.is_file())):
        file.unlink()
    if metadata == ".zarray":
        (group / "zarr.json").unlink()
        (group / ".zgroup").write_text(json.dumps({"zarr_format": 2}))
        (group / "x/.zattrs").write_text(json.dumps({"_ARRAY_DIMENSIONS": ["x_0"]}))
    (group / "x" / metadata).write_text(json.dumps(ARRAYS[metadata]))
    for chunk in ("0", "c/0"):
        (group / "x" / chunk).parent.mkdir(exist_ok=True)
        (group / "x" / chunk).write_bytes(pickle.dumps([payload, [1], "|O"]))
    forge_checksums(folder)
    with pytest.raises(Exception):  # noqa: B017 - in whatever words: it is Zarr that refuses it
        store.read_group(folder, "history")
    assert not payload.proof.exists()


HEADER = '{"x":{"dtype":"%s","shape":[%s],"data_offsets":[0,%d]}}'
HEADERS = {
    "no JSON": "[" * 100_000,
    "a dtype that NumPy lacks": HEADER % ("BF16", "1", 2),
    "more axes than NumPy has": HEADER % ("F64", ",".join(["0"] * 70), 0),
    "a shape beyond 64 bits": HEADER % ("F64", "4611686018427387904,4", 0),
    "more than there is": HEADER % ("F64", "1000000000000", 8_000_000_000_000),
}


@pytest.fixture
def fit(tmp_path: Path) -> Path:
    store.write_store(tmp_path / "fit", {}, {}, {"state": {"x": np.arange(3.0)}})
    return tmp_path / "fit"


def refused(fit: Path, state: bytes) -> None:
    (fit / "state.safetensors").write_bytes(state)
    forge_checksums(fit)
    with pytest.raises(InputError) as refusal:
        store.read_tensors(fit, "state")
    advice = store.anew(fit / store.MARKER)
    assert str(refusal.value) == f"{fit}/state.safetensors: no safetensors file, or a damaged one; {advice}"


@pytest.mark.parametrize("pack", [pickle.dumps, torch_bytes, npz_bytes])
def test_a_pickle_in_place_of_a_fits_parameters(fit, payload, pack):
    refused(fit, pack(payload))
    assert not payload.proof.exists()


@pytest.mark.parametrize("header", HEADERS)
def test_a_header_that_promises_what_is_not_there(fit, header):
    text = HEADERS[header].encode()
    refused(fit, len(text).to_bytes(8, "little") + text + bytes(2))


def test_a_fits_parameters_cut_anywhere(fit):
    whole = (fit / "state.safetensors").read_bytes()
    for size in range(len(whole)):
        refused(fit, whole[:size])


@pytest.mark.parametrize("model", [GPFA, CountGPFA])
def test_a_saved_model_with_a_planted_object(tmp_path, payload, model):
    path = tmp_path / "model.safetensors"
    path.write_bytes(npz_bytes(payload))
    with pytest.raises(InputError, match="no safetensors file, or a damaged one"):
        model.load(path)
    assert not payload.proof.exists()


def test_a_checkpoint_with_a_planted_object(tmp_path, payload):
    identity, lines = {"config": "c"}, []
    plant(tmp_path, {"identity": identity, "network": payload})
    assert Checkpoint(tmp_path, identity).load(lines.append) is None
    assert not payload.proof.exists() and "it cannot be read" in lines[0]
