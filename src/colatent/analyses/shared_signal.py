"""Whether a shared group is shared: what it predicts of each modality when inferred from the others alone."""

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from colatent.analyses.analysed import AnalysedFit, pooled_r2
from colatent.data.scaling import standard_deviation

N_PERMUTATIONS = 40


def shared_signal(fit: AnalysedFit) -> xr.Dataset | None:
    """Return, for each shared group and modality of it, the R² in test trials; None without shared groups.

    The latents are inferred from the group's other modalities, and those of all other groups are set to their
    prior mean. ``r2`` (group, modality) is that of the decoded modality, ``permuted`` (permutation, group,
    modality) that with the latents of permuted trials: what the mean time course over trials predicts.
    A model that is told the condition is told the right one. R² is pooled over channels in units of their
    training s.d.; NaN where a group does not drive a modality.
    """
    model, training, test = fit.model, fit.fold.training, fit.fold.test
    groups = [group for group in dict.fromkeys(model.latent_groups) if group.shared]
    if not groups:
        return None
    rng = np.random.default_rng(0)
    orders = [_cycle(test.n_trials, rng) for _ in range(N_PERMUTATIONS)]
    r2 = np.full((len(groups), len(model.modalities)), np.nan)
    permuted = np.full((N_PERMUTATIONS, *r2.shape), np.nan)
    for j, modality in enumerate(model.modalities):
        scale = standard_deviation(training.values[modality], training.observed[modality])
        for i, group in enumerate(groups):
            if modality not in group.modalities:
                continue
            given = tuple(m for m in model.modalities if m in group.modalities and m != modality)
            own = np.array([g == group for g in model.latent_groups])
            mean = np.where(own, model.latents_seen_by(modality, test.only(given), given), 0.0)
            r2[i, j], *permuted[:, i, j] = (
                pooled_r2(model.decode(mean[order], modality, test.condition), modality, scale, test)
                for order in [np.arange(test.n_trials), *orders]
            )
    return xr.Dataset(
        {"r2": (("group", "modality"), r2), "permuted": (("permutation", "group", "modality"), permuted)},
        coords={"group": [group.name for group in groups], "modality": list(model.modalities)},
        attrs={"unit": "R² in test trials"},
    )


def _cycle(n: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """Return a random permutation that keeps no trial in its place (one alone stays)."""
    order = rng.permutation(n)
    moved = np.empty(n, dtype=np.intp)
    moved[order] = np.roll(order, 1)
    return moved
