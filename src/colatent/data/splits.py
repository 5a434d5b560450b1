"""Which trials and channels are withheld from the models.

Everything estimated from data (clipping, standardisation, read-outs, alignment of latents) uses only
the training trials defined here.
"""

import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from colatent.data.trials import Trials
from colatent.errors import InputError

if TYPE_CHECKING:
    import xarray as xr

TRAINING, TEST, GUARD = 0, 1, 2
INNER_GUARD = 1  # windows


def split_trials(condition: NDArray[np.str_] | None, n_trials: int, folds: int, seed: int = 0) -> NDArray:
    """Return the role of each trial (fold, trial): shuffled folds, stratified by ``condition``."""
    check_enough_trials(n_trials, folds)
    role = np.full((folds, n_trials), TRAINING, dtype=np.int8)
    from sklearn.model_selection import KFold, StratifiedKFold  # slow to import, used only here

    splitter: type[KFold | StratifiedKFold] = KFold
    strata: NDArray = np.zeros(n_trials)
    if condition is not None:
        # scikit-learn handles rare conditions, but not if every condition has fewer trials than folds
        if (largest := np.unique(condition, return_counts=True)[1].max()) < folds:
            raise InputError(
                f"heldout.stratify: no condition has more than {largest} trials, too few for {folds} folds; "
                "lower heldout.folds, or leave stratify out"
            )
        splitter, strata = StratifiedKFold, condition
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The least populated class")
        chosen = list(splitter(folds, shuffle=True, random_state=seed).split(strata, strata))
    for fold, (_, test) in enumerate(chosen):
        role[fold, test] = TEST
    return role


def split_blocks(n_windows: int, folds: int, guard: int) -> NDArray:
    """Return the role of each window (fold, window): contiguous test blocks with ``guard`` windows beside."""
    check_enough_trials(n_windows, folds)
    role = np.full((folds, n_windows), TRAINING, dtype=np.int8)
    for fold, block in enumerate(np.array_split(np.arange(n_windows), folds)):
        role[fold, max(block[0] - guard, 0) : block[-1] + 1 + guard] = GUARD
        role[fold, block] = TEST
    if not (role == TRAINING).any(axis=1).all():
        raise InputError(
            f"heldout: {n_windows} windows in {folds} folds with a guard of {guard} leave none to train on; "
            "lower heldout.folds, heldout.guard or alignment.window"
        )
    return role


def inner_folds(
    n_trials: int, folds: int, time_locked: bool, seed: int = 0
) -> list[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Return (fit, held-out) indices of inner folds of the training trials, built like the outer folds.

    Trials are shuffled. Windows of a continuous recording (``time_locked=False``) stay in blocks with
    a guard beside them, so that hyper-parameters are not chosen on neighbours of the data fitted to.
    Too few trials give fewer folds, or none if even two are impossible.
    """
    guard = 0 if time_locked else INNER_GUARD
    folds = min(folds, n_trials // (1 + guard))
    if folds < 2:
        return []
    role = split_trials(None, n_trials, folds, seed) if time_locked else split_blocks(n_trials, folds, guard)
    return [(np.flatnonzero(row == TRAINING), np.flatnonzero(row == TEST)) for row in role]


def check_enough_trials(n_trials: int, folds: int) -> None:
    """Raise InputError if there are fewer trials than folds."""
    if n_trials < folds:
        raise InputError(
            f"heldout.folds = {folds}, but there are only {n_trials} trials; lower it, or keep more trials"
        )


def hidden_channels(n_channels: int, share: float, seeds: list[int], folds: int) -> NDArray[np.bool_]:
    """Draw the channels to hide for co-smoothing, boolean (seed, fold, channel)."""
    n_hidden = min(max(round(share * n_channels), 1), n_channels - 1)
    hidden = np.zeros((len(seeds), folds, n_channels), dtype=bool)
    for i, seed in enumerate(seeds):
        for fold in range(folds):
            chosen = np.random.default_rng([seed, fold]).permutation(n_channels)[:n_hidden]
            hidden[i, fold, chosen] = True
    return hidden


def make_split(
    trials: Trials, folds: int, stratify: bool, channels: Mapping[str, float], seeds: list[int], guard: int
) -> "dict[str, xr.Dataset]":
    """Return the groups of the split store: ``split`` and ``hidden/{modality}``."""
    import xarray as xr  # not for `check_enough_trials`, which the workflow's start asks

    if trials.time_locked:
        role = split_trials(trials.condition if stratify else None, trials.n_trials, folds)
    else:
        role = split_blocks(trials.n_trials, folds, guard)
    groups = {"split": xr.Dataset({"role": (("fold", "trial"), role)})}
    for modality, share in channels.items():
        n_channels = len(trials.channels[modality])
        if n_channels < 2:
            raise InputError(
                f"heldout.channels.{modality}: the modality has {n_channels} channel; at least 2 are needed"
            )
        hidden = hidden_channels(n_channels, share, seeds, folds)
        groups[f"hidden/{modality}"] = xr.Dataset(
            {"hidden": (("seed", "fold", "channel"), hidden)},
            coords={"seed": seeds, "channel": list(trials.channels[modality])},
        )
    return groups


def clip_to_training(
    trials: Trials, training: NDArray[np.bool_], percentiles: Mapping[str, tuple[float, float]]
) -> Trials:
    """Clip each channel to percentiles of its observed values in the training trials."""
    values = dict(trials.values)
    for modality, bounds in percentiles.items():
        observed = trials.observed[modality]
        seen = np.where(observed, values[modality], np.nan)[training]
        seen = np.where(np.isnan(seen).all(axis=(0, 1)), 0.0, seen)  # a channel never seen stays zero
        low, high = np.nanpercentile(seen, bounds, axis=(0, 1))
        values[modality] = np.where(observed, values[modality].clip(low, high), 0.0)
    return replace(trials, values=values)
