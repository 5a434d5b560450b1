"""Tables of scores, computed a second way from the scores they are made of."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fake_results import CHANNELS, FOLDS, text_of

from colatent.config import Config
from colatent.report.figures.calibration import calibration_figure
from colatent.report.model_results import read_model
from colatent.report.pages.pairs import Pair, p_value_text, pairs
from colatent.report.score_tables import score_tables, summarise
from colatent.report.session_results import read_session
from colatent.scoring.tables import read_scores


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
    assert pair.folds == FOLDS and f"Every pair of models, by fold ({len(rows)})" in seen


def test_what_is_decoded_from_latents_stands_beside_the_lag_regressions_that_saw_the_same(
    demo: tuple[Config, Path], page: str
) -> None:
    results = read_session(demo[0], "sim")
    (block,) = (b for b in score_tables(results) if b.heldout == "decoding")
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


def test_the_floor_of_p_is_that_of_the_folds_in_common():
    rows = [Pair("emg", "a", "b", "+0.1", folds, "–") for folds in (0, 5, 4)]
    assert "with 5 folds it is never below 0.062; with fewer folds" in p_value_text(rows)
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
    table = next(b for b in score_tables(read_session(demo[0], "sim")) if b.predicted == "spikes")
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
    scores = pd.concat([scores, psth])
    results = replace(results, scores=scores)
    rows = {
        (b.heldout, b.predicted): next(r for r in b.rows if r.model == "vae") for b in score_tables(results)
    }
    emg, spikes = rows["trials", "emg"], rows["trials", "spikes"]
    assert (emg.channels_without_score, emg.n_channels, emg.more_without) == (1, 3, {})
    assert (spikes.channels_without_score, spikes.n_channels, spikes.more_without) == (1, 4, {"psth_r2": 2})
    model = read_model(demo[0], "sim", "vae")
    figure = calibration_figure(replace(model, session=replace(model.session, scores=scores)))
    assert figure is not None and "in at least one fold): 1 of 3 channels of emg." in figure.caption


def test_names_stay_text(demo: tuple[Config, Path]) -> None:
    scores = read_scores(demo[1] / "scores.csv")
    assert set(scores.channel) == {*CHANNELS["spikes"], *CHANNELS["emg"], "pooled"}


def test_folds_without_a_value_are_left_out_of_the_mean() -> None:
    summary = summarise(np.array([1.0, np.nan, 2.0]))
    assert summary.mean == 1.5
    assert summary.sem == pytest.approx(np.std([1, 2], ddof=1) / np.sqrt(2))
    assert np.isnan(summarise(np.array([1.0, np.nan])).sem)


def test_a_fold_is_apart_where_the_others_would_not_lead_one_to_expect_it():
    def apart(*values: float) -> int | None:
        return summarise(np.array(values)).apart

    assert apart(0.13, 0.14, 0.49, 0.13, 0.12) == 2
    assert apart(0.13, 0.14, 0.135, 0.13, 0.02, 0.125) == 4
    assert apart(0.13, 0.18, 0.15, 0.22, 0.12) is None
    assert apart(0.1, 0.1, 0.9) is None  # too few to tell
    assert apart(0.1, np.nan, 0.1, 0.1, 0.9) is None
    assert apart(0.1, 0.1, 0.1, 0.1) is None and apart(0.1, 0.1, 0.1, 0.1, 0.2) == 4
    rng = np.random.default_rng(0)
    wrong = np.mean([apart(*rng.normal(size=5)) is not None for _ in range(4000)])
    assert 0.003 < wrong < 0.017  # 1 % by construction
