"""Channels without a score are in no pooled value, histogram or count: by hand, and by leaving them out."""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.metrics import r2_score
from support import fit_to, settings_of

from colatent.data.predictive import Predictive
from colatent.data.scaling import Standardizer, standard_deviation
from colatent.data.subsets import with_channels
from colatent.data.tasks import Task, Withheld, tasks_of_latent_model
from colatent.data.trials import Trials
from colatent.models.fitting import FittedModel
from colatent.models.readout.channel import fit_value
from colatent.scoring.evaluate import evaluate

N_TRIALS, N_BINS = 30, 12
TEST = np.arange(N_TRIALS) >= 20
CONTINUOUS = ("constant", "flat in training", "not seen in training", "flat in test", "ordinary", "large")
GOOD = np.array([False, False, False, False, True, True])
SPIKES = ("silent in training", "silent in test", "silent", "active", "busy")
CONDITION = np.array(list("abc") * 10)
MEANS = dict(zip(CONTINUOUS, (0.1, 7.0, 0.0, -2.0, 0.8, 20.0), strict=True))
DEVIATIONS = dict(zip(CONTINUOUS, (1e-9, 1e-9, 1.0, 1e-9, 1.2, 400.0), strict=True))
RATE = 0.4
ASKED = "channel == 'pooled' and predicted == @modality and heldout == @heldout"


def recording() -> Trials:
    """Continuous channels and units of every kind, some bins of each missing."""
    rng = np.random.default_rng(0)
    emg = rng.normal((0, 0, 0, 0, 1, 0), (1, 1, 1, 1, 1, 500), (N_TRIALS, N_BINS, 6))
    emg[..., 0] = 0.1  # whose mean over many bins is not quite 0.1
    emg[~TEST, :, 1] = 7.0
    emg[TEST, :, 3] = -2.0
    spikes = rng.poisson(0.6, (N_TRIALS, N_BINS, 5)).astype(float)
    spikes[~TEST, :, 0] = spikes[TEST, :, 1] = spikes[..., 2] = 0
    seen = {"emg": rng.random(emg.shape) < 0.8, "spikes": rng.random(spikes.shape) < 0.9}
    seen["emg"][~TEST, :, 2] = False
    values = {"emg": np.where(seen["emg"], emg, 0.0), "spikes": np.where(seen["spikes"], spikes, 0.0)}
    kinds = {"emg": "continuous", "spikes": "spikes"}
    return Trials(values, seen, {"emg": CONTINUOUS, "spikes": SPIKES}, kinds, 0.02, CONDITION)


class Sure:
    """Predicts a fixed mean of each channel; surer than it should be of all channels but the good ones."""

    def __init__(self, **deviations: float) -> None:
        self.deviations = DEVIATIONS | deviations

    def tasks(self, withheld: Withheld) -> list[Task]:
        return tasks_of_latent_model(("spikes", "emg"), withheld)

    def predict(self, trials: Trials, given: tuple[str, ...], predicted: str) -> Predictive:
        shape = (1, *trials.values[predicted].shape)
        if predicted == "spikes":
            return Predictive("poisson", np.full(shape, RATE))
        mean, deviation = (np.array([d[c] for c in trials.channels["emg"]]) for d in (MEANS, self.deviations))
        return Predictive("gaussian", np.broadcast_to(mean, shape), deviation)


def evaluation(trials: Trials, time: float | None = None) -> Any:
    model: Any = Sure()
    return evaluate(FittedModel(model), trials.select(~TEST), trials.select(TEST), Withheld({}, time))


def pooled(scores: pd.DataFrame, modality: str, heldout: str = "modality") -> pd.DataFrame:
    return scores.query(ASKED, local_dict={"modality": modality, "heldout": heldout}).set_index("metric")


def test_pooled_scores_are_those_of_the_good_channels_by_hand():
    trials = recording()
    found = evaluation(trials)
    got = pooled(found.scores, "emg")
    squares, totals, density, inside, pit, channel_r2 = [], [], [], [], [], []
    for c in np.flatnonzero(GOOD):
        values, seen = trials.values["emg"][..., c], trials.observed["emg"][..., c]
        unit = values[~TEST][seen[~TEST]].std()
        y = values[TEST][seen[TEST]]
        normal = stats.norm(MEANS[CONTINUOUS[c]], DEVIATIONS[CONTINUOUS[c]])
        squares += list(((y - normal.mean()) / unit) ** 2)
        totals += list(((y - y.mean()) / unit) ** 2)
        density += list(normal.logpdf(y))
        pit += list(normal.cdf(y))
        inside += list(np.abs(y - normal.mean()) < 1.959964 * normal.std())
        channel_r2.append(r2_score(y, np.full(len(y), normal.mean())))
    n = len(squares)
    assert got["n"].to_dict() == dict.fromkeys(
        ("r2", "nrmse", "log_density", "coverage_50", "coverage_95"), n
    )
    assert got["value"]["r2"] == pytest.approx(1 - sum(squares) / sum(totals))
    assert got["value"]["nrmse"] == pytest.approx(np.sqrt(np.mean(squares)))
    assert got["value"]["log_density"] == pytest.approx(np.mean(density))
    assert got["value"]["coverage_95"] == pytest.approx(np.mean(inside))
    histogram = found.calibration.isel(question=(found.calibration["predicted"] == "emg").values)
    np.testing.assert_array_equal(histogram["n"], n)
    share = np.histogram(pit, np.linspace(0, 1, 21))[0] / n
    np.testing.assert_allclose(histogram["share"], np.tile(share, (len(histogram["n"]), 1)))
    own = found.scores.query("predicted == 'emg' and heldout == 'modality'").pivot(
        index="channel", columns="metric", values=["value", "n"]
    )
    assert own["value"].loc[list(np.array(CONTINUOUS)[~GOOD])].isna().all(axis=None)
    np.testing.assert_allclose(own["value"]["r2"].loc[list(np.array(CONTINUOUS)[GOOD])], channel_r2)
    counts = dict(zip(CONTINUOUS, trials.observed["emg"][TEST].sum(axis=(0, 1)), strict=True))
    for metric in got.index:  # what is not scored keeps its number of observations
        assert own["n"][metric].drop("pooled").to_dict() == counts


def test_leaving_bad_channels_out_of_the_recording_changes_nothing():
    trials = recording()
    found, without = (evaluation(t, time=0.5) for t in (trials, with_channels(trials, {"emg": GOOD})))
    pd.testing.assert_frame_equal(
        *(e.scores.query("channel == 'pooled'").reset_index(drop=True) for e in (found, without))
    )
    for name, errors in found.diagnostics.items():
        for key, value in errors.items():
            np.testing.assert_allclose(value, without.diagnostics[name][key], err_msg=f"{name} {key}")
    np.testing.assert_array_equal(found.calibration["n"], without.calibration["n"])
    np.testing.assert_allclose(found.calibration["share"], without.calibration["share"])
    # n is that of the values pooled, by every metric alike
    of_emg = found.scores.query("channel == 'pooled' and predicted == 'emg'")
    assert (of_emg.groupby(["heldout", "given"])["n"].nunique() == 1).all()


def test_silent_units_keep_their_density_and_are_counted_where_they_have_no_score():
    trials = recording()
    found = evaluation(trials)
    got = pooled(found.scores, "spikes")
    values, seen = trials.values["spikes"][TEST], trials.observed["spikes"][TEST]
    assert got["value"]["log_density"] == pytest.approx(stats.poisson(RATE).logpmf(values[seen]).mean())
    for metric in ("bits_per_spike", "log_density", "coverage_50", "coverage_95"):
        assert got["n"][metric] == seen.sum(), metric
    histogram = found.calibration.isel(question=(found.calibration["predicted"] == "spikes").values)
    np.testing.assert_array_equal(histogram["n"], seen.sum())
    rows = found.scores.query("predicted == 'spikes' and heldout == 'modality'")
    lacking = rows[rows["value"].isna()].groupby("metric")["channel"].agg(set)
    assert lacking.to_dict() == {"bits_per_spike": set(SPIKES[1:3]), "psth_r2": set(SPIKES[:3])}
    # the PSTH is pooled over the two units that have one, in units of their s.d. in training
    error, total, n = 0.0, 0.0, 0
    for c in (3, 4):
        before, then = (trials.values["spikes"][k, :, c] for k in (~TEST, TEST))
        unit = before[trials.observed["spikes"][~TEST, :, c]].std()
        weighted = [
            np.ma.masked_array(then, ~seen[..., c])[CONDITION[TEST] == label].mean(axis=0).compressed()
            for label in "abc"
        ]
        mean = np.concatenate(weighted)
        error += ((mean - RATE) ** 2).sum() / unit**2
        total += ((mean - mean.mean()) ** 2).sum() / unit**2
        n += len(mean)
    assert got["value"]["psth_r2"] == pytest.approx(1 - error / total)
    assert got["n"]["psth_r2"] == n


def test_a_channel_that_stops_varying_is_not_scored_there():
    """It is constant in the last part of the trials, and scored as any other in whole trials."""
    trials = recording()
    emg = trials.values["emg"].copy()
    emg[TEST, N_BINS // 2 :, 4] = np.where(trials.observed["emg"][TEST, N_BINS // 2 :, 4], 1.0, 0.0)
    scores = evaluation(replace(trials, values={**trials.values, "emg": emg}), time=0.5).scores
    own = scores.query("channel == 'ordinary'")
    assert own.query("heldout == 'time'")["value"].isna().all()
    assert own.query("heldout == 'trials'")["value"].notna().all()
    seen = trials.observed["emg"][TEST]
    assert (pooled(scores, "emg", "trials")["n"] == seen[..., GOOD].sum()).all()
    assert (pooled(scores, "emg", "time")["n"] == seen[:, N_BINS // 2 :, 5].sum()).all()


def test_nothing_to_score_is_nan_and_none():
    trials = with_channels(recording(), {"emg": ~GOOD})
    found = evaluation(trials)
    got = pooled(found.scores, "emg")
    assert got["value"].isna().all() and (got["n"] == 0).all()
    nothing = found.calibration.isel(question=(found.calibration["predicted"] == "emg").values)
    assert (nothing["n"] == 0).all() and nothing["share"].isnull().all()


def test_a_density_that_is_no_number_is_not_taken_for_a_channel_without_score():
    model: Any = Sure(ordinary=np.nan)
    trials = recording()
    with pytest.raises(ValueError, match="not a number"):
        evaluate(FittedModel(model), trials.select(~TEST), trials.select(TEST), Withheld({}))


def test_constant_is_constant_however_many_bins_are_summed():
    values = np.full((1000, 1000, 2), 0.1)  # the sum of which is off by more than the last digits
    seen = np.ones(values.shape, dtype=bool)
    assert np.isnan(standard_deviation(values, seen)).all()
    assert (Standardizer.fit(values, seen).deviation == 1.0).all()
    nearly = values + 1e-17 * np.arange(1000)[:, None, None]  # apart by rounding
    tiny = 1e-200 * np.arange(1000)[:, None, None] * seen  # squares of which are no numbers
    assert np.isnan(standard_deviation(tiny, seen)).all()
    assert len(np.unique(nearly)) > 1 and np.isnan(standard_deviation(nearly, seen)).all()


@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e6])
def test_a_perfect_fit_has_the_same_least_deviation_in_any_unit(unit):
    latent = np.random.default_rng(0).normal(size=(50, 2))
    exact = unit * latent @ np.array([1.0, -2.0])
    assert fit_value(latent, exact).spread == pytest.approx(1e-6 * exact.std())
    trials = recording().select(~TEST)
    mean = fit_to(settings_of("condition-mean"), trials).model
    scale = mean.predict(trials, (), "emg").scale
    assert scale is not None and scale[1] == 1e-6  # flat in training: as the lag regressions have it
