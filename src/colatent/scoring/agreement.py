"""Do fits on other folds and from other seeds find the same latents?"""

from collections.abc import Hashable, Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Array = NDArray[np.float64]
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
    latents: Mapping[Hashable, Array], groups: list[str], running: NDArray[np.bool_], seed: int = 0
) -> pd.DataFrame:
    """Compare the latents of each fit with those of the first, group by group.

    Agreement is the mean canonical correlation over all bins and trials: linear maps between the
    latents of a group do not count. The null permutes the trials of one of the fits, which keeps
    smoothness and what is common to all trials; it tells how much of the agreement comes from what
    differs between trials.

    Args:
        latents: fit -> posterior means (trial, time, latent), the same trials in all.
        groups: of each latent.
        running: (trial, time), False past a trial's end, where latents are taken to be zero.
        seed: of the permutations.

    Returns:
        One row a fit but the first and group: ``fit, group, agreement, null_mean, null_95`` (95th
        percentile of the null).
    """
    order = np.random.default_rng(seed).permuted(
        np.tile(np.arange(len(running)), (N_PERMUTATIONS, 1)), axis=1
    )
    (_, first), *others = latents.items()
    rows = []
    for group in dict.fromkeys(groups):
        own = [k for k, g in enumerate(groups) if g == group]
        reference = _basis(_flat(first[..., own], running))
        for fit, mean in others:
            basis = _basis(_flat(mean[..., own], running))
            by_trial = basis.reshape(*running.shape, -1)
            null = [_correlations(reference, by_trial[o].reshape(basis.shape)).mean() for o in order]
            rows.append(
                {
                    "fit": fit,
                    "group": group,
                    "agreement": float(_correlations(reference, basis).mean()),
                    "null_mean": float(np.mean(null)),
                    "null_95": float(np.quantile(null, 0.95)),
                }
            )
    return pd.DataFrame(rows, columns=["fit", "group", "agreement", "null_mean", "null_95"])


def _flat(mean: Array, running: NDArray[np.bool_]) -> Array:
    return np.where(running[..., None], mean, 0.0).reshape(-1, mean.shape[-1])
