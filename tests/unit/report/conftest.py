"""A report of fake results, written once for all tests of it."""

from pathlib import Path

import numpy as np
import pytest
from fake_results import write_fits, write_pages, write_scores, write_session, write_split
from support import make_config

from colatent.config import Config


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, Path]:
    """A simulated session of two modalities, with everything there can be, and its report."""
    folder = tmp_path_factory.mktemp("report")
    config = make_config(folder, ["spikes", "emg"])
    write_session(config, "sim", True, np.random.default_rng(0))
    write_split(config, "sim")
    write_fits(config, "sim", history=True)
    write_scores(config, "sim", latents=True)
    write_pages(config, ["sim"], folder / "report")
    return config, folder


@pytest.fixture(scope="session")
def pages(demo: tuple[Config, Path]) -> dict[str, str]:
    """Place of each page below the report's folder -> its HTML."""
    folder = demo[1] / "report"
    return {p.relative_to(folder).as_posix(): p.read_text() for p in folder.rglob("*.html")}


@pytest.fixture(scope="session")
def page(pages: dict[str, str]) -> str:
    """The page on which the models of the session are compared."""
    return pages["sessions/sim/index.html"]
