"""Splits: nobody is in two roles, nothing of the test trials reaches the training side."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colatent.data.splits import (
    GUARD,
    TEST,
    TRAINING,
    clip_to_training,
    hidden_channels,
    inner_folds,
    split_blocks,
    split_trials,
)
from colatent.data.trials import Trials
from colatent.errors import InputError


@settings(deadline=None)  # the first call imports scikit-learn
@given(n_trials=st.integers(8, 60), folds=st.integers(2, 8), n_conditions=st.integers(1, 9))
def test_each_trial_is_tested_once_and_conditions_are_spread(n_trials, folds, n_conditions):
    condition = np.array([f"c{i % n_conditions}" for i in range(n_trials)])
    rare = np.unique(condition, return_counts=True)[1].max() < folds
    if rare:
        with pytest.raises(InputError, match="no condition has more than"):
            split_trials(condition, n_trials, folds)
    for labels in (None,) if rare else (None, condition):
        role = split_trials(labels, n_trials, folds)
        assert ((role == TEST).sum(axis=0) == 1).all()
        assert set(np.unique(role)) <= {TRAINING, TEST}
    for label in np.unique(condition):
        if not rare and (condition == label).sum() >= folds:
            per_fold = (role[:, condition == label] == TEST).sum(axis=1)
            assert per_fold.max() - per_fold.min() <= 1


@given(n=st.integers(12, 60), folds=st.integers(2, 4), guard=st.integers(0, 2))
def test_blocks_are_contiguous_and_guarded(n, folds, guard):
    role = split_blocks(n, folds, guard)
    assert ((role == TEST).sum(axis=0) == 1).all()
    for row in role:
        test, training = np.flatnonzero(row == TEST), np.flatnonzero(row == TRAINING)
        assert (np.diff(test) == 1).all()
        assert np.abs(test[:, None] - training[None]).min() == guard + 1
        assert ((row == GUARD).sum()) <= 2 * guard


@given(n=st.integers(1, 60), folds=st.integers(2, 10), time_locked=st.booleans())
def test_inner_folds_keep_windows_apart(n, folds, time_locked):
    pairs = inner_folds(n, folds, time_locked, seed=3)
    assert len(pairs) == (0 if n < (2 if time_locked else 4) else min(folds, n if time_locked else n // 2))
    if pairs:
        np.testing.assert_array_equal(np.sort(np.concatenate([held for _, held in pairs])), np.arange(n))
    for fit, held in pairs:
        assert len(fit)
        assert np.abs(held[:, None] - fit[None]).min() >= (1 if time_locked else 2)
        assert time_locked or (np.diff(held) == 1).all()


def test_too_few_trials_are_refused_in_a_sentence():
    with pytest.raises(InputError, match=r"heldout.folds = 5, but there are only 3 trials"):
        split_trials(None, 3, 5)
    with pytest.raises(InputError, match="leave none to train on"):
        split_blocks(3, 3, 2)


@given(n=st.integers(2, 80), share=st.floats(0.01, 0.99))
def test_some_channels_are_hidden_and_some_are_not(n, share):
    hidden = hidden_channels(n, share, [0, 7], 3)
    count = hidden.sum(axis=-1)
    assert (count == count[0, 0]).all()
    assert 1 <= count[0, 0] <= n - 1
    assert abs(count[0, 0] - share * n) <= 1


def make_trials(value: np.ndarray, observed: np.ndarray) -> Trials:
    names = tuple(f"c{i}" for i in range(value.shape[-1]))
    return Trials({"emg": value}, {"emg": observed}, {"emg": names}, {"emg": "continuous"}, 0.1)


def test_clipping_takes_its_bounds_from_observed_training_values_only():
    rng = np.random.default_rng(0)
    value = rng.normal(size=(10, 20, 3))
    observed = rng.random(value.shape) < 0.9
    observed[..., 2] = False
    training = np.arange(10) < 7
    value[8, 0, 0], observed[8, 0, 0] = 1e6, True  # an artefact in a test trial
    value[0, 0, 0], observed[0, 0, 0] = -1e6, False  # and one that was masked
    trials = make_trials(np.where(observed, value, 0.0), observed)
    clipped = clip_to_training(trials, training, {"emg": (5, 95)})
    for c in range(2):
        seen = value[training][..., c][observed[training][..., c]]
        low, high = np.percentile(seen, [5, 95])
        expected = np.where(observed[..., c], value[..., c].clip(low, high), 0.0)
        np.testing.assert_allclose(clipped.values["emg"][..., c], expected)
    assert (clipped.values["emg"][..., 2] == 0).all()
    changed = value.copy()
    changed[~training] += 100.0
    again = clip_to_training(
        make_trials(np.where(observed, changed, 0.0), observed), training, {"emg": (5, 95)}
    )
    np.testing.assert_array_equal(again.values["emg"][training], clipped.values["emg"][training])
