"""Do fits on other folds and from other seeds find the same latents?"""

from collections.abc import Hashable, Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
N_PERMUTATIONS = 200
NEGLIGIBLE = 1e-10  # of the largest singular value: a direction in which nothing varies


def canonical_correlations(x: Array, y: Array) -> Array:
    """Return the canonical correlations of two sets of variables, largest first.

    The singular values of Qx' Qy, where Q is an orthonormal basis of the centred columns
    (Björck & Golub 1973). Directions without variance are left out.

    Args:
        x: (observation, variable).
        y: (observation, other variable).
    """
    return _correlations(_basis(x), _basis(y))


def _basis(x: Array) -> Array:
    left, size, _ = np.linalg.svd(x - x.mean(axis=0), full_matrices=False)
    return left[:, size > NEGLIGIBLE * max(size[0], np.finfo(float).tiny)]


def _correlations(x: Array, y: Array) -> Array:
    return np.clip(np.linalg.svd(x.T @ y, compute_uv=False), 0.0, 1.0)


def agreement(
    latents: Mapping[Hashable, Array], groups: list[str], running: Mask, seed: int = 0
) -> pd.DataFrame:
    """Compare the latents of each fit with those of the first, group by group.

    Agreement is the mean canonical correlation over all bins of all trials, up to each trial's end:
    linear maps between the latents of a group do not count. The null permutes the trials of one of the
    fits, which keeps smoothness and what is common to all trials; it tells how much of the agreement
    comes from what differs between trials. Of two trials that a permutation pairs, it has the bins in
    which both run.

    Args:
        latents: fit -> posterior means (trial, time, latent), the same trials in all.
        groups: of each latent.
        running: (trial, time), False past a trial's end, where latents are not looked at.
        seed: of the permutations.

    Returns:
        One row a fit but the first and group: ``fit, group, agreement, null_mean, null_95`` (95th
        percentile of the null). NaN where nothing varies in one of the fits; the null is NaN where trials
        are too short, and too few, for a bin in common in every order.
    """
    order = np.random.default_rng(seed).permuted(
        np.tile(np.arange(len(running)), (N_PERMUTATIONS, 1)), axis=1
    )
    (_, first), *others = latents.items()
    rows = []
    for group in dict.fromkeys(groups):
        own = [k for k, g in enumerate(groups) if g == group]
        reference = _basis(first[running][:, own])
        for fit, mean in others:
            basis = _basis(mean[running][:, own])
            null = [_permuted(reference, basis, running, permuted) for permuted in order]
            rows.append(
                {
                    "fit": fit,
                    "group": group,
                    "agreement": _mean(_correlations(reference, basis)),
                    "null_mean": float(np.mean(null)),
                    "null_95": float(np.quantile(null, 0.95)),
                }
            )
    return pd.DataFrame(rows, columns=["fit", "group", "agreement", "null_mean", "null_95"])


def _permuted(x: Array, y: Array, running: Mask, order: NDArray[np.int_]) -> float:
    """Return the mean canonical correlation of x and y with the trials of y in another order.

    A time of the trial weighs as much as in the agreement itself, though fewer pairs of trials than
    trials run so long: else what all trials have in common late in a trial would be missing.

    Args:
        x, y: orthonormal bases of both fits, (running bin, direction).
        running: (trial, time).
        order: (trial,).
    """
    both = running & running[order]
    row = np.zeros(running.shape, dtype=int)
    row[running] = np.arange(len(x))
    partner = y[row[order][both]]
    if len(partner) == len(x):  # as with trials of one length: both stay orthonormal
        return _mean(_correlations(x, partner))
    if len(partner) < 2:  # too short, and too few, trials to compare at all
        return np.nan
    weight = running.sum(axis=0) / np.maximum(both.sum(axis=0), 1)
    joint = np.concatenate([x[row[both]], partner], axis=-1)
    return _weighted_correlation(joint, x.shape[-1], np.broadcast_to(weight, both.shape)[both])


def _weighted_correlation(joint: Array, n: int, weight: Array) -> float:
    """Return the mean canonical correlation of the first ``n`` columns with the others; weight (row,)."""
    covariance = np.atleast_2d(np.cov(joint, rowvar=False, aweights=weight))
    left, right = _whitener(covariance[:n, :n]), _whitener(covariance[n:, n:])
    return _mean(_correlations(left, covariance[:n, n:] @ right))


def _whitener(covariance: Array) -> Array:
    value, vector = np.linalg.eigh(covariance)
    kept = value > NEGLIGIBLE * value.max(initial=np.finfo(float).tiny)
    return vector[:, kept] / np.sqrt(value[kept])


def _mean(correlation: Array) -> float:
    return float(correlation.mean()) if len(correlation) else np.nan
