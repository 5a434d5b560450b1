"""Agreement of latents between fits."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import subspace_angles
from sklearn.cross_decomposition import CCA

from colatent.analyses import agreement as module
from colatent.analyses.agreement import agreement, canonical_correlations

N_TRIALS, N_BINS = 40, 25
WHOLE = np.ones((N_TRIALS, N_BINS), dtype=bool)


@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(1, 4))
@settings(max_examples=30, deadline=None)
def test_canonical_correlations_are_those_of_scikit_learn(seed, p, q):
    rng = np.random.default_rng(seed)
    common = rng.normal(size=(200, 2))
    x = common @ rng.normal(size=(2, p)) + rng.normal(size=(200, p)) * rng.uniform(0.2, 5.0, p) + 3.0
    y = common @ rng.normal(size=(2, q)) + rng.normal(size=(200, q))
    own = canonical_correlations(x, y)
    n = min(p, q)
    assert own.shape == (n,)
    scores = CCA(n_components=n, scale=False, max_iter=20_000, tol=1e-14).fit_transform(x, y)
    theirs = [np.corrcoef(a, b)[0, 1] for a, b in zip(*(s.T for s in scores), strict=True)]
    np.testing.assert_allclose(own[0], theirs[0], atol=1e-6)
    # later components of its deflation are found less exactly than by SciPy's angles between subspaces
    np.testing.assert_allclose(own, theirs, atol=1e-3)
    cosines = np.cos(subspace_angles(x - x.mean(axis=0), y - y.mean(axis=0)))
    np.testing.assert_allclose(own, np.sort(cosines)[::-1], atol=1e-8)


def test_directions_without_variance_count_for_nothing():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(100, 2))
    padded = np.column_stack([x, np.full(100, 7.0), x[:, 0] - x[:, 1]])
    np.testing.assert_allclose(canonical_correlations(padded, x), [1.0, 1.0])


@pytest.fixture
def latents() -> dict[str, np.ndarray]:
    """Fits of a shared pair that is mixed, and of a private latent that is another one."""
    rng = np.random.default_rng(1)
    first = rng.normal(size=(N_TRIALS, N_BINS, 3))
    mixed = first[..., :2] @ np.array([[2.0, 1.0], [-1.0, 0.5]])
    other = rng.normal(size=(N_TRIALS, N_BINS, 1))
    return {"fold 0": first, "fold 1": np.concatenate([mixed, other], axis=-1)}


GROUPS = ["spikes+emg", "spikes+emg", "spikes"]


def test_the_same_latents_in_other_coordinates_agree_and_others_do_not(latents):
    table = agreement(latents, GROUPS, WHOLE).set_index("group")
    assert table.loc["spikes+emg", "agreement"] == pytest.approx(1.0)
    own = table.loc["spikes"]
    assert own["agreement"] < own["null_95"] + 0.05 and own["null_mean"] < 0.1
    assert set(table["fit"]) == {"fold 1"}


def test_the_null_keeps_what_all_trials_have_in_common(latents):
    course = 10 * np.sin(np.linspace(0, 6, N_BINS))[None, :, None]
    alike = {fit: course + 0.01 * mean for fit, mean in latents.items()}
    table = agreement(alike, GROUPS, WHOLE).set_index("group")
    own = table.loc["spikes"]  # the fits agree in the common course alone, and so does the null
    assert own["agreement"] > 0.99 and own["null_mean"] > 0.99


def test_what_lies_past_the_end_of_trials_does_not_matter(latents):
    running = np.arange(N_BINS) < np.arange(N_TRIALS)[:, None] % N_BINS
    spoilt = {
        fit: np.where(running[..., None], mean, 99.0 if fit == "fold 0" else -99.0)
        for fit, mean in latents.items()
    }
    left, right = (agreement(fits, GROUPS, running) for fits in (latents, spoilt))
    np.testing.assert_array_equal(left["agreement"], right["agreement"])
    assert (left["null_95"] == right["null_95"]).all()


def test_the_order_of_trials_and_the_seed_change_no_agreement(latents):
    order = np.random.default_rng(2).permutation(N_TRIALS)
    shuffled = {fit: mean[order] for fit, mean in latents.items()}
    left, right = agreement(latents, GROUPS, WHOLE), agreement(shuffled, GROUPS, WHOLE, seed=5)
    np.testing.assert_allclose(left["agreement"], right["agreement"], atol=1e-12)


RAGGED = np.arange(40) < np.random.default_rng(3).integers(10, 41, 40)[:, None]
LATE = np.maximum(np.arange(40) - 25, 0)[:, None] / 5  # a course that only long trials reach


@pytest.mark.parametrize("mean", [0.0, 1.0, 50.0, LATE], ids=["none", "one", "large", "late course"])
def test_independent_latents_of_ragged_trials_agree_by_chance_alone(mean):
    rng = np.random.default_rng(4)
    tables = []
    for _ in range(6):
        # zero past the end, as they are stored
        fits = {fit: RAGGED[..., None] * (mean + rng.normal(size=(40, 40, 1))) for fit in "ab"}
        tables.append(agreement(fits, ["spikes"], RAGGED))
    table = pd.concat(tables)
    assert (table["agreement"] <= table["null_95"]).sum() >= 5
    if mean is not LATE:
        assert (table["null_95"] < 0.15).all()


def test_the_null_is_the_weighted_correlation_over_bins_in_which_both_run(monkeypatch):
    monkeypatch.setattr(module, "N_PERMUTATIONS", 1)
    rng = np.random.default_rng(6)
    x, y = rng.normal(size=(2, 40, 40, 1)) + LATE
    row = agreement({"a": x, "b": y}, ["spikes"], RAGGED).iloc[0]
    assert row["agreement"] == pytest.approx(abs(np.corrcoef(x[RAGGED].T, y[RAGGED].T)[0, 1]))
    order = np.random.default_rng(0).permuted(np.arange(40)[None], axis=1)[0]
    n, sums = 0.0, np.zeros(5)
    for t in range(40):
        pairs = [(x[i, t, 0], y[j, t, 0]) for i, j in enumerate(order) if RAGGED[i, t] and RAGGED[j, t]]
        for a, b in pairs:
            weight = RAGGED[:, t].sum() / len(pairs)
            n += weight
            sums += weight * np.array([a, b, a * a, b * b, a * b])
    a, b, aa, bb, ab = sums / n
    assert row["null_mean"] == pytest.approx(abs(ab - a * b) / np.sqrt((aa - a * a) * (bb - b * b)))


def test_a_latent_that_never_varies_has_no_agreement():
    constant = np.full((N_TRIALS, N_BINS, 1), 3.0)
    varying = np.random.default_rng(7).normal(size=constant.shape)
    for running in (WHOLE, np.arange(N_BINS) <= np.arange(N_TRIALS)[:, None]):
        table = agreement({"a": varying, "b": constant}, ["spikes"], running)
        assert table[["agreement", "null_mean", "null_95"]].isna().all(axis=None)


def test_trials_without_a_bin_in_common_have_no_null():
    running = np.arange(20) < np.array([[20], [0]])
    rng = np.random.default_rng(0)
    latents = {fit: rng.normal(size=(2, 20, 1)) for fit in ((0, 0), (1, 0))}
    (row,) = agreement(latents, ("a",), running).to_dict("records")
    assert 0 <= row["agreement"] <= 1 and np.isnan(row["null_mean"]) and np.isnan(row["null_95"])
