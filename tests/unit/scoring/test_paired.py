"""Paired differences against SciPy's permutation test and hand-made scores."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from colatent.scoring.paired import COLUMNS, least_p_value, paired_differences, sign_flip_p_value


@pytest.mark.parametrize("n", [2, 5, 9])
def test_the_p_value_is_scipys_exact_permutation_test(n):
    rng = np.random.default_rng(n)
    for shift in (0.0, 0.7):
        a, b = rng.normal(shift, 1, n), rng.normal(size=n)
        peer = stats.permutation_test(
            (a, b), lambda x, y: np.mean(x - y), permutation_type="samples", n_resamples=np.inf
        )
        assert sign_flip_p_value(a - b) == pytest.approx(peer.pvalue)


def test_drawn_signs_agree_with_the_exact_test_and_hold_the_level():
    rng = np.random.default_rng(0)
    difference = rng.normal(0.3, 1, 40)
    t = stats.ttest_1samp(difference, 0).pvalue
    assert sign_flip_p_value(difference) == pytest.approx(t, abs=0.02)
    assert sign_flip_p_value(np.full(40, 1.0)) == pytest.approx(1 / 10_000)
    rejected = [sign_flip_p_value(rng.normal(size=10)) <= 0.05 for _ in range(300)]
    assert np.mean(rejected) < 0.05 + 2 * np.sqrt(0.05 * 0.95 / 300)


def row(model, fold, value, heldout="trials", given="spikes", seed=0, channel="pooled", metric="r2"):
    return {
        "session": "s", "model": model, "fold": fold, "seed": seed, "heldout": heldout, "given": given,
        "predicted": "emg", "channel": channel, "metric": metric, "value": value, "n": 9,
    }  # fmt: skip


def test_models_are_paired_by_fold_on_the_same_question():
    a, b, mean = (0.5, 0.7, 0.9), (0.4, 0.5, 0.6), (0.1, 0.0, np.nan)
    rows = [row("a", f, v + d, seed=s) for f, v in enumerate(a) for s, d in ((0, -0.1), (1, 0.1))]
    rows += [row("b", f, v) for f, v in reversed(list(enumerate(b)))]
    rows += [row("mean", f, v, given="none") for f, v in enumerate(mean)]
    rows += [row("a", f, 9.0, channel="c1") for f in range(3)]
    rows += [row("a", f, 0.9, metric="coverage_95") for f in range(3)]
    rows += [row("b", f, 0.3 + f, heldout="modality", given="pose") for f in range(3)]
    table = paired_differences(pd.DataFrame(rows))
    assert list(table) == COLUMNS
    one = table.set_index(["heldout", "given", "model", "other"])
    assert set(one.index) == {
        ("trials", "spikes", "a", "b"), ("trials", "spikes", "a", "mean"), ("trials", "spikes", "b", "mean"),
        ("modality", "pose", "b", "mean"),
    }  # fmt: skip
    difference = np.subtract(a, b)
    got = one.loc["trials", "spikes", "a", "b"]
    assert got["difference"] == pytest.approx(difference.mean())
    assert got["standard_error"] == pytest.approx(stats.sem(difference))
    assert (got["n_folds"], got["p_value"]) == (3, 0.25)
    beside = one.loc["modality", "pose", "b", "mean"]
    assert beside["n_folds"] == 2  # the mean has no score in one fold
    assert beside["difference"] == pytest.approx(np.mean([0.2, 1.3]))


def test_a_model_without_latents_stands_beside_what_is_decoded_with_its_cross_prediction():
    scores = {
        ("a", "decoding"): 0.8,
        ("a", "modality"): 0.5,
        ("b", "decoding"): 0.7,
        ("lags", "modality"): 0.4,
    }
    rows = [row(m, f, v + f, heldout=h) for (m, h), v in scores.items() for f in range(3)]
    rows += [row("mean", f, 0.1 + f, given="none") for f in range(3)]
    rows += [row("lags", f, 9.0, heldout="modality", given="spikes+pose") for f in range(3)]
    table = paired_differences(pd.DataFrame(rows)).set_index(["heldout", "given", "model", "other"])
    found = {key[2:]: one for key, one in table["difference"].items() if key[0] == "decoding"}
    expected = {
        ("a", "b"): 0.1,
        ("a", "lags"): 0.4,
        ("a", "mean"): 0.7,
        ("b", "lags"): 0.3,
        ("b", "mean"): 0.6,
    }
    assert found == pytest.approx(expected)
    assert table["difference"]["modality", "spikes", "a", "lags"] == pytest.approx(0.1)


def test_one_fold_has_a_difference_but_no_error():
    table = paired_differences(pd.DataFrame([row("a", 0, 0.5), row("b", 0, 0.2)]))
    assert table["difference"].item() == pytest.approx(0.3)
    assert table[["standard_error", "p_value"]].isna().all(axis=None)
    alone = paired_differences(pd.DataFrame([row("a", 0, 0.5)]))
    assert list(alone) == COLUMNS
    assert alone.empty


@pytest.mark.parametrize("n", [2, 5, 13, 14, 15])
def test_the_least_p_value_is_that_of_equal_differences(n):
    assert sign_flip_p_value(np.ones(n)) == pytest.approx(least_p_value(n), abs=2e-4)


@pytest.mark.parametrize(
    "difference",
    [
        [np.inf, 1, 1], [-np.inf, 1, 2, 4], [np.inf, np.inf, -3, 1e-3], [np.inf] * 5, [np.inf, -np.inf],
        [np.inf, -np.inf, 1.0, 0.2], [np.inf, 0, 0], [np.inf, *range(15)],
    ],
)  # fmt: skip
def test_an_infinite_difference_counts_as_a_very_large_one(difference):
    large = np.clip(difference, -1e6, 1e6)
    assert sign_flip_p_value(np.array(difference, dtype=float)) == sign_flip_p_value(large)
    opposite = -np.array(difference, dtype=float)
    assert sign_flip_p_value(opposite) == sign_flip_p_value(large)


def test_what_both_models_held_impossible_is_no_pair():
    scores = {"a": (-1, -1, -1, -np.inf), "b": (-2, -2.5, -2, -np.inf), "c": (-2, -2, -2, -2)}
    rows = [row(m, f, v, metric="log_density") for m, values in scores.items() for f, v in enumerate(values)]
    table = paired_differences(pd.DataFrame(rows)).set_index(["model", "other"])
    same, one = table.loc["a", "b"], table.loc["a", "c"]
    assert (same["n_folds"], same["p_value"]) == (3, 0.25)
    assert same["difference"] == pytest.approx(3.5 / 3)
    assert (one["n_folds"], one["difference"]) == (4, -np.inf)
    assert np.isnan(one["standard_error"])
    assert one["p_value"] == sign_flip_p_value(np.array([1, 1, 1, -1e6]))
    both_ways = [row("a", f, v) for f, v in enumerate((-np.inf, 0.0, 1.0))]
    both_ways += [row("b", f, v) for f, v in enumerate((0.0, -np.inf, 0.0))]
    assert paired_differences(pd.DataFrame(both_ways))[["difference", "standard_error"]].isna().all(axis=None)
