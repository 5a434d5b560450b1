"""What is read and written is the same in every locale."""

import os
import subprocess
import sys
from pathlib import Path

import yaml

from colatent.results.status import failures, write_plan
from colatent.store.fingerprint import STAGES, code_fingerprint

ROOT = Path(__file__).parents[3]
PLAIN = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def in_plain_locale(script: str, *arguments: str) -> str:
    """Return what a Python script prints in a locale whose encoding is ASCII."""
    command = [sys.executable, "-c", script, *arguments]
    return subprocess.run(command, env=os.environ | PLAIN, capture_output=True, check=True).stdout.decode()


def test_code_has_the_same_fingerprints():
    script = (
        "from colatent.store.fingerprint import STAGES, code_fingerprint as f; print([f(s) for s in STAGES])"
    )
    assert in_plain_locale(script).strip() == str([code_fingerprint(stage) for stage in STAGES])


def test_a_config_is_read(tmp_path):
    demo = yaml.safe_load((ROOT / "config/config.yaml").read_text(encoding="utf-8"))
    (tmp_path / "config.yaml").write_text(
        yaml.safe_dump(demo | {"results": "données"}, allow_unicode=True), encoding="utf-8"
    )
    script = (
        "import sys; from colatent.config.file import load_config; print(ascii(load_config(sys.argv[1])))"
    )
    assert ascii("données") in in_plain_locale(script, str(tmp_path / "config.yaml"))


def test_a_job_says_why_it_failed(tmp_path):
    script = """if True:
        import sys
        from colatent.errors import InputError
        from colatent.jobs.progress import job
        try:
            with job(sys.argv[1], "scores"):
                raise InputError("the unit \\u00b5V is unknown")
        except SystemExit:
            pass
    """
    in_plain_locale(script, str(tmp_path / "logs/scores.log"))
    write_plan(tmp_path, [], [], [], [])  # without one nothing has run there
    (failure,) = failures(tmp_path)
    assert "the unit µV is unknown" in failure.line
