"""What was found in a recording is known again without looking, as long as nothing has changed."""

import os
import shutil
from pathlib import Path

import pytest

from colatent.config.file import load_config
from colatent.ingest.check import Found, check_source
from colatent.ingest.groups import session_groups
from colatent.ingest.session import ingest_session
from colatent.ingest.source import found_before
from colatent.store.provenance import provenance
from colatent.store.stores import write_store

SETTINGS = {"read_mb": 32}


@pytest.fixture
def ingested(simulated_nwb: Path, tmp_path: Path) -> tuple[Path, Path, Found]:
    """A store, the file that it was made from, and what a look into the file finds."""
    config = load_config(Path(__file__).parents[3] / "config/config.yaml")
    chosen = {name: config.modalities[name] for name in ("spikes", "emg")}
    nwb = Path(shutil.copy(simulated_nwb, tmp_path / "a.nwb"))
    session = ingest_session(nwb, config.alignment, chosen, {}, progress=lambda _: None)
    attrs = provenance("ingest", SETTINGS, {}) | {
        "alignment": "trials", "modalities": list(chosen), "source": session.source,
    }  # fmt: skip
    attrs["volatile"]["nwb_modified_ns"] = nwb.stat().st_mtime_ns
    write_store(tmp_path / "session", session_groups(session, []), attrs)
    return tmp_path / "session", nwb, check_source(nwb, config.alignment, chosen)


def test_the_store_tells_what_the_file_would(ingested) -> None:
    store, nwb, found = ingested
    before = found_before(store, nwb, SETTINGS)
    assert before is not None and before.n_trials == found.n_trials == 48
    assert before.n_channels["emg"] == found.n_channels["emg"]
    assert 0 < before.n_channels["spikes"] <= found.n_channels["spikes"]  # silent units are gone


@pytest.mark.parametrize("change", ["settings", "file", "no store", "code"])
def test_after_any_change_the_file_is_looked_into(ingested, monkeypatch, change: str) -> None:
    store, nwb, _ = ingested
    settings = SETTINGS
    if change == "settings":
        settings = {"read_mb": 64}
    elif change == "file":
        with nwb.open("r+b") as file:
            file.seek(-1, os.SEEK_END)
            file.write(b"x")
    elif change == "code":
        monkeypatch.setattr("colatent.ingest.source.code_fingerprint", lambda stage: "another")
    else:
        shutil.rmtree(store)
    assert found_before(store, nwb, settings) is None
