"""Fixtures of the unit tests."""

from pathlib import Path

import pytest
from support import write_recording


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """A file with units, force, cells, pictures and ragged trials, to be changed at will."""
    return write_recording(tmp_path / "session.nwb")
