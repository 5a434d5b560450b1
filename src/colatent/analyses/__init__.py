"""Analyses of a fit's latents, one file each."""

import xarray as xr

from colatent.analyses.analysed import AnalysedFit, Analysis, Found
from colatent.analyses.latent_summary import latent_summary
from colatent.analyses.posterior import latent_posterior
from colatent.analyses.recovery import recovery
from colatent.models.base import LatentModel
from colatent.store.session import Fold

ANALYSES = {
    analysis.name: analysis
    for analysis in (
        Analysis("latents", latent_posterior),
        Analysis("summary", latent_summary),
        Analysis("recovery", recovery, needs_truth=True),
    )
}


def analyse(model: LatentModel, fold: Fold, truth: xr.Dataset | None) -> dict[str, Found]:
    """Return the results of all analyses of a fitted model with latents, by analysis name."""
    fit = AnalysedFit(model, fold, truth)
    chosen = (a for a in ANALYSES.values() if truth is not None or not a.needs_truth)
    return {analysis.name: analysis.function(fit) for analysis in chosen}
