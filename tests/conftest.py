"""Fixtures shared by all tests."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # two workers with threads of their own get in each other's way

import pytest

from colatent.data.trials import Trials

ROOT = Path(__file__).parents[1]

signal.signal(signal.SIGINT, signal.default_int_handler)  # else ignored by tests run in the background


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of the real recordings; tests that need it skip, saying so, where it is absent."""
    folder = Path(os.environ.get("COLATENT_REAL_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real recordings: {folder} does not exist (set COLATENT_REAL_DATA)")
    return folder.resolve()


@pytest.fixture(scope="module")
def few_figures(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The workflow runs a copy of the package whose pages have a figure each."""
    from support import ONE_FIGURE

    yield from _run_copy(tmp_path_factory.mktemp("package"), ONE_FIGURE)


@pytest.fixture(scope="module")
def one_question(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The workflow runs a copy of the package that draws all figures, but of one held-out question only."""
    from support import ONE_QUESTION

    yield from _run_copy(tmp_path_factory.mktemp("package"), ONE_QUESTION)


def _run_copy(folder: Path, figures: str) -> Iterator[None]:
    from support import copy_package

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(copy_package(folder, figures)))
        yield


@pytest.fixture(scope="session")
def simulated_nwb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small simulated reach recording."""
    from support import made_once

    from colatent.simulate import simulate_reach, write_reach_nwb

    def write(folder: Path) -> None:
        write_reach_nwb(simulate_reach(seed=3, n_trials=48, n_units=32), folder / "reach.simulated.nwb")

    return made_once(tmp_path_factory, "simulated", write) / "reach.simulated.nwb"


@pytest.fixture(scope="session")
def simulated_trials(simulated_nwb: Path) -> Trials:
    """Spikes and EMG of the small simulated recording on 20 ms bins."""
    from colatent.config.file import load_config
    from colatent.ingest.session import ingest_session

    config = load_config(ROOT / "config" / "config.yaml")
    chosen = {name: config.modalities[name] for name in ("spikes", "emg")}
    return ingest_session(simulated_nwb, config.alignment, chosen, {}, progress=lambda _: None).trials
