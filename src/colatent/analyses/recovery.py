"""How well a simulation's true latents are recovered in held-out trials."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from colatent.analyses.analysed import AnalysedFit
from colatent.data.splits import TEST, TRAINING

Array = NDArray[np.float64]


def recovery(fit: AnalysedFit) -> pd.DataFrame:
    """Return `latent_recovery` of a fit."""
    assert fit.truth is not None
    return latent_recovery(
        fit.latents[0],
        fit.groups,
        fit.truth["value"].values,
        fit.truth["observed"].values,
        tuple(map(str, fit.truth["group"].values)),
        fit.fold.role,
    )


def latent_recovery(
    inferred: NDArray[np.floating],
    inferred_groups: tuple[str, ...],
    truth: Array,
    observed: NDArray[np.bool_],
    truth_groups: tuple[str, ...],
    role: NDArray[np.integer],
) -> pd.DataFrame:
    """Return the R2 (test trials) of each true latent predicted from the inferred latents of its group.

    Latents are identified only up to an affine map, which is fitted to the training trials. If the model
    lacks the group (GPFA has one modality), all its latents are used.

    Args:
        inferred: posterior means (trial, time, latent) of all trials.
        inferred_groups: group of each inferred latent.
        truth: true latents (trial, time, latent).
        observed: where ``truth`` is known, the same shape.
        truth_groups: group of each true latent.
        role: role of each trial (trial,).

    Returns:
        One row for each true latent: ``group, latent, r2``.
    """
    from sklearn.linear_model import LinearRegression  # slow to import, and most recordings have no truth

    rows = []
    for k, group in enumerate(truth_groups):
        name = f"{group} {truth_groups[: k + 1].count(group)}"
        wanted = frozenset(group.split("+"))
        own = np.array([frozenset(g.split("+")) == wanted for g in inferred_groups])
        own = own if own.any() else np.ones_like(own)
        fit, held = (observed[..., k] & (role == r)[:, None] for r in (TRAINING, TEST))
        affine = LinearRegression().fit(inferred[fit][:, own], truth[fit][:, k])
        true = truth[held][:, k]
        error = ((true - affine.predict(inferred[held][:, own])) ** 2).sum()
        deviation = ((true - true.mean()) ** 2).sum()
        rows.append({"group": group, "latent": name, "r2": float(1 - error / deviation)})
    return pd.DataFrame(rows)
