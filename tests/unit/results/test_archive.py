"""What an archive holds, what it does not, and what is said of it."""

import json
import tarfile
from pathlib import Path

import pytest
import yaml
from support import FILES, commit, make_clone
from typer.testing import CliRunner

from colatent.cli import app
from colatent.config.file import load_config
from colatent.results import archive
from colatent.results.manifest import checksum
from colatent.store.fingerprint import STAGES
from colatent.store.layout import RECORD

ROOT = Path(__file__).parents[3]
KEY = "?X-Amz-Signature=SECRETTOKEN"


@pytest.fixture(params=["git", "no git"])
def project(request, tmp_path, monkeypatch):
    """A clone whose config folder holds the analysis, below a folder whose name ends as recordings do."""
    folder = make_clone(tmp_path / "x.nwb_study/clone", monkeypatch, tracked=False)
    (folder / "config").mkdir()
    demo = yaml.safe_load((ROOT / "config/config.yaml").read_text(encoding="utf-8"))
    (folder / "config/config.yaml").write_text(yaml.safe_dump(demo))
    (folder / "config/sessions.tsv").write_text("session\tnwb\na\tdata/rec.h5\n")
    monkeypatch.chdir(folder)
    monkeypatch.setattr(archive, "code_fingerprint", dict.fromkeys(STAGES, "this").get)
    if request.param == "git":
        make_clone(folder, monkeypatch)
    return folder


def packed() -> tuple[dict[str, bytes], str]:
    """Return the files of an archive of the config by their names, and what the command prints."""
    run = CliRunner().invoke(app, ["archive", "config/config.yaml", "a.tar.gz"])
    assert run.exit_code == 0, run.output
    with tarfile.open("a.tar.gz") as tar:
        return {m.name.removeprefix("a/"): tar.extractfile(m).read() for m in tar}, run.output


def write_record(code: str = "this", **changes: object) -> None:
    config = load_config("config/config.yaml").model_dump(mode="json") | changes
    store = {"identity": "0", "stage": "fit", "code": code}
    run = {"folder": ".", "git": "abc123"}
    record = {"stores": {"a/fit": store}, "files": {"scores.csv": "0"}, "config": config, "volatile": run}
    Path(config["results"]).mkdir(exist_ok=True)
    whole = record | {"checksum": checksum(record)}
    (Path(config["results"]) / RECORD).write_text(json.dumps(whole))


def test_code_is_packed_and_neither_data_nor_secrets(project):
    (project / "config/data").mkdir()
    for name in (".env", "data/rec.h5", "data/monkey.NWB", "b.simulated.h5"):
        (project / "config" / name).write_text("data")
    files, output = packed()
    own = {f"config/{name}" for name in ("config.yaml", "sessions.tsv")}
    assert set(files) == {*FILES, *own, "archived/config.yaml", "archived/sessions.tsv"}
    assert output.splitlines() == [
        "colatent: without a record: results has none, the workflow has not ended there",
        "a.tar.gz: 8 files; README.md in it says how to run it",
    ]


def test_recordings_that_git_tracks_are_not_packed(project):
    (project / "config/data").mkdir()
    for name in ("data/rec.h5", "data/monkey.NWB"):
        (project / "config" / name).write_text("data")
    if (project / ".git").exists():
        commit(project)
    assert not {name for name in packed()[0] if "data" in name}


def test_keys_in_urls_are_not_packed(project):
    table = f"# was https://a.org/old.nwb{KEY}\nsession\tnwb\tlab\na\thttps://a.org/my rec.nwb{KEY}\tours\r\n"
    (project / "config/sessions.tsv").write_bytes(table.encode())
    files, _ = packed()
    expected = table.replace(KEY, "").encode()
    assert files["archived/sessions.tsv"] == files["config/sessions.tsv"] == expected
    assert not any(b"SECRET" in content for content in files.values())


def test_code_other_than_the_record_s_is_said(project):
    write_record()
    files, output = packed()
    assert "archived/provenance.json" in files and "other code" not in output
    (project / "a.tar.gz").unlink()
    write_record(code="other")
    output = " ".join(packed()[1].split())
    assert "other code than is packed (stages: fit; their commit: abc123)" in output


def test_code_that_git_does_not_track_is_said(project):
    (project / "src/colatent/new_thing.py").touch()
    files, output = packed()
    is_packed = not (project / ".git").exists()
    assert ("src/colatent/new_thing.py" in files) == is_packed
    assert ("git does not track it: src/colatent/new_thing.py" in output) == (not is_packed)


def test_the_config_that_made_the_results_is_packed(project):
    write_record(read_mb=64)
    files, output = packed()
    (project / "again.yaml").write_bytes(files["archived/config.yaml"])
    made = {"read_mb": 64, "sessions": "archived/sessions.tsv"}
    assert load_config("again.yaml") == load_config("config/config.yaml").model_copy(update=made)
    assert "archived/config.yaml is the config that made the results in results" in output
    assert "which has other read_mb; run the workflow with it first" in " ".join(output.split())
