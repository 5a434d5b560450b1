"""Pages: whole, escaped, linked to what is there, and written from their stores alone."""

import io
import re
import xml.etree.ElementTree as ElementTree
from html import unescape
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fake_results import NASTY, text_of, write_fits, write_pages, write_scores, write_session, write_split
from PIL import Image
from support import make_config

from colatent.config import Config
from colatent.errors import InputError
from colatent.report import write_session_page, write_start_page

TOLD = "nothing but the trial’s condition"


def test_pages_load_nothing_and_link_only_to_what_is_there(demo: tuple[Config, Path], pages: dict) -> None:
    assert len(pages) == 1 + 1 + 3
    for place, html in pages.items():
        assert "default-src 'none'" in html and "@import" not in html and "url(http" not in html
        assert all(source.startswith("data:") for source in re.findall(r' src="([^"]*)"', html))
        ids = set(re.findall(r' id="([^"]+)"', html))
        links = [unescape(link) for link in re.findall(r' href="([^"]*)"', html) if link != "data:,"]
        assert {link[1:] for link in links if link.startswith("#")} <= ids
        here = (demo[1] / "report" / place).parent
        assert all((here / link).is_file() for link in links if not link.startswith("#"))
        assert len(html) < 8e6


def test_names_from_files_are_escaped(pages: dict[str, str]) -> None:
    for html in pages.values():
        assert NASTY not in html
        assert html.count("<script") == 1  # the page's own
    assert NASTY in unescape(pages["sessions/sim/index.html"])
    assert "5 &amp; more" in pages["sessions/sim/index.html"]


def test_each_figure_is_on_its_page_and_in_its_folder_and_not_blank(
    demo: tuple[Config, Path], pages: dict[str, str]
) -> None:
    found = {}
    for place, html in pages.items():
        folder = (demo[1] / "report" / place).with_name("figures")
        names = re.findall(r'<figure id="figure-([^"]+)"', html)
        assert sorted(f.name for f in folder.iterdir()) == sorted(
            f"{name}.{suffix}" for name in names for suffix in ("csv", "png", "svg")
        )
        found[place] = set(names)
        for name in names:
            image = np.asarray(Image.open(io.BytesIO((folder / f"{name}.png").read_bytes())).convert("L"))
            assert image.shape[1] >= 250
            assert 0.002 < (image < 250).mean() < 0.9
            # constrained layout: no label runs into the border
            assert (image[[0, -1]] > 250).all() and (image[:, [0, -1]] > 250).all()
            assert ElementTree.parse(folder / f"{name}.svg").getroot().tag.endswith("svg")
            assert len(pd.read_csv(folder / f"{name}.csv")) > 0
    assert {"split", "scores", "matrix", "recovery"} <= found["sessions/sim/index.html"]
    assert {
        "reconstruction_trials_spikes",
        "reconstruction_modality_emg",
        "reconstruction_decoding_emg",
    } <= found["sessions/sim/index.html"]
    vae = found["sessions/sim/models/vae/index.html"]
    assert {"training", "latents", "time_scales", "calibration"} <= vae
    assert found["index.html"] == {"overview"}


def test_each_title_says_what_was_seen(demo: tuple[Config, Path], pages: dict[str, str]) -> None:
    for html in pages.values():
        for title in re.findall(r'<svg role="img" aria-label="([^"]*)"', html):
            assert re.search(r"training|held-out|held out|test", title), title


def test_page_says_what_was_held_out_and_which_objective(page: str) -> None:
    seen = text_of(page)
    assert "SIMULATION" in seen
    assert "Objective: ELBO + 5 × cross-modal prediction of emg." in seen
    assert "clipped to the 0.5th and 99.5th percentile" in seen
    assert "emg predicted from spikes" in seen
    assert "held out: trials, and in them all of emg" in seen
    assert "ab" * 32 in seen and "12.3 MB" in seen
    assert "1 of 4 channels of spikes" in seen
    assert "6 fits 3.0 s (longest 4.0 s)" in seen
    assert ": 5.0" in seen
    assert "0.800 ± 0.058 R²" in seen  # recovery: 0.9, 0.8, 0.7 in three folds


def test_the_condition_mean_is_said_to_be_told_the_condition_of_trials_that_have_one(
    pages: dict[str, str],
) -> None:
    seen = text_of(pages["sessions/sim/index.html"])
    for sentence in (
        f"“given”); the condition mean saw {TOLD}.",
        f"and the condition mean, which saw {TOLD}.",
        f"Last row: the baseline that is given {TOLD}.",
        f"given the same modalities, or {TOLD} (the condition mean)",
        f"mean (baseline) {TOLD} ",
        "Unlike other models, except those that say so, it knows the condition of a test trial.",
    ):
        assert sentence in seen
    assert f"given {TOLD}" in text_of(pages["sessions/sim/models/mean/index.html"])
    for html in pages.values():
        assert not re.search(
            r"(saw|given) nothing(?! but the trial’s condition| of emg| of spikes| of it)", html
        )


def test_same_stores_same_bytes(pages: dict[str, str], page: str) -> None:
    assert page == pages["sessions/sim/index.html"]


def test_one_modality_without_truth_history_or_conditions(tmp_path: Path) -> None:
    config = make_config(tmp_path, ["spikes"], continuous=True)
    for name in ("worm_1", "worm_2"):
        write_session(config, name, False, np.random.default_rng(0))
        write_split(config, name)
        write_fits(config, name, history=False)
        write_scores(config, name, latents=True)
    report = tmp_path / "report"
    stale = report / "figures" / "stale.png"
    stale.parent.mkdir(parents=True)
    stale.write_bytes(b"old")
    write_pages(config, ["worm_1"], tmp_path / "report")
    write_start_page(
        config, ["worm_1", "worm_2"], tmp_path / "report/index.html", tmp_path / "report/figures"
    )
    session = (tmp_path / "report" / "sessions" / "worm_1" / "index.html").read_text()
    headings = re.findall(r"<h2[^>]*>([^<]+)</h2>", session)
    assert headings == [
        "Data",
        "Models and baselines",
        "Held-out reconstructions",
        "Methods",
        "Provenance",
        "Configuration",
    ]
    assert "SIMULATION" not in session
    assert "Objective: the ELBO." in session
    assert "1 to 1 windows per fold, beside the test block" in text_of(session)
    start = (tmp_path / "report" / "index.html").read_text()
    assert all(f'href="sessions/{name}/index.html"' in start for name in ("worm_1", "worm_2"))
    assert not stale.exists()
    assert not [p for p in (tmp_path / "report").rglob("*") if p.name.startswith(".")]


def test_damaged_store_leaves_the_old_page(tmp_path: Path) -> None:
    config = make_config(tmp_path, ["spikes"])
    write_session(config, "a", False, np.random.default_rng(0))
    (tmp_path / "index.html").write_text("old")
    with pytest.raises(InputError, match="split: not a complete store"):
        write_session_page(config, "a", tmp_path / "index.html", tmp_path / "figures")
    assert (tmp_path / "index.html").read_text() == "old"
    assert not (tmp_path / "figures").exists()


def test_how_much_is_predicted_forward_stands_beside_its_numbers(pages: dict[str, str]) -> None:
    for place in ("index.html", "sessions/sim/index.html", "sessions/sim/models/vae/index.html"):
        assert "the last 20 % of held-out trials (forward prediction)" in text_of(pages[place])
        assert "the last part" not in text_of(pages[place])
