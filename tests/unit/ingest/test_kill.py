"""A run killed at any moment leaves no store that a later stage would take for whole."""

import multiprocessing
import os
import pickle
import signal
import sys
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr
from pynwb import NWBHDF5IO, NWBFile, TimeSeries

from colatent.config import ContinuousAlignment, ContinuousModality, SpikesModality
from colatent.errors import InputError
from colatent.ingest.groups import session_groups
from colatent.ingest.session import ingest_session
from colatent.store.stores import check_store, group_names, read_group, write_store

N_DELAYS = 10
PER_KIND = 4  # moments of each kind of change of the disk at which a run is killed
ATTRS = {"session": "s", "bin_width": 0.1}
MODALITIES = {
    "spikes": SpikesModality(kind="spikes"),
    "emg": ContinuousModality(kind="continuous", source="acquisition/emg"),
}
# a server that has imported everything: its forks start in milliseconds, and have no threads
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    ["colatent.ingest.session", "colatent.store.session", "nwbinspector", "dask.threaded", "zarr", "pytest"]
)
CHANGES = {"open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.link"}


def groups_of(nwb: Path, bin_width: float) -> dict[str, xr.Dataset]:
    alignment = ContinuousAlignment(window=2.0, gap=0.5, bin_width=bin_width)
    return session_groups(ingest_session(nwb, alignment, MODALITIES, {}, progress=lambda _: None), [])


def ingest_and_write(nwb: Path, folder: Path, started: Path) -> None:
    started.touch()
    write_store(folder, groups_of(nwb, 0.1), ATTRS)


def write_until(pickled: bytes, folder: Path, last: int | None, log: Path) -> None:
    """Write a store; just before change number ``last`` of the disk, die. All changes go to ``log``."""
    changes: list[str] = []
    groups = pickle.loads(pickled)

    def hook(event: str, arguments: tuple) -> None:
        if event not in CHANGES or (event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR)):
            return
        changes.append(event)
        if last is not None and len(changes) > last:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    # two threads that find a folder missing both make it: the number of changes would vary between runs
    with zarr.config.set({"async.concurrency": 1, "threading.max_workers": 1}):
        write_store(folder, groups, ATTRS)
    written = list(changes)
    log.write_text("\n".join(written))


@pytest.fixture(scope="module")
def nwb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    file = NWBFile("made for a test", "id", datetime(2020, 1, 1, tzinfo=UTC), session_id="s")
    for _ in range(5):
        file.add_unit(spike_times=np.sort(rng.uniform(0, 30, 300)))
    file.add_acquisition(TimeSeries(name="emg", data=rng.normal(size=(3000, 3)), unit="V", rate=100.0))
    path = tmp_path_factory.mktemp("recording") / "s.nwb"
    with NWBHDF5IO(path, "w") as io:
        io.write(file)
    return path


@pytest.fixture(scope="module")
def expected(nwb: Path) -> dict[str, xr.Dataset]:
    return groups_of(nwb, 0.1)


@pytest.fixture(scope="module")
def older(nwb: Path) -> dict[str, xr.Dataset]:
    """What an earlier run, with other bins, had made."""
    return groups_of(nwb, 0.2)


def what_is_there(folder: Path, **known: dict[str, xr.Dataset]) -> str:
    """Return "absent", "refused", or which of the known contents the store holds, as it should."""
    if not folder.exists():
        return "absent"
    try:
        check_store(folder)
    except InputError as error:
        assert "\n" not in str(error) and str(folder) in str(error)
        return "refused"
    for name, groups in known.items():
        if read_group(folder, "modality/emg").sizes == groups["modality/emg"].sizes:
            assert group_names(folder) == sorted(groups)
            for group, dataset in groups.items():
                stored = read_group(folder, group)
                stored.attrs, dataset = {}, dataset.drop_attrs()
                xr.testing.assert_equal(stored, dataset)
            return name
    raise AssertionError(f"{folder} is accepted, but holds what no run has written")


def assert_the_next_run_cleans_up(folder: Path, expected: dict[str, xr.Dataset]) -> None:
    write_store(folder, expected, ATTRS)
    assert what_is_there(folder, whole=expected) == "whole"
    assert [p.name for p in folder.parent.iterdir()] == [folder.name]


def test_killed_after_any_time(nwb, expected, tmp_path):
    def start(number: int) -> tuple[multiprocessing.Process, Path]:
        folder, started = tmp_path / str(number) / "session", tmp_path / f"{number}.started"
        folder.parent.mkdir()
        process = FORKS.Process(target=ingest_and_write, args=(nwb, folder, started))
        process.start()
        while not started.exists():
            assert process.exitcode is None
            time.sleep(0.001)
        return process, folder

    durations = []
    for number in (-2, -1):  # the first warms up the disk's cache
        process, folder = start(number)
        began = time.monotonic()
        process.join()
        durations.append(time.monotonic() - began)
        assert process.exitcode == 0 and what_is_there(folder, whole=expected) == "whole"
    rng = np.random.default_rng(0)
    # one delay in each of equal parts of the run
    delays = durations[-1] * (np.arange(N_DELAYS) + rng.uniform(size=N_DELAYS)) / N_DELAYS
    outcomes = Counter()
    for number, delay in enumerate(delays):
        process, folder = start(number)
        time.sleep(delay)
        process.kill()
        process.join()
        outcomes[process.exitcode, what_is_there(folder, whole=expected)] += 1
        assert_the_next_run_cleans_up(folder, expected)
    killed = sum(n for (code, _), n in outcomes.items() if code == -signal.SIGKILL)
    assert killed >= N_DELAYS // 2, outcomes
    # a run that came to its end has its store
    assert set(outcomes) <= {(-signal.SIGKILL, state) for state in ("absent", "refused", "whole")} | {
        (0, "whole")
    }, outcomes


@pytest.mark.parametrize("over_an_older_store", [False, True])
def test_killed_before_any_change_of_the_disk(expected, older, tmp_path, over_an_older_store):
    def write(number: int, last: int | None) -> tuple[int | None, Path, Path]:
        folder, log = tmp_path / f"run{number}" / "session", tmp_path / f"{number}.log"
        if over_an_older_store:
            write_store(folder, older, ATTRS)
        else:
            folder.parent.mkdir()
        process = FORKS.Process(target=write_until, args=(pickle.dumps(expected), folder, last, log))
        process.start()
        process.join()
        return process.exitcode, folder, log

    code, folder, log = write(-1, None)
    assert code == 0 and what_is_there(folder, whole=expected) == "whole"
    changes = log.read_text().splitlines()
    moments: set[int] = set()
    for kind in set(changes):
        at = [i for i, change in enumerate(changes) if change == kind]
        moments |= {at[i] for i in np.linspace(0, len(at) - 1, PER_KIND).astype(int)}
    # and all around those that put the store in its place; what goes after them is the older store
    renames = [i for i, change in enumerate(changes) if change == "os.rename"]
    moments |= set(range(min(renames) - 4, max(renames) + 3))
    outcomes = Counter()
    for moment in sorted(moments):
        code, folder, _ = write(moment, moment)
        assert code == -signal.SIGKILL
        outcomes[what_is_there(folder, whole=expected, older=older)] += 1
        assert_the_next_run_cleans_up(folder, expected)
    # most of a run is building beside the store's place
    assert outcomes["older" if over_an_older_store else "absent"] > len(moments) // 2, outcomes
