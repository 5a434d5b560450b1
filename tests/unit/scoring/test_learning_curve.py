"""Points of a learning curve differ in what was fitted to, and in nothing else."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from support import quiet, write_session, write_split
from support import settings_of as section

from colatent.analyses import analyse
from colatent.config import LearningCurve
from colatent.config.models import ModelSettings
from colatent.data.splits import TEST, TRAINING, make_split
from colatent.data.subsets import channel_subsets, trial_subsets, window_subsets
from colatent.data.trials import Trials
from colatent.models.fitting import FitJob, fit_fold
from colatent.models.registry import model_class
from colatent.report.figures.learning_curve import learning_curve_figure
from colatent.scoring import learning_curve as module
from colatent.scoring.learning_curve import BASELINE, COLUMNS, Recipe, curve_of_fold, learning_curve
from colatent.scoring.session import ScoreJob, score_session
from colatent.store.session import read_fold
from colatent.store.stores import identity

MODELS = {
    "mm-gpvae": {"latents": {"spikes+emg": 1, "spikes": 1}, "cross_weight": {"emg": 1.0}, "epochs": 2},
    "gpfa": {"latents": {"spikes": 2}},
    "gpfa, poisson": {"kind": "gpfa", "latents": {"spikes": 2}, "likelihood": {"spikes": "poisson"}},
    "smoothed-fa": {"latents": {"spikes": 2}},
    "condition-mean": {},
    "ridge-lags": {"lags": 3},
    "mlp-lags": {"lags": 3, "epochs": 2},
    "gru": {"units": 8, "epochs": 2},
}
FOLD, FUTURE, CLIP = 1, 0.2, {"emg": (2.0, 98.0)}
SHARES = [0.2, 0.5, 0.9, 1.0]


def settings_of(name: str) -> ModelSettings:
    return section(**{"kind": name} | MODELS[name])


def recipe(name: str, **curve) -> Recipe:
    shares = LearningCurve(**{"trials": [1.0], "channels": {}} | curve)
    return Recipe(settings_of(name), shares, True, 0)


@pytest.fixture(scope="module", params=["trials", "windows"])
def split(request, simulated_trials, tmp_path_factory):
    trials = simulated_trials.select(np.arange(24))
    trials = replace(trials, time_locked=request.param == "trials")
    groups = make_split(trials, 3, False, {"spikes": 0.25}, [0], guard=1)
    folder = tmp_path_factory.mktemp("split") / request.param
    write_split(folder, groups, CLIP, FUTURE)
    return trials, folder


def assert_nested(masks: list[np.ndarray]) -> None:
    for smaller, larger in pairwise(masks):
        assert (smaller <= larger).all() and smaller.sum() <= larger.sum()


@pytest.mark.parametrize("counts", [(12, 12, 12), (20, 7, 1, 1), (3, 40)])
def test_subsets_of_trials_are_nested_and_stratified(counts):
    condition = np.random.default_rng(3).permutation(np.repeat(list("abcd")[: len(counts)], counts))
    n = len(condition)
    masks = trial_subsets(condition, n, SHARES, (0, 1))
    assert_nested(masks)
    for share, mask in zip(SHARES, masks, strict=True):
        assert mask.sum() == max(round(share * n), 1)
        for label in np.unique(condition):
            wanted = mask.sum() * (condition == label).mean()
            assert abs(mask[condition == label].sum() - wanted) < 1.5
    again, other = (trial_subsets(condition, n, SHARES, (seed, 1)) for seed in (0, 5))
    np.testing.assert_array_equal(masks, again)
    assert (masks[1] != other[1]).any()


def test_subsets_of_windows_are_nested_blocks_anywhere():
    n, every = 23, list(np.arange(1, 24) / 23)
    starts = set()
    for seed in range(40):
        masks = window_subsets(n, every, (seed,))
        assert_nested(masks)
        assert [mask.sum() for mask in masks] == list(range(1, 24))
        for mask in masks:
            assert np.ptp(np.flatnonzero(mask)) == mask.sum() - 1
        starts.add(int(masks[4].argmax()))
    assert len(starts) > 8


def test_subsets_of_channels_are_nested_and_hold_the_hidden_ones():
    hidden = np.isin(np.arange(30), [2, 9, 17, 21])
    masks = channel_subsets(hidden, [0.01, *SHARES], (0,))
    assert_nested(masks)
    assert [mask.sum() - 4 for mask in masks] == [1, 5, 13, 23, 26]
    assert all(mask[hidden].all() for mask in masks)


@pytest.mark.parametrize(("name", "n_folds"), [("mm-gpvae", 1), ("smoothed-fa", 2), ("ridge-lags", 2)])
def test_a_share_of_one_scores_as_the_ordinary_fit_does(name, n_folds, simulated_trials, tmp_path):
    trials = simulated_trials.select(np.arange(24))
    write_session(tmp_path / "session", trials, (np.arange(trials.n_bins) + 0.5) * trials.bin_width)
    groups = make_split(trials, 3, True, {"spikes": 0.25}, [4], guard=1)
    write_split(tmp_path / "split", groups, CLIP, FUTURE)
    fits, settings = [], settings_of(name)
    made_from = {part: identity(tmp_path / part) for part in ("session", "split")}
    for number in range(n_folds):
        fits.append(tmp_path / f"fit/fold-{number}_seed-4")
        fold, inputs = read_fold(trials, tmp_path / "split", number, 4), made_from | {"fold": number}
        job = FitJob(settings, 4, "cpu", 1, inputs, tmp_path / "none", fits[-1], quiet)
        fit_fold(model_class(settings), fold, job)
    head, places = {"session": "s", "model": "m"}, (tmp_path / "session", tmp_path / "split")
    score_session(ScoreJob(*places, fits, tmp_path / "m.csv", tmp_path / "score", head), analyse, quiet)
    ordinary = pd.read_csv(tmp_path / "m.csv", keep_default_na=False, float_precision="round_trip")
    shares = LearningCurve(trials=[0.5, 1.0], channels={"spikes": [0.5, 1.0]}, folds=n_folds)
    curve = learning_curve(*places, Recipe(settings, shares, True, 4), n_folds=3, threads=1, head=head)
    assert list(curve) == COLUMNS
    assert set(curve["model"]) == {"m", BASELINE} and set(curve["fold"]) == set(range(n_folds))
    key = ["fold", "heldout", "given", "predicted", "metric"]
    wanted = ordinary.query("channel == 'pooled'").set_index(key)["value"].astype(float)
    own = curve[curve["model"] == "m"].set_index(key)
    whole = own.query("varied == 'trials' and share == 1")["value"]
    assert len(whole) == len(wanted) > 0
    pd.testing.assert_series_equal(whole, wanted[whole.index], check_exact=True)
    for_channels = own.query("varied == 'channels of spikes' and share == 1")["value"]
    pd.testing.assert_series_equal(for_channels, wanted[for_channels.index], check_exact=True)
    less = own.query("varied == 'trials' and share == 0.5")["value"]
    assert (less != wanted[less.index]).any()


def with_noise(trials: Trials, keep: np.ndarray) -> Trials:
    """The same trials ``keep``; all others noise, with other gaps."""
    rng = np.random.default_rng(8)
    values, observed = {}, {}
    for name, value in trials.values.items():
        noise = rng.poisson(9.0, value.shape) if name == "spikes" else 50 * rng.normal(size=value.shape)
        seen = rng.random(value.shape) < 0.8
        observed[name] = np.where(keep[:, None, None], trials.observed[name], seen)
        values[name] = np.where(keep[:, None, None], value, np.where(seen, noise, 0.0)).astype(float)
    return replace(trials, values=values, observed=observed)


@pytest.mark.parametrize("name", MODELS)
def test_left_out_training_trials_change_no_score(name, split, monkeypatch):
    trials, folder = split
    how = recipe(name, trials=[0.4])
    fold = read_fold(trials, folder, FOLD, 0)
    (point,) = module.points(trials, fold, FOLD, how)
    assert not (point.trial & (fold.role != TRAINING)).any()
    assert 2 <= point.trial.sum() < (fold.role == TRAINING).sum()
    noisy = with_noise(trials, point.trial | (fold.role == TEST))
    # what is scored is the same, and so is the unit that R² is pooled in: they are of the whole fold
    spoiled = read_fold(noisy, folder, FOLD, 0)._replace(test=fold.test)
    assert (spoiled.training.values["emg"] != fold.training.values["emg"]).any()
    monkeypatch.setattr("colatent.scoring.evaluate.standard_deviation", lambda v, _: np.ones(v.shape[2]))
    clean, other = (curve_of_fold(*pair, FOLD, how) for pair in ((trials, fold), (noisy, spoiled)))
    assert len(clean) and np.isfinite(clean["value"]).all()
    pd.testing.assert_frame_equal(clean, other, check_exact=True)


def test_left_out_channels_change_no_score(split):
    trials, folder = split
    fold = read_fold(trials, folder, FOLD, 0)
    how = recipe("gpfa", channels={"spikes": [0.3]})
    point = list(module.points(trials, fold, FOLD, how))[-1]
    hidden = fold.withheld.channels["spikes"]
    assert (~point.channel["spikes"]).sum() > 10 and point.channel["spikes"][hidden].all()
    gone = {"spikes": ~point.channel["spikes"]}
    values = dict(trials.values)
    values["spikes"] = np.where(gone["spikes"], 7.0, trials.values["spikes"])
    noisy = replace(trials, values=values)
    clean, other = (
        curve_of_fold(t, read_fold(t, folder, FOLD, 0), FOLD, how).query(
            "varied != 'trials' and varied != 'windows'"
        )
        for t in (trials, noisy)
    )
    assert len(clean)
    pd.testing.assert_frame_equal(clean, other, check_exact=True)


def test_what_is_scored_is_the_same_at_every_share(split, monkeypatch):
    trials, folder = split
    fold = read_fold(trials, folder, FOLD, 0)
    calls = []

    def spy(fit, training, test, withheld):
        calls.append((training, test, withheld))
        return evaluate(fit._replace(decoder=None), training, test, withheld)

    evaluate = module.evaluate
    monkeypatch.setattr(module, "evaluate", spy)
    shares = [0.3, 1.0]
    table = curve_of_fold(trials, fold, FOLD, recipe("condition-mean", trials=shares))
    for training, test, _ in calls:
        for m in trials.modalities:
            np.testing.assert_array_equal(test.values[m], fold.test.values[m])
            np.testing.assert_array_equal(training.values[m], fold.training.values[m])
    assert table.groupby("share")["n"].first().tolist() == [
        max(round(s * fold.training.n_trials), 1) for s in shares
    ]
    calls.clear()
    table = curve_of_fold(trials, fold, FOLD, recipe("mm-gpvae", channels={"spikes": shares}))
    hidden, names = fold.withheld.channels["spikes"], np.array(trials.channels["spikes"])
    for training, test, withheld in calls:
        own = withheld.channels["spikes"]
        assert list(np.array(test.channels["spikes"])[own]) == list(names[hidden])
        np.testing.assert_array_equal(
            test.values["spikes"][..., own], fold.test.values["spikes"][..., hidden]
        )
        np.testing.assert_array_equal(test.values["emg"], fold.test.values["emg"])
        assert training.channels == test.channels
    rows = table[table["varied"] == "channels of spikes"]
    asked = set(zip(rows["heldout"], rows["given"], rows["predicted"], strict=True))
    assert asked == {
        ("channels", "spikes", "spikes"), ("channels", "spikes+emg", "spikes"),
        ("modality", "spikes", "emg"), ("trials", "spikes+emg", "emg"), ("time", "spikes+emg", "emg"),
        ("channels", "none", "spikes"), ("trials", "none", "emg"), ("time", "none", "emg"),
    }  # fmt: skip
    held_in = (~hidden).sum()
    n = rows[rows["share"] == 0.3].groupby("predicted")["n"].unique()
    assert n["spikes"].tolist() == [round(0.3 * held_in)]
    assert n["emg"].tolist() == [round(0.3 * held_in) + hidden.sum()]


def test_a_channel_flat_in_some_share_is_scored_at_none(split, monkeypatch):
    trials, folder = split
    fold = read_fold(trials, folder, FOLD, 0)
    how = recipe("condition-mean", trials=[0.3, 1.0])
    smallest = next(module.points(trials, fold, FOLD, how)).trial
    emg = trials.values["emg"].copy()
    emg[smallest, :, 2] = 3.0
    trials = replace(trials, values={**trials.values, "emg": emg})
    fold = read_fold(trials, folder, FOLD, 0)
    found, said = [], []

    def spy(*args):
        found.append(evaluate(*args))
        return found[-1]

    evaluate = module.evaluate
    monkeypatch.setattr(module, "evaluate", spy)
    curve_of_fold(trials, fold, FOLD, replace(how, progress=said.append))
    name = trials.channels["emg"][2]
    assert any("emg: not scored at any share" in line and line.endswith(f": {name}") for line in said)
    assert len(found) == 2
    for scores in (f.scores[f.scores["predicted"] == "emg"] for f in found):
        unscored = scores.groupby("channel")["value"].apply(lambda value: value.isna().all())
        assert unscored.index[unscored].tolist() == [name]
        assert (scores.loc[scores["metric"] == "log_density", "value"].dropna() > -20).all()


def test_more_trials_and_more_channels_predict_better(simulated_trials, tmp_path):
    groups = make_split(simulated_trials, 3, True, {"spikes": 0.25}, [0], guard=1)
    write_split(tmp_path / "split", groups, time=FUTURE)
    fold = read_fold(simulated_trials, tmp_path / "split", FOLD, 0)
    how = recipe("gpfa", trials=[0.1, 0.4, 1.0], channels={"spikes": [0.1, 0.4, 1.0]})
    how = replace(how, settings=section("gpfa", latents={"spikes": 3}))  # two are too few
    table = curve_of_fold(simulated_trials, fold, FOLD, how)
    scores = table.query("heldout == 'channels' and metric == 'bits_per_spike'")
    own = scores[scores["model"] != BASELINE]
    for varied in ("trials", "channels of spikes"):
        few, some, all_of_them = own[own["varied"] == varied].sort_values("n")["value"]
        assert all_of_them > few + 0.02
        assert few - 0.01 < some < all_of_them + 0.01
    means = scores[(scores["model"] == BASELINE) & (scores["varied"] == "trials")].sort_values("n")["value"]
    assert means.iloc[-1] > means.iloc[0] + 0.02


def test_what_cannot_be_compared_is_said_and_left_out(split):
    trials, folder = split
    fold = read_fold(trials, folder, FOLD, 0)
    said: list[str] = []
    model = section("smoothed-fa", latents={"emg": 2})
    how = recipe("smoothed-fa", channels={"spikes": [0.5], "emg": [0.5]})
    how = replace(how, settings=model, progress=said.append)
    found = list(module.points(trials, fold, FOLD, how))
    assert [point.modality for point in found] == [None]
    assert "spikes is not varied: the model never predicts from it" in said[0]
    assert "emg is not varied: none of its channels are held out" in said[1]


def test_a_share_with_fewer_channels_than_latents_is_said_and_left_out(split):
    trials, folder = split
    fold = read_fold(trials, folder, FOLD, 0)
    said: list[str] = []
    how = recipe("gpfa", channels={"spikes": [0.05, 1.0]})
    how = replace(how, settings=section("gpfa", latents={"spikes": 10}), progress=said.append)
    found = list(module.points(trials, fold, FOLD, how))
    assert [point.share for point in found if point.modality] == [1.0]
    assert said == ["0.05 of the spikes are left out: fewer channels than latents"]


def test_the_figure_draws_means_over_folds_and_names_what_it_shows():
    rows = [
        ("s", model, fold, varied, share, n, "channels", given, "spikes", "bits_per_spike", value + fold)
        for varied, ns in (("trials", (4, 16)), ("channels of spikes", (3, 12)))
        for fold in (0, 1)
        for share, n in zip((0.25, 1.0), ns, strict=True)
        for model, given, value in (("m", "spikes", share), (BASELINE, "none", 0.1))
    ]
    figure = learning_curve_figure(pd.DataFrame(rows, columns=COLUMNS), "s", "m")
    assert "held-out (test) trials" in figure.title
    trials, channels = [axes for axes in figure.figure.get_axes() if axes.get_visible()]
    assert trials.get_xlabel() == "training trials"
    assert channels.get_xlabel() == "channels of spikes given to inference"
    assert trials.get_ylabel() == channels.get_ylabel() == "bits/spike"
    lines = {line.get_linestyle(): line for line in trials.lines if len(line.get_xdata()) == 2}
    np.testing.assert_allclose(lines["-"].get_xydata(), [(4, 0.75), (16, 1.5)])
    np.testing.assert_allclose(lines["--"].get_xydata(), [(4, 0.6), (16, 0.6)])
