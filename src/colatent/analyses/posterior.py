"""Posterior of the latents in all trials."""

from collections import Counter

import xarray as xr

from colatent.analyses.analysed import AnalysedFit


def latent_posterior(fit: AnalysedFit) -> dict[str, xr.Dataset]:
    """Return the posterior ``mean`` and ``variance`` (trial, time, latent) given all modalities."""
    mean, variance = fit.latents
    count: Counter[str] = Counter()
    names = []
    for group in fit.groups:
        count[group] += 1
        names.append(f"{group} {count[group]}")
    dims = ("trial", "time", "latent")
    found = xr.Dataset(
        {"mean": (dims, mean), "variance": (dims, variance), "role": ("trial", fit.fold.role)},
        coords={"latent": names, "group": ("latent", list(fit.groups))},
        attrs={"given": "+".join(fit.model.modalities)},
    )
    return {"": found}
