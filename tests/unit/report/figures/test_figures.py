"""Figures: the numbers behind them, and what is chosen to be shown."""

from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from fake_results import DIMS, latents_of
from matplotlib.lines import Line2D

from colatent.config import Config
from colatent.report import read_model
from colatent.report.figures.delays import delays_figure
from colatent.report.figures.latents import shown_conditions
from colatent.report.figures.pit import pit_figure
from colatent.report.figures.reconstruction import choose_channels
from colatent.report.figures.recovery import _aligned
from colatent.report.figures.shared_signal import shared_signal_figure
from colatent.report.figures.style import spread
from colatent.report.figures.time_scales import time_scales_figure
from colatent.report.session_results import read_session


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


def test_delays_are_said_with_their_sign(demo: tuple[Config, Path]) -> None:
    drawn = delays_figure(read_model(demo[0], "sim", "vae"))
    assert drawn is not None and set(drawn.data["modality"]) == {"emg"}
    first = drawn.data[(drawn.data["fold"] == 0) & (drawn.data["seed"] == 0)]
    np.testing.assert_allclose(first["delay_ms"], [118, -20])
    names = read_model(demo[0], "sim", "vae").latent_names
    far = "in 4 of 6 fits at the longest delay allowed: it may be longer"
    assert f"{names[0]}: emg follows by 119 ms (118 to 120), {far}" in drawn.caption
    assert f"{names[1]}: emg leads by 20 ms" in drawn.caption
    np.testing.assert_allclose(first[["low_ms", "high_ms"]], [[108, 138], [-30, np.inf]])
    assert "Bar: 95% profile-likelihood interval of fold 0, seed 0" in drawn.caption


def test_a_group_without_evidence_of_a_shared_signal_is_named(demo: tuple[Config, Path]) -> None:
    drawn = shared_signal_figure(read_model(demo[0], "sim", "vae"))
    assert drawn is not None
    emg = drawn.data[drawn.data["modality"] == "emg"]
    np.testing.assert_allclose(emg.groupby("fold")["r2"].first(), [0.4, 0.5, 0.6])
    np.testing.assert_allclose(emg["permuted"], 0.138)  # 95th percentile
    assert drawn.caption.endswith("permuted trials): spikes+emg → spikes.")


def test_channels_are_best_median_worst_of_those_scored() -> None:
    observed = np.ones((2, 3, 6), dtype=bool)
    observed[..., 5] = False
    count = np.full((2, 3, 6), 4.0)
    count[..., 4] = 3.0  # 18 spikes
    names = {"channel": list("abcdef")}
    data = xr.Dataset({"observed": (DIMS, observed), "observation": (DIMS, count)}, coords=names)
    values = {"a": 0.1, "b": 0.9, "c": np.nan, "d": 0.5, "e": -2.0, "f": 5.0}

    def chosen(data: xr.Dataset, counts: bool) -> list[tuple[str, str]]:
        return [(c.name, c.rank) for c in choose_channels(values, data, counts)]

    assert chosen(data, counts=False) == [("b", "best"), ("a", "median"), ("e", "worst")]
    assert chosen(data, counts=True) == [("b", "best"), ("d", "median"), ("a", "worst")]
    # where all are nearly silent, they are all there is
    assert chosen(data.assign(observation=0 * data["observation"]), True)[-1] == ("e", "worst")


def test_trial_ends_where_nothing_more_was_observed(demo: tuple[Config, Path]) -> None:
    reached = read_session(demo[0], "sim").reached()
    assert reached[0].sum() == 20 and reached[1:].all()


def test_conditions_in_the_order_of_their_numbers() -> None:
    labels = np.repeat([str(i) for i in range(1, 13)], [3] * 8 + [1] * 3 + [9])
    assert list(shown_conditions(labels)) == ["1", "2", "3", "4", "5", "6", "7", "8", "12"]
    assert spread(2, 3) == [0, 1] and spread(9, 3) == [0, 4, 8] and spread(0, 3) == []


def test_pit_of_all_fits_is_their_mean_weighted_by_observations(demo: tuple[Config, Path]) -> None:
    results = read_model(demo[0], "sim", "vae")
    drawn = pit_figure(results)
    assert drawn is not None
    figure = pd.read_csv(StringIO(drawn.csv))
    names = "heldout", "given", "predicted"
    pooled: dict[tuple[str, ...], list] = {}
    for data in results.calibration.values():
        for i, n in enumerate(data["n"].values):
            key = tuple(str(data[name].values[i]) for name in names)
            pooled.setdefault(key, []).append((data["share"].values[i], n))
    groups = figure.groupby(list(names), sort=False)
    assert {("trials", "spikes+emg", "spikes"), ("modality", "emg", "spikes")} <= set(groups.groups)
    assert ("trials", "emg", "emg") not in groups.groups  # more was given in another row
    for key, rows in groups:
        share, n = zip(*pooled[key], strict=True)
        np.testing.assert_allclose(
            rows["density"], 20 * np.average(share, axis=0, weights=n), rtol=1e-5, err_msg=str(key)
        )
        assert (rows["n"] == sum(n)).all()
        assert rows["density"].mean() == pytest.approx(1)
