"""One workflow at a time on a tree of results."""

import subprocess
import sys

import pytest

from colatent.errors import InputError
from colatent.jobs.locks import LOCK, hold_results

HOLD = (
    "import sys; from colatent.jobs.locks import hold_results; "
    "hold_results(sys.argv[1]); print('held', flush=True)"
)


def test_a_second_is_refused_until_the_first_is_gone_however_it_ends(tmp_path):
    results = tmp_path / "some/out"
    first = subprocess.Popen(
        [sys.executable, "-c", f"{HOLD}; input()", str(results)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert first.stdout is not None and first.stdout.readline() == "held\n"
    (tmp_path / "link").symlink_to(results)
    with pytest.raises(InputError, match=rf"another workflow is at work .*\(process {first.pid} on "):
        hold_results(tmp_path / "link")
    first.kill()
    first.communicate()
    hold_results(results)
    with pytest.raises(InputError, match="another workflow"):
        hold_results(results)


def test_a_lock_that_cannot_be_opened_is_one_sentence(tmp_path):
    (tmp_path / "out" / LOCK).mkdir(parents=True)
    with pytest.raises(InputError, match=r"out/\.lock: the lock of these results cannot be opened \(Is a"):
        hold_results(tmp_path / "out")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"file/\.lock: .* cannot be opened \("):
        hold_results(tmp_path / "file")


def test_jobs_do_not_keep_it(tmp_path):
    """A job that a killed Snakemake leaves behind does not lock the results."""
    start = "import subprocess; subprocess.Popen(['sleep', '30'], stdout=subprocess.DEVNULL)"
    subprocess.run([sys.executable, "-c", f"{HOLD}; {start}", str(tmp_path)], check=True)
    hold_results(tmp_path)
    assert (tmp_path / LOCK).is_file()
