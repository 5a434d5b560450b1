"""One fit a GPU: locks of devices that CUDA_VISIBLE_DEVICES names, whether or not there are any."""

import itertools
import multiprocessing
import os
import stat
import time
from pathlib import Path

import pytest
import torch

from colatent.errors import InputError
from colatent.jobs.device import JOB, SHARED, VISIBLE, fits_per_gpu, reserved_device

FORK = multiprocessing.get_context("fork")


@pytest.fixture(autouse=True)
def pretend_devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two devices, locks of this test's own, and a PyTorch that finds no GPU."""
    monkeypatch.setattr("colatent.jobs.device.LOCKS", tmp_path / "locks")
    monkeypatch.setenv(VISIBLE, "0,1")
    monkeypatch.delenv(JOB, raising=False)
    monkeypatch.delenv(SHARED, raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def hold(file: Path, seconds: float) -> None:
    """Hold a device; write which, from when and until when."""
    with reserved_device("auto", lambda _: None):
        device, began = os.environ[VISIBLE], time.monotonic()
        file.with_suffix(".held").touch()
        time.sleep(seconds)
        file.write_text(f"{device} {began} {time.monotonic()}")


def start(file: Path, seconds: float) -> multiprocessing.Process:
    process = FORK.Process(target=hold, args=(file, seconds))
    process.start()
    return process


def wait_for(file: Path) -> None:
    while not file.exists():
        time.sleep(0.01)


def test_fits_never_overlap_on_a_device(tmp_path: Path) -> None:
    files = [tmp_path / f"job{i}" for i in range(4)]
    for process in [start(file, 0.4) for file in files]:
        process.join()
    uses = [
        (device, float(began), float(ended))
        for device, began, ended in (f.read_text().split() for f in files)
    ]
    assert {device for device, *_ in uses} == {"0", "1"}
    for device in "01":
        intervals = sorted(use[1:] for use in uses if use[0] == device)
        assert all(a[1] <= b[0] for a, b in itertools.pairwise(intervals))


def test_fits_share_a_device_where_the_environment_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SHARED, "2")
    processes = [start(tmp_path / f"job{i}", 60) for i in range(4)]
    for i in range(4):
        wait_for(tmp_path / f"job{i}.held")  # two on each of the two devices
    fifth = start(tmp_path / "fifth", 0)
    time.sleep(0.3)
    assert not (tmp_path / "fifth.held").exists()
    processes[0].kill()
    fifth.join(5)
    assert (tmp_path / "fifth").exists()
    for process in processes:
        process.kill()


@pytest.mark.parametrize("said", ["0", "-1", "two", "", "65", "9" * 5000, "٣", "1\n"])
def test_a_number_of_fits_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    monkeypatch.setenv(SHARED, said)
    with pytest.raises(InputError) as error:
        fits_per_gpu()
    assert str(error.value) == (
        f"the environment variable {SHARED} is {said!r}; set it to a number from 1 to 64, or unset it"
    )


def test_a_killed_fit_frees_its_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VISIBLE, "GPU-3c/5")
    process = start(tmp_path / "killed", 60)
    wait_for(tmp_path / "killed.held")
    second = start(tmp_path / "second", 0)
    time.sleep(0.3)
    assert not (tmp_path / "second.held").exists()
    process.kill()
    second.join(5)
    assert (tmp_path / "second").read_text().startswith("GPU-3c/5 ")


def test_locks_do_not_follow_tmpdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VISIBLE, "0")
    holder = start(tmp_path / "holder", 60)
    wait_for(tmp_path / "holder.held")
    (tmp_path / "other").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "other"))
    monkeypatch.setattr("tempfile.tempdir", None)
    second = start(tmp_path / "second", 0)
    time.sleep(0.3)
    assert not (tmp_path / "second.held").exists()
    holder.kill()
    second.join(5)
    assert (tmp_path / "second").exists()


def test_locks_are_for_all_users_whatever_the_umask(tmp_path: Path) -> None:
    mask = os.umask(0o077)
    try:
        hold(tmp_path / "job", 0)
        assert os.umask(0o077) == 0o077
    finally:
        os.umask(mask)
    folder = tmp_path / "locks"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o777
    assert {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()} == {0o666}


def test_a_lock_that_cannot_be_opened_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(why: str) -> None:
        with pytest.raises(InputError) as error, reserved_device("auto", lambda _: None):
            pass
        assert f".lock: this lock of a GPU cannot be opened ({why}); remove it or ch" in str(error.value)

    monkeypatch.setenv(VISIBLE, "x" * 300)
    refused("File name too long")
    monkeypatch.setenv(VISIBLE, "0")
    lock = tmp_path / "locks/0.lock"
    lock.mkdir()
    refused("Is a directory")
    lock.rmdir()
    lock.symlink_to(tmp_path / "elsewhere")
    refused("Too many levels of symbolic links")
    assert not (tmp_path / "elsewhere").exists()
    monkeypatch.setattr("colatent.jobs.device.LOCKS", lock)
    lock.unlink()
    lock.touch()
    refused("File exists")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may open any file")
def test_a_lock_of_another_that_may_not_be_read(tmp_path: Path) -> None:
    (tmp_path / "locks").mkdir()
    (tmp_path / "locks/0.lock").touch(mode=0o000)
    with pytest.raises(InputError, match=r"\(Permission denied\)"), reserved_device("auto", lambda _: None):
        pass


def test_under_slurm_only_those_inside_a_job_wait_for_one_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VISIBLE, "0")
    monkeypatch.setenv(JOB, "7")
    outlived = start(tmp_path / "outlived", 60)
    wait_for(tmp_path / "outlived.held")
    beside_it = start(tmp_path / "beside_it", 0)
    monkeypatch.setenv(JOB, "8")  # device 0 of another job may be another, and is its own
    hold(tmp_path / "other_job", 0)
    assert not (tmp_path / "beside_it.held").exists()
    outlived.kill()
    beside_it.join(5)
    assert (tmp_path / "beside_it").exists()
    assert not list((tmp_path / "locks").iterdir())


def test_a_lock_in_use_does_not_look_old(tmp_path: Path) -> None:
    hold(tmp_path / "job", 0)
    (lock,) = (tmp_path / "locks").iterdir()
    os.utime(lock, (0, 0))
    hold(tmp_path / "job", 0)
    assert min(lock.stat().st_atime, lock.stat().st_mtime) > time.time() - 60


def test_who_waits_takes_the_lock_that_others_find(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VISIBLE, "0")
    holders = [start(tmp_path / "first", 60)]
    wait_for(tmp_path / "first.held")
    waiting = start(tmp_path / "waiting", 0)
    time.sleep(0.2)
    (tmp_path / "locks/0.lock").unlink()  # by what clears /tmp
    holders.append(start(tmp_path / "second", 60))
    wait_for(tmp_path / "second.held")
    holders[0].kill()
    time.sleep(0.7)
    assert not (tmp_path / "waiting.held").exists()
    holders[1].kill()
    waiting.join(5)
    assert (tmp_path / "waiting").exists()


def test_the_environment_is_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    with reserved_device("auto", lines.append) as device:
        assert device == "cpu" and os.environ[VISIBLE] == "0"
    assert os.environ[VISIBLE] == "0,1"
    assert lines == [
        "GPU 0 is reserved for this job",
        "device: auto, and there is no GPU here that PyTorch can use: running on the CPU",
        "GPU 0 is given back",
    ]


def test_a_gpu_that_is_asked_for_and_not_there_is_an_error() -> None:
    with (
        pytest.raises(InputError, match="device: cuda, and there is no GPU here"),
        reserved_device("cuda", print),
    ):
        pass


def test_the_cpu_needs_no_lock(tmp_path: Path) -> None:
    with reserved_device("cpu", lambda line: pytest.fail(line)) as device:
        assert device == "cpu" and not list(tmp_path.iterdir())
