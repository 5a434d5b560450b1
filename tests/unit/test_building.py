"""What is made beside its place takes it whole, and what killed jobs left there goes."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from colatent.building import ABANDONED, building


@pytest.fixture
def dead() -> int:
    """The number of a process that runs no more."""
    return int(subprocess.check_output([sys.executable, "-c", "import os; print(os.getpid())"]))


def make(place: Path, content: str) -> None:
    with building(place) as made:
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
    with pytest.raises(stop), building(tmp_path / name) as made:
        made.mkdir()
        (made / "part").write_text("half")
        raise stop
    assert content_of(tmp_path / name) == "old"
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize("name", ["page.html", "figures", "rat.2"])
def test_what_a_killed_job_left_goes(tmp_path: Path, dead: int, name: str) -> None:
    place = tmp_path / name
    for old in ("", ".old"):
        folder = tmp_path / f".{place.stem}.building-{platform.node()}-{dead}{old}{place.suffix}"
        (folder / "half").mkdir(parents=True)
    make(place, "whole")
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize("name", ["page.html", "figures"])
def test_what_jobs_that_still_run_are_making_stays(tmp_path: Path, name: str) -> None:
    with building(tmp_path / name) as made:
        made.mkdir()
        other = (
            "import sys; from pathlib import Path; from colatent.building import building\n"
            "with building(Path(sys.argv[1])) as made: made.mkdir(); (made / 'part').write_text('theirs')"
        )
        subprocess.run([sys.executable, "-c", other, str(tmp_path / name)], check=True)
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


def test_what_another_machine_left_goes_once_it_is_old(tmp_path: Path, dead: int) -> None:
    left = tmp_path / f".figures.building-no-such-machine-{dead}"
    left.mkdir()
    make(tmp_path / "figures", "whole")
    assert left.is_dir()
    then = left.stat().st_mtime - 1.1 * ABANDONED
    os.utime(left, (then, then))
    make(tmp_path / "figures", "whole")
    assert os.listdir(tmp_path) == ["figures"]


def test_names_of_other_places_are_told_apart(tmp_path: Path, dead: int) -> None:
    others = [
        f".rat.building-{platform.node()}-{dead}.2",
        f".rat.1.building-{platform.node()}-{dead}",
        ".rat",
    ]
    for name in others:
        (tmp_path / name).write_text("")
    make(tmp_path / "rat", "whole")
    assert sorted(os.listdir(tmp_path)) == sorted([*others, "rat"])
