"""Settings and code of rules as files: written once, and gone when a job works with others."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from colatent.errors import InputError
from colatent.store import made_with
from colatent.store.fingerprint import code_fingerprint

CODE = {"split": code_fingerprint("split")}


def written(root: Path, folds: int, code: dict[str, str] = CODE) -> Path:
    return Path(made_with.write_made_with(root, {"split": ("split", {"folds": folds})}, code)["split"])


def test_a_file_is_written_once_and_says_the_settings(tmp_path):
    file = written(tmp_path, 3)
    os.utime(file, (0, 0))
    assert written(tmp_path, 3) == file and file.stat().st_mtime == 0
    assert made_with.read_made_with(file) == {"folds": 3}


def test_a_job_removes_the_files_of_other_settings_of_its_rule_alone(tmp_path):
    files = [written(tmp_path, folds) for folds in (3, 4)]
    other = files[0].with_name("split-a.0123456789ab.json")
    other.touch()
    made_with.read_made_with(files[1])
    assert [file.exists() for file in (*files, other)] == [False, True, True]
    before = files[1].read_bytes()
    files[1].unlink()
    assert written(tmp_path, 4).read_bytes() != before  # one that comes back is another


def test_other_code_is_another_file_and_refused_by_the_job(tmp_path):
    file = written(tmp_path, 3, {"split": "edited"})
    assert file != written(tmp_path, 3)
    with pytest.raises(InputError, match="the code of the stage split was edited after this run started"):
        made_with.read_made_with(file)


def test_a_file_that_comes_while_a_job_runs_does_not_vouch_for_what_it_makes(tmp_path):
    own, other = written(tmp_path, 3), tmp_path / "made_with/split.0123456789ab.json"
    job = (
        "import sys; from pathlib import Path; from colatent.store.made_with import read_made_with\n"
        "read_made_with(sys.argv[1]); Path(sys.argv[2]).touch(); sys.exit('the job failed')"
    )
    run = subprocess.run([sys.executable, "-c", job, own, other], capture_output=True, text=True, timeout=60)
    assert run.stderr == "the job failed\n" and list(own.parent.iterdir()) == [own]


@pytest.mark.parametrize("damage", ["", "{}", "[]", None])
def test_a_damaged_file_is_said_and_written_again(tmp_path, damage):
    file = written(tmp_path, 3)
    text = file.read_text()
    file.write_text(text.replace('"folds": 3', '"folds": 4') if damage is None else damage)
    with pytest.raises(InputError, match=r"json: the settings of these results are damaged; run the same"):
        made_with.read_made_with(file)
    assert written(tmp_path, 3) == file and made_with.read_made_with(file) == {"folds": 3}
    assert file.read_text() != text  # what was made with it is redone


def test_what_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "made_with").touch()
    with pytest.raises(InputError, match=r"the settings of these results cannot be written \("):
        written(tmp_path, 3)


def test_the_first_process_begins_the_run_and_its_jobs_belong_to_it(monkeypatch):
    monkeypatch.delenv("COLATENT_RUN", raising=False)
    run = made_with.current_run()
    assert run.is_mine and run.code["split"] == CODE["split"] and run.command.startswith("snakemake")
    monkeypatch.setenv("COLATENT_RUN", json.dumps([run.process + 1, *run[1:]]))
    assert not made_with.current_run().is_mine and made_with.current_run().code == run.code
