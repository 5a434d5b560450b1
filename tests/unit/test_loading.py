"""A result may come from anybody: to load one executes no code from it."""

import io
import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from colatent import GPFA, store
from colatent.checkpoint import STATE, Checkpoint
from colatent.errors import InputError
from colatent.models.gpfa_counts import CountGPFA


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
    store.write_store(folder, {"state": store.arrays_to_dataset({"x": np.zeros(1)})}, {})
    state = folder / "data.zarr/state"
    for file in (*state.glob("x/zarr.json"), *(f for f in state.rglob("c/*") if f.is_file())):
        file.unlink()
    if metadata == ".zarray":
        (state / "zarr.json").unlink()
        (state / ".zgroup").write_text(json.dumps({"zarr_format": 2}))
        (state / "x/.zattrs").write_text(json.dumps({"_ARRAY_DIMENSIONS": ["x_0"]}))
    (state / "x" / metadata).write_text(json.dumps(ARRAYS[metadata]))
    for chunk in ("0", "c/0"):
        (state / "x" / chunk).parent.mkdir(exist_ok=True)
        (state / "x" / chunk).write_bytes(pickle.dumps([payload, [1], "|O"]))
    files = (f for f in (folder / "data.zarr").rglob("*") if f.is_file())
    sums = {name: store._checksum(folder, name) for name in (f.relative_to(folder).as_posix() for f in files)}
    (folder / store.MARKER).write_text(json.dumps({"format": store.FORMAT, "sha256": sums}))
    store.check_store(folder)  # whoever plants it writes the checksums, too
    with pytest.raises(Exception):  # noqa: B017 - in whatever words: it is Zarr that refuses it
        store.read_group(folder, "state")
    assert not payload.proof.exists()


@pytest.mark.parametrize("model", [GPFA, CountGPFA])
def test_a_saved_model_with_a_planted_object(tmp_path, payload, model):
    path = tmp_path / "model.safetensors"
    path.write_bytes(npz_bytes(payload))
    with pytest.raises(InputError, match="no safetensors file, or a damaged one"):
        model.load(path)
    assert not payload.proof.exists()


def test_a_checkpoint_with_a_planted_object(tmp_path, payload):
    identity, lines = {"config": "c"}, []
    torch.save({"identity": identity, "network": payload}, tmp_path / STATE)
    assert Checkpoint(tmp_path, identity).load(lines.append) is None
    assert not payload.proof.exists() and "it cannot be read" in lines[0]
