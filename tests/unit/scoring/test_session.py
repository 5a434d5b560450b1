"""The scores of a session's fits, from stores to tables, against figures computed from its parts."""

import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from support import quiet, settings_of, write_session, write_split

from colatent.analyses import analyse
from colatent.data.splits import TEST, hidden_channels, make_split
from colatent.errors import InputError
from colatent.models.fitting import FitJob, fit_fold
from colatent.models.registry import load_model, model_class
from colatent.scoring.session import ScoreJob, score_session
from colatent.scoring.tables import join_scores, read_scores
from colatent.store.session import read_fold
from colatent.store.stores import identity, read_group, read_tensors

SEEDS, FOLDS, SHARE, FUTURE = [0, 7], 3, 0.25, 0.2
MODELS = {"fa": settings_of("smoothed-fa", latents={"spikes": 2}), "mean": settings_of("condition-mean")}


@pytest.fixture(scope="module")
def scored(simulated_trials, tmp_path_factory):
    root = tmp_path_factory.mktemp("scored")
    time = (np.arange(simulated_trials.n_bins) + 0.5) * simulated_trials.bin_width
    write_session(root / "session", simulated_trials, time)
    split = make_split(simulated_trials, FOLDS, False, {"spikes": SHARE}, SEEDS, 1)
    write_split(root / "split", split, time=FUTURE)
    made_from = {part: identity(root / part) for part in ("session", "split")}
    for name, settings in MODELS.items():
        fits = []
        for number in (0, 2):
            for seed in SEEDS:
                fits.append(root / f"fit/{name}/fold-{number}_seed-{seed}")
                fold = read_fold(simulated_trials, root / "split", number, seed)
                inputs = made_from | {"fold": number}
                job = FitJob(settings, seed, "cpu", 1, inputs, root / "none", fits[-1], quiet)
                fit_fold(model_class(settings), fold, job)
        files = root / f"{name}.csv", root / f"score/{name}"
        head = {"session": "one", "model": name}
        score_session(ScoreJob(root / "session", root / "split", fits, *files, head), analyse, quiet)
    tables, stores = ([root / p.format(m) for m in MODELS] for p in ("{}.csv", "score/{}"))
    join_scores([str(t) for t in tables], stores, root)
    return root, read_scores(root / "scores.csv"), split["split"]["role"].values


def test_a_fit_of_another_fold_or_session_is_not_scored(scored, tmp_path):
    root, _, _ = scored
    fit, fold = root / "fit/mean/fold-0_seed-0", tmp_path / "fold-2_seed-0"
    shutil.copytree(fit, fold)
    files = tmp_path / "m.csv", tmp_path / "m"
    with pytest.raises(InputError, match=r"fold-2_seed-0: the fit of another fold or session"):
        score_session(ScoreJob(root / "session", root / "split", [fold], *files, {}), analyse, quiet)
    shutil.copytree(root / "session", tmp_path / "session")
    write_split(tmp_path / "split", {})
    with pytest.raises(InputError, match=r"fold-0_seed-0: the fit of another fold or session"):
        score_session(ScoreJob(root / "session", tmp_path / "split", [fit], *files, {}), analyse, quiet)
    assert not (tmp_path / "m.csv").exists()


@pytest.mark.parametrize("gone", [False, True], ids=["another", "gone"])
def test_a_fit_that_is_replaced_while_it_is_scored_is_refused(scored, tmp_path, gone):
    """By one of the same fold and seed, whose scores these are not."""
    root, _, _ = scored
    fit = tmp_path / "fold-0_seed-0"
    shutil.copytree(root / "fit/mean/fold-0_seed-0", fit)

    def replaced(_: str) -> None:
        shutil.rmtree(fit)
        if not gone:
            shutil.copytree(root / "fit/fa/fold-0_seed-0", fit)

    job = ScoreJob(root / "session", root / "split", [fit], tmp_path / "m.csv", tmp_path / "m", {})
    with pytest.raises(InputError, match=r"fold-0_seed-0: the fit was replaced while it was scored"):
        score_session(job, analyse, replaced)
    assert not (tmp_path / "m.csv").exists()


@pytest.mark.parametrize("name", MODELS)
def test_scores_are_those_of_test_trials_of_each_fold_and_of_channels_of_each_seed(
    scored, simulated_trials, name
):
    root, scores, role = scored
    names = np.array(simulated_trials.channels["spikes"])
    hidden = hidden_channels(len(names), SHARE, SEEDS, FOLDS)
    for i, seed in enumerate(SEEDS):
        for number in (0, 2):
            assert (hidden[0] != hidden[1]).any()
            test = simulated_trials.select(role[number] == TEST)
            state = read_tensors(root / f"fit/{name}/fold-{number}_seed-{seed}", "state")
            model = load_model(MODELS[name], test.layout, state)
            rows = scores.query(f"model == '{name}' and fold == {number} and seed == {seed}")
            rows = rows.query("predicted == 'spikes' and metric == 'bits_per_spike' and channel != 'pooled'")
            last = round((1 - FUTURE) * test.n_bins)
            for heldout, kept, start in (
                ("trials", np.zeros(len(names), dtype=bool), 0),
                ("channels", hidden[i, number], 0),
                ("time", np.zeros(len(names), dtype=bool), last),
            ):
                seen = test.hide({"spikes": kept}).only(("spikes",))
                if start:  # written out: nothing of any modality from the last part on
                    for arrays in (seen.values, seen.observed):
                        for array in arrays.values():
                            array[:, start:] = 0
                    seen = replace(seen, hidden_end=FUTURE)  # that it is a future: it is read out as one
                rate = model.predict(seen, ("spikes",), "spikes").mean[:, start:]
                count = test.values["spikes"][:, start:]
                null = stats.poisson.logpmf(count, count.mean(axis=(0, 1))).sum(axis=(0, 1))
                with np.errstate(invalid="ignore", divide="ignore"):
                    bits = (stats.poisson.logpmf(count, rate).sum(axis=(0, 1)) - null) / (
                        count.sum(axis=(0, 1)) * np.log(2)
                    )
                evaluated = kept if kept.any() else np.ones_like(kept)
                got = rows.query(f"heldout == '{heldout}'").set_index("channel")["value"]
                assert set(got.index) == set(names[evaluated])
                np.testing.assert_allclose(got[names[evaluated]], bits[evaluated], rtol=0, atol=1e-12)
                assert (rows.query(f"heldout == '{heldout}'")["n"] == count[..., 0].size).all()


def test_paired_differences_and_calibration_lie_beside_the_scores(scored):
    root, scores, _ = scored
    table = pd.read_csv(root / "paired_differences.csv", keep_default_na=False, na_values={"p_value": [""]})
    asked = "heldout == 'trials' and given == 'spikes' and metric == 'bits_per_spike'"
    one = table.query(asked).iloc[0]
    pooled = scores.query(
        "channel == 'pooled' and heldout == 'trials' and predicted == 'spikes' and metric == 'bits_per_spike'"
    )
    mean = pooled.groupby("model")["value"].mean()
    sign = 1 if (one["model"], one["other"]) == ("fa", "mean") else -1
    assert one["difference"] == pytest.approx(sign * (mean["fa"] - mean["mean"]))
    assert one["n_folds"] == 2
    pit = read_group(root / "score/fa", "calibration/fold-2_seed-7")
    assert set(pit["heldout"].values) == {"trials", "channels", "time", "decoding"}
    np.testing.assert_allclose(pit["share"].sum("bin"), 1.0)


def test_bands_of_reconstructions_hold_their_share_of_held_out_values(scored):
    root, scores, _ = scored
    drawn = read_group(root / "score/mean", "reconstruction/fold-0_seed-0/trials/emg")
    y, inside = drawn["observation"].where(drawn["observed"]), {}
    for level in (50, 95):
        within = (y >= drawn[f"low_{level}"]) & (y <= drawn[f"high_{level}"])
        inside[level] = float(within.values[drawn["observed"].values].mean())
    # a few trials of one fold: bands ten times too narrow would hold a tenth and a fifth
    assert 0.4 < inside[50] < 0.8
    assert 0.88 < inside[95] < 0.99
    rows = scores.query("model == 'mean' and fold == 0 and predicted == 'emg' and channel == 'pooled'")
    for level in (50, 95):
        assert rows.query(f"metric == 'coverage_{level}'")["value"].iloc[0] == pytest.approx(
            inside[level], abs=0.05
        )
