"""What is made beside its place takes it whole, and what killed jobs left there goes."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from colatent.store.atomic import atomically


def make(place: Path, content: str) -> None:
    with atomically(place) as made:
        if place.suffix:
            made.write_text(content)
        else:
            made.mkdir()
            (made / "part").write_text(content)


def content_of(place: Path) -> str:
    return (place if place.suffix else place / "part").read_text()


@pytest.mark.parametrize("name", ["page.html", "figures"])
def test_it_takes_the_place_of_what_was_there_and_leaves_nothing_else(tmp_path: Path, name: str) -> None:
    for content in ("old", "new"):
        make(tmp_path / name, content)
        assert content_of(tmp_path / name) == content
        assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize("name", ["page.html", "figures"])
@pytest.mark.parametrize("stop", [ValueError, KeyboardInterrupt])
def test_an_error_leaves_what_was_there(tmp_path: Path, name: str, stop: type[BaseException]) -> None:
    make(tmp_path / name, "old")
    with pytest.raises(stop), atomically(tmp_path / name) as made:
        made.mkdir()
        (made / "part").write_text("half")
        raise stop
    assert content_of(tmp_path / name) == "old"
    assert os.listdir(tmp_path) == [name]


def by_another_job(place: Path, act: str) -> int:
    """Make a folder for a place in another process, which does this in the midst; return its exit status."""
    code = (
        "import os, signal, sys; from pathlib import Path; from colatent.store.atomic import atomically\n"
        f"with atomically(Path(sys.argv[1])) as made: made.mkdir(); {act}"
    )
    return subprocess.run([sys.executable, "-c", code, str(place)], check=False).returncode


@pytest.mark.parametrize("name", ["page.html", "figures", "rat.2", "with space.csv"])
def test_what_a_killed_job_left_goes(tmp_path: Path, name: str) -> None:
    place = tmp_path / name
    assert by_another_job(place, "os.kill(os.getpid(), signal.SIGKILL)") == -signal.SIGKILL
    assert len(os.listdir(tmp_path)) == 1
    make(place, "whole")
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize("part", ["", "old", "lock"])
def test_any_part_of_what_a_killed_job_left_goes(tmp_path: Path, part: str) -> None:
    left = tmp_path / ".figures.making-0123abcd"
    left.mkdir()
    if part:
        (left / part).touch() if part == "lock" else (left / part).mkdir()
    make(tmp_path / "figures", "whole")
    assert os.listdir(tmp_path) == ["figures"]


@pytest.mark.parametrize("name", ["page.html", "figures"])
def test_what_jobs_that_still_run_are_making_stays(tmp_path: Path, name: str) -> None:
    with atomically(tmp_path / name) as made:
        made.mkdir()
        assert by_another_job(tmp_path / name, "(made / 'part').write_text('theirs')") == 0
        assert (tmp_path / name / "part").read_text() == "theirs"
        (made / "part").write_text("ours")
    assert (tmp_path / name / "part").read_text() == "ours"
    assert os.listdir(tmp_path) == [name]


def test_a_place_that_is_taken_meanwhile_is_taken_again(tmp_path: Path, monkeypatch) -> None:
    place, rename, n_meanwhile = tmp_path / "figures", Path.rename, iter(range(3))

    def with_another_job(self: Path, target: Path) -> Path:
        if target == place and next(n_meanwhile, None) is not None:
            place.mkdir()
            (place / "part").write_text("theirs")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", with_another_job)
    make(place, "ours")
    assert content_of(place) == "ours"
    assert os.listdir(tmp_path) == ["figures"]


def test_without_locks_nothing_of_others_is_cleared_away(tmp_path: Path, monkeypatch) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "no locks available")

    left = tmp_path / ".figures.making-0123abcd"
    left.mkdir()
    monkeypatch.setattr(fcntl, "flock", no_locks)
    make(tmp_path / "figures", "whole")
    assert sorted(os.listdir(tmp_path)) == [left.name, "figures"]


@pytest.mark.parametrize("stop", [OSError(errno.EIO, "broken"), KeyboardInterrupt()])
def test_an_error_while_a_folder_takes_its_place_leaves_the_old_one(
    tmp_path: Path, monkeypatch, stop: BaseException
) -> None:
    place, rename = tmp_path / "figures", Path.rename
    make(place, "old")

    def failing(self: Path, target: Path) -> Path:
        if target == place and self.name != "old":
            raise stop
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(type(stop)):
        make(place, "new")
    assert content_of(place) == "old"
    assert os.listdir(tmp_path) == ["figures"]


def test_what_a_job_killed_between_two_renames_had_put_aside_comes_back(tmp_path: Path) -> None:
    make(tmp_path / "figures", "old")
    (tmp_path / ".figures.making-0123abcd").mkdir()
    (tmp_path / "figures").rename(tmp_path / ".figures.making-0123abcd/old")
    with pytest.raises(ValueError), atomically(tmp_path / "figures"):
        raise ValueError
    assert content_of(tmp_path / "figures") == "old"
    assert os.listdir(tmp_path) == ["figures"]


def test_names_of_other_places_are_told_apart(tmp_path: Path) -> None:
    others = [".rat.making-0123abcd.2", ".rat.1.making-0123abcd", ".rat"]
    for name in others:
        (tmp_path / name).write_text("")
    make(tmp_path / "rat", "whole")
    assert sorted(os.listdir(tmp_path)) == sorted([*others, "rat"])


def test_what_threads_go_on_writing_after_an_error_goes_too(tmp_path: Path) -> None:
    """As those of zarr, whose other chunks are under way when one finds the disk full."""

    def write(made: Path) -> None:
        for i in range(40):
            (made / "c").mkdir(parents=True, exist_ok=True)
            with suppress(OSError):
                (made / f"c/{i}").touch()
            time.sleep(0.005)

    with pytest.raises(OSError), atomically(tmp_path / "session") as made:
        thread = threading.Thread(target=write, args=(made,))
        thread.start()
        raise OSError(errno.ENOSPC, "No space left on device")
    thread.join()
    assert os.listdir(tmp_path) == []
