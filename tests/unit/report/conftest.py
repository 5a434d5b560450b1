"""Fake results and their pages, written once for all tests."""

from pathlib import Path

import numpy as np
import pytest
from fake_results import write_fits, write_pages, write_scores, write_session, write_split
from support import made_once, make_config

from colatent.config import Config
from colatent.report import write_session_page


def write_demo(folder: Path) -> None:
    config = make_config(folder, ["spikes", "emg"])
    write_session(config, "sim", True, np.random.default_rng(0))
    write_split(config, "sim")
    write_fits(config, "sim", history=True)
    write_scores(config, "sim", latents=True)


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, Path]:
    """A simulated session of two modalities, with everything there can be."""
    folder = made_once(tmp_path_factory, "report", write_demo)
    return make_config(folder, ["spikes", "emg"]), folder


@pytest.fixture(scope="session")
def pages(demo: tuple[Config, Path]) -> dict[str, str]:
    """Place of each page below the report's folder -> its HTML."""
    folder = demo[1] / "report"
    write_pages(demo[0], ["sim"], folder)
    return {p.relative_to(folder).as_posix(): p.read_text() for p in folder.rglob("*.html")}


@pytest.fixture(scope="session")
def page(demo: tuple[Config, Path], tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page on which the models of the session are compared, without the others, which take longer."""

    def write(folder: Path) -> None:
        write_session_page(demo[0], "sim", folder / "index.html", folder / "figures")

    return (made_once(tmp_path_factory, "page", write) / "index.html").read_text()
