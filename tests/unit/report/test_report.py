"""The report: what stands on its pages, computed a second way from the stores they were made of."""

import io
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from html import unescape
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from fake_results import (
    CHANNELS,
    DIMS,
    FOLDS,
    NASTY,
    latents_of,
    write_fits,
    write_scores,
    write_session,
    write_split,
)
from matplotlib.lines import Line2D
from PIL import Image
from support import make_config

from colatent.config import Config
from colatent.errors import InputError
from colatent.report import (
    read_model,
    write_model_page,
    write_session_page,
    write_start_page,
)
from colatent.report.figures.calibration import calibration_figure
from colatent.report.figures.latents import shown_conditions
from colatent.report.figures.reconstruction import choose_channels
from colatent.report.figures.recovery import _aligned
from colatent.report.figures.style import spread
from colatent.report.figures.time_scales import time_scales_figure
from colatent.report.pages.pairs import (
    Pair,
    p_value_text,
    pairs,
)
from colatent.report.score_tables import blocks, summarise
from colatent.report.session_results import read_session
from colatent.report.text.methods import model_texts, statistics_text
from colatent.scoring.tables import read_scores


def write_pages(config: Config, sessions: list[str], folder: Path) -> None:
    """Write all pages where the workflow does, below ``folder``."""
    for name in sessions:
        place = folder / "sessions" / name
        for model in config.models:
            own = place / "models" / model
            write_model_page(config, name, model, own / "index.html", own / "figures")
        write_session_page(config, name, place / "index.html", place / "figures")
    write_start_page(config, sessions, folder / "index.html", folder / "figures")


@pytest.fixture(scope="module")
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


@pytest.fixture(scope="module")
def pages(demo: tuple[Config, Path]) -> dict[str, str]:
    """Place of each page below the report's folder -> its HTML."""
    folder = demo[1] / "report"
    return {p.relative_to(folder).as_posix(): p.read_text() for p in folder.rglob("*.html")}


@pytest.fixture(scope="module")
def page(pages: dict[str, str]) -> str:
    """The page on which the models of the session are compared."""
    return pages["sessions/sim/index.html"]


def text_of(html: str) -> str:
    """Return what a reader sees, blanks folded."""
    body = re.sub(r"<(style|script)>.*?</\1>", "", html, flags=re.S)
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", body)).split())


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


def test_table_agrees_with_the_scores(demo: tuple[Config, Path], page: str) -> None:
    scores = read_scores(demo[1] / "scores.csv")
    wanted = scores[(scores.channel == "pooled") & (scores.metric == "r2") & (scores.predicted == "emg")]
    cross = wanted[(wanted.heldout == "modality") & (wanted.given == "spikes")]
    fold = cross.pivot_table(index="fold", columns="model", values="value", aggfunc="mean")
    mean = wanted[wanted.model == "mean"].groupby("fold").value.mean()
    rival = fold["ridge"] if fold["ridge"].mean() > mean.mean() else mean
    seen = text_of(page)
    for values in (fold["vae"], fold["ridge"], mean):
        sem = np.std(values, ddof=1) / np.sqrt(FOLDS)
        assert f"{values.mean():.3f} ± {sem:.3f}" in seen
    difference = fold["vae"] - rival
    sem = np.std(difference, ddof=1) / np.sqrt(FOLDS)
    assert f"{difference.mean():+.3f} ± {sem:.3f}".replace("-", "−") in seen
    rows = pairs(read_session(demo[0], "sim"))["modality", "emg"]
    (pair,) = (r for r in rows if r.given == "spikes" and {r.model, r.other} == {"vae", "ridge"})
    sign, between = 1 if pair.model == "vae" else -1, fold["vae"] - fold["ridge"]
    sem = np.std(between, ddof=1) / np.sqrt(FOLDS)
    assert pair.difference == f"{sign * between.mean():+.3f} ± {sem:.3f}".replace("-", "−")
    assert pair.folds == FOLDS and f"Every two models, paired by fold ({len(rows)})" in seen


def test_what_is_decoded_from_latents_stands_beside_the_lag_regressions_that_saw_the_same(
    demo: tuple[Config, Path], page: str
) -> None:
    results = read_session(demo[0], "sim")
    (block,) = (b for b in blocks(results) if b.heldout == "decoding")
    assert [(r.model, r.given) for r in block.rows] == [
        ("vae", "spikes"), ("mean", "none"), ("ridge", "spikes"),
    ]  # fmt: skip
    scores = read_scores(demo[1] / "scores.csv")
    own = scores[(scores.channel == "pooled") & (scores.metric == "r2") & (scores.predicted == "emg")]
    asked = {"vae": ("decoding", "spikes"), "mean": ("trials", "none"), "ridge": ("modality", "spikes")}
    fold = {
        model: own[(own.model == model) & (own.heldout == heldout) & (own.given == given)]
        .groupby("fold")["value"]
        .mean()
        for model, (heldout, given) in asked.items()
    }
    for row in block.rows:
        np.testing.assert_allclose(row.metrics["r2"].fold, fold[row.model])
    best = max(("mean", "ridge"), key=lambda m: fold[m].mean())
    vae = block.rows[0]
    assert vae.compared_with == best and vae.difference is not None
    np.testing.assert_allclose(vae.difference.fold, fold["vae"] - fold[best])
    rows = pairs(results)["decoding", "emg"]
    assert {frozenset((r.model, r.other)) for r in rows} == {
        frozenset(("vae", "ridge")),
        frozenset(("vae", "mean")),
    }
    (pair,) = (r for r in rows if "ridge" in (r.model, r.other))
    between = (fold["vae"] - fold["ridge"]).mean() * (1 if pair.model == "vae" else -1)
    assert pair.difference.startswith(f"{between:+.3f}".replace("-", "−"))
    seen = text_of(page)
    assert "emg: decoded from latents, held-out modality in held-out trials" in seen
    assert "held out are the test trials, and in them all of emg" in seen
    assert "Decoded from latents (emg): ridge regression" in seen


CONDITION = "nothing but the trial’s condition"


def test_the_condition_mean_is_said_to_be_told_the_condition_of_trials_that_have_one(
    pages: dict[str, str],
) -> None:
    seen = text_of(pages["sessions/sim/index.html"])
    for sentence in (
        f"“given”); the condition mean saw {CONDITION}.",
        f"the condition mean, which saw {CONDITION}, stand beside it",
        f"Last row: the baseline that is given {CONDITION}.",
        f"given the same modalities, or {CONDITION} (the condition mean)",
        f"mean (baseline) {CONDITION} ",
        "It is told the condition of a test trial, which no other model is.",
    ):
        assert sentence in seen
    assert f"given {CONDITION}" in text_of(pages["sessions/sim/models/mean/index.html"])
    for html in pages.values():
        assert not re.search(
            r"(saw|given) nothing(?! but the trial’s condition| of emg| of spikes| of it)", html
        )


def test_without_conditions_the_condition_mean_was_given_nothing(demo: tuple[Config, Path]) -> None:
    with_conditions = read_session(demo[0], "sim")
    results = replace(with_conditions, trials=with_conditions.trials.drop_vars("condition"))
    assert CONDITION in statistics_text(with_conditions)
    assert "or nothing (the condition mean)" in statistics_text(results)
    told = [*dict(model_texts(results)).values(), *(b.statement for b in blocks(results))]
    assert not [text for text in told if "condition of" in text or "’s condition" in text]
    assert any("the condition mean saw nothing." in text for text in told)


def test_the_floor_of_p_is_that_of_the_folds_in_common():
    rows = [Pair("emg", "a", "b", "+0.1", folds, "–") for folds in (0, 5, 4)]
    assert "with 5 folds it is never below 0.062; with fewer it" in p_value_text(rows)
    assert "with 4 folds it is never below 0.12. Folds" in p_value_text(rows[2:])
    for none in (rows[:1], [rows[0]._replace(folds=1)]):
        assert "there is no p" in p_value_text(none)
        assert "below" not in p_value_text(none)


def test_infinite_differences_are_shown_as_such(demo: tuple[Config, Path]) -> None:
    results = read_session(demo[0], "sim")
    scores = results.scores.copy()
    scores.loc[(scores["model"] == "mean") & (scores["fold"] == 0), "value"] = -np.inf
    rows = pairs(replace(results, scores=scores))["trials", "emg"]
    assert {r.difference for r in rows if "mean" in (r.model, r.other)} <= {"+∞", "−∞"}


def test_silent_units_are_counted(demo: tuple[Config, Path]) -> None:
    table = next(b for b in blocks(read_session(demo[0], "sim")) if b.predicted == "spikes")
    row = next(r for r in table.rows if r.model == "vae")
    assert (row.channels_without_score, row.n_channels) == (1, 4)
    assert row.n == 100 + 101 + 102  # folds add up, seeds do not


def test_channels_without_a_score_are_counted_for_every_metric(demo: tuple[Config, Path]) -> None:
    results = read_session(demo[0], "sim")
    scores = results.scores.copy()
    of_emg = (scores["predicted"] == "emg") & (scores["channel"] == "01") & (scores["fold"] == 2)
    scores.loc[of_emg, "value"] = np.nan
    psth = scores[scores["metric"] == "bits_per_spike"].assign(metric="psth_r2")
    psth.loc[psth["channel"] == "u3", "value"] = np.nan  # a unit that was silent in training
    results = replace(results, scores=pd.concat([scores, psth]))
    rows = {(b.heldout, b.predicted): next(r for r in b.rows if r.model == "vae") for b in blocks(results)}
    emg, spikes = rows["trials", "emg"], rows["trials", "spikes"]
    assert (emg.channels_without_score, emg.n_channels, emg.more_without) == (1, 3, {})
    assert (spikes.channels_without_score, spikes.n_channels, spikes.more_without) == (1, 4, {"psth_r2": 2})
    figure = calibration_figure(results, "vae")
    assert figure is not None and "in at least one fold): 1 of 3 channels of emg." in figure.caption


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


def test_same_stores_same_bytes(demo: tuple[Config, Path], page: str, tmp_path: Path) -> None:
    write_session_page(demo[0], "sim", tmp_path / "index.html", tmp_path / "figures")
    assert (tmp_path / "index.html").read_text() == page


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
    assert "1 to 1 windows a fold, beside the test block" in text_of(session)
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


def test_alignment_is_fitted_on_training_trials(demo: tuple[Config, Path]) -> None:
    results = read_session(demo[0], "sim")
    aligned = _aligned(results)
    assert aligned is not None
    z = latents_of()["mean"].values
    np.testing.assert_allclose(aligned[1][..., 0], 2 * z[..., 0] - z[..., 1] + 3.0, atol=1e-9)


def test_intervals_of_time_scales_are_drawn_or_said_to_be_missing(demo: tuple[Config, Path]) -> None:
    results = read_model(demo[0], "sim", "vae")
    drawn = time_scales_figure(results)
    assert drawn is not None
    row = drawn.data.groupby("latent").first().iloc[0]
    columns = ["time_scale_low_s", "time_scale_s", "time_scale_high_s", "time_scale_maximum_s"]
    np.testing.assert_allclose(row[columns].astype(float), [0.05 / 1.3, 0.05, 0.07, 0.0525])
    bars = [line for line in drawn.figure.findobj(Line2D) if line.get_zorder() == 1 and line.get_lw() == 1.5]
    right = bars[0].axes.get_xlim()[1]
    ends = [[0.05 / 1.3, 0.07], [0.2 / 1.3, right]]
    np.testing.assert_allclose([b.get_xdata() for b in bars], ends)
    assert "95% profile-likelihood interval" in drawn.caption and "Arrowhead" in drawn.caption
    assert "log marginal likelihood of its training trials" in drawn.caption

    latent = results.summaries[results.shown]["latent"]
    for part in ("low", "high", "maximum"):
        latent[f"time_scale_{part}"][:] = np.nan
    without = time_scales_figure(results)
    assert without is not None and "No interval is drawn" in without.caption


def test_names_stay_text(demo: tuple[Config, Path]) -> None:
    scores = read_scores(demo[1] / "scores.csv")
    assert set(scores.channel) == {*CHANNELS["spikes"], *CHANNELS["emg"], "pooled"}


def test_folds_without_a_value_are_left_out_of_the_mean() -> None:
    summary = summarise(np.array([1.0, np.nan, 2.0]))
    assert summary.mean == 1.5
    assert summary.sem == pytest.approx(np.std([1, 2], ddof=1) / np.sqrt(2))
    assert np.isnan(summarise(np.array([1.0, np.nan])).sem)


def test_channels_are_best_median_worst_of_those_scored() -> None:
    observed = np.ones((2, 3, 6), dtype=bool)
    observed[..., 5] = False
    data = xr.Dataset({"observed": (DIMS, observed)}, coords={"channel": list("abcdef")})
    values = {"a": 0.1, "b": 0.9, "c": np.nan, "d": 0.5, "e": -2.0, "f": 5.0}
    chosen = choose_channels(values, data)
    assert [(c.name, c.rank) for c in chosen] == [("b", "best"), ("a", "median"), ("e", "worst")]


def test_trial_ends_where_nothing_more_was_observed(demo: tuple[Config, Path]) -> None:
    reached = read_session(demo[0], "sim").reached()
    assert reached[0].sum() == 20 and reached[1:].all()


def test_conditions_in_the_order_of_their_numbers() -> None:
    labels = np.repeat([str(i) for i in range(1, 13)], [3] * 8 + [1] * 3 + [9])
    assert list(shown_conditions(labels)) == ["1", "2", "3", "4", "5", "6", "7", "8", "12"]
    assert spread(2, 3) == [0, 1] and spread(9, 3) == [0, 4, 8] and spread(0, 3) == []


def test_pit_of_all_fits_is_their_mean_weighted_by_observations(demo: tuple[Config, Path]) -> None:
    figure = pd.read_csv(demo[1] / "report/sessions/sim/models/vae/figures/pit.csv")
    names = "heldout", "given", "predicted"
    pooled: dict[tuple[str, ...], list] = {}
    for data in read_model(demo[0], "sim", "vae").calibration.values():
        for i, n in enumerate(data["n"].values):
            key = tuple(str(data[name].values[i]) for name in names)
            pooled.setdefault(key, []).append((data["share"].values[i], n))
    drawn = figure.groupby(list(names), sort=False)
    assert {("trials", "spikes+emg", "spikes"), ("modality", "emg", "spikes")} <= set(drawn.groups)
    assert ("trials", "emg", "emg") not in drawn.groups  # more was given in another row
    for key, rows in drawn:
        share, n = zip(*pooled[key], strict=True)
        np.testing.assert_allclose(
            rows["density"], 20 * np.average(share, axis=0, weights=n), rtol=1e-5, err_msg=str(key)
        )
        assert (rows["n"] == sum(n)).all()
        assert rows["density"].mean() == pytest.approx(1)


def test_how_much_is_predicted_forward_stands_beside_its_numbers(pages: dict[str, str]) -> None:
    for place in ("index.html", "sessions/sim/index.html", "sessions/sim/models/vae/index.html"):
        assert "the last 20 % of held-out trials (forward prediction)" in text_of(pages[place])
        assert "the last part" not in text_of(pages[place])
