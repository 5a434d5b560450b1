"""Fixtures of the unit tests."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import pynwb.validation
import pytest
from hdmf.build import BuildManager, TypeMap
from support import write_recording


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """A file with units, force, cells, pictures and ragged trials, to be changed at will."""
    return write_recording(tmp_path / "session.nwb")


def schema_of(nwb: Path) -> str:
    """Return a hash of the schema in a file."""
    schema = hashlib.sha256()

    def add(name: str, item: h5py.Group | h5py.Dataset) -> None:
        schema.update(name.encode() + (item[()] if isinstance(item, h5py.Dataset) else b""))

    with h5py.File(nwb) as file:
        if isinstance(specifications := file.get("specifications"), h5py.Group):
            specifications.visititems(add)
    return schema.hexdigest()


@pytest.fixture(scope="session", autouse=True)
def schemas_read_once() -> Iterator[None]:
    """Read the schema that each file carries once, not anew for each validation, where it takes a second."""
    read, known = pynwb.validation.get_cached_namespaces_to_validate, dict[str, tuple]()

    def read_once(path: Any = None, *rest: Any, **options: Any) -> tuple:
        if path is None:
            return read(path, *rest, **options)
        key = schema_of(path)
        if key not in known:
            known[key] = read(path, *rest, **options)
        names, manager, dependencies = known[key]
        return names, manager and BuildManager(TypeMap(manager.type_map.namespace_catalog)), dependencies

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pynwb.validation, "get_cached_namespaces_to_validate", read_once)
        yield
