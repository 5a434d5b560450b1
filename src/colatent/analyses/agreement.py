"""Do fits on different folds and from different seeds find the same latents?"""

from collections.abc import Hashable, Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
N_PERMUTATIONS = 200
NEGLIGIBLE = 1e-10  # share of the largest singular value below which a direction has no variance


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
    """Compare the latents of each fit with the first fit's, group by group.

    Agreement is the mean canonical correlation over all bins up to each trial's end, so it is invariant
    to linear maps between the latents of a group. The null distribution permutes the trials of one fit,
    which preserves smoothness and structure common to all trials, and so isolates agreement on
    differences between trials. Each permuted pair of trials is compared in the bins in which both run.

    Args:
        latents: fit -> posterior means (trial, time, latent) of the same trials.
        groups: group of each latent.
        running: (trial, time), False past a trial's end, where latents are ignored.
        seed: seed of the permutations.

    Returns:
        One row per group and fit except the first: ``fit, group, agreement, null_mean, null_95`` (95th
        percentile of the null). NaN where the latents of a fit do not vary; the null is also NaN if trials
        are so short and few that some permutation leaves too few common bins.
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
    """Return the mean canonical correlation of x and y with the trials of y permuted.

    Fewer pairs of trials than single trials reach late times. Each time is therefore weighted as in the
    agreement itself, or the null would miss structure common to all trials late in the trial.

    Args:
        x, y: orthonormal bases of both fits, (running bin, direction).
        running: (trial, time).
        order: permutation (trial,).
    """
    both = running & running[order]
    row = np.zeros(running.shape, dtype=int)
    row[running] = np.arange(len(x))
    partner = y[row[order][both]]
    if len(partner) == len(x):  # trials of equal length: both bases stay orthonormal
        return _mean(_correlations(x, partner))
    if len(partner) < 2:  # trials too short and too few to compare
        return np.nan
    weight = running.sum(axis=0) / np.maximum(both.sum(axis=0), 1)
    joint = np.concatenate([x[row[both]], partner], axis=-1)
    return _weighted_correlation(joint, x.shape[-1], np.broadcast_to(weight, both.shape)[both])


def _weighted_correlation(joint: Array, n: int, weight: Array) -> float:
    """Return the mean canonical correlation of the first ``n`` columns with the rest; ``weight`` (row,)."""
    covariance = np.atleast_2d(np.cov(joint, rowvar=False, aweights=weight))
    left, right = _whitener(covariance[:n, :n]), _whitener(covariance[n:, n:])
    return _mean(_correlations(left, covariance[:n, n:] @ right))


def _whitener(covariance: Array) -> Array:
    value, vector = np.linalg.eigh(covariance)
    kept = value > NEGLIGIBLE * value.max(initial=np.finfo(float).tiny)
    return vector[:, kept] / np.sqrt(value[kept])


def _mean(correlation: Array) -> float:
    return float(correlation.mean()) if len(correlation) else np.nan
