"""Summary of a fit's latents: time scales, loadings, and variance explained by each group."""

import numpy as np
import xarray as xr

from colatent.analyses.analysed import AnalysedFit, pooled_r2
from colatent.analyses.shared_signal import shared_signal
from colatent.data.scaling import standard_deviation
from colatent.data.trials import Trials
from colatent.models.base import Array, LatentModel, LatentSummary


def latent_summary(fit: AnalysedFit) -> dict[str, xr.Dataset]:
    """Return the groups ``latent``, ``explained`` and ``loading/{modality}`` of one fit.

    ``latent`` (absent for models without time scales) holds the learned ``time_scale`` (s, dim latent), the
    ends ``time_scale_low`` and ``time_scale_high`` of its confidence interval and the likelihood's maximum
    ``time_scale_maximum``: NaN for models without intervals; an open end is 0 or infinite (see
    `GPFA.time_scale_interval`). Models with delays have ``delay`` (s, dims modality and latent) there too,
    with the ``longest`` that the fit allowed as an attribute, and the interval's ``delay_low``,
    ``delay_high`` and ``delay_maximum``. ``loading`` (channel, latent) is the change in a channel per prior
    s.d. of a latent; attributes give its unit, and the modality's likelihood in words. ``explained`` (group,
    modality) is R² over all bins of the test trials given all modalities, pooled over channels in units of
    their training s.d.: ``alone`` sets the latents of all other groups to their prior mean; ``unique`` is
    the loss in R² from doing so to the group's own latents. NaN where a group does not drive a modality.
    ``shared``, for models with shared groups, is `shared_signal`.
    """
    model, training, test = fit.model, fit.fold.training, fit.fold.test
    mean = model.latents(test, model.modalities)[0]
    found = model.summary(mean)
    groups = {
        f"loading/{m}": xr.Dataset(
            {"loading": (("channel", "latent"), value)},
            coords={"channel": list(training.channels[m])},
            attrs={
                "unit": f"{found.unit[m]} per s.d. of the latent",
                "likelihood": found.likelihood.get(m, ""),
            },
        )
        for m, value in found.loading.items()
    }
    if found.time_scale is not None:
        groups["latent"] = _time_scales(found, found.time_scale)
    several = len(model.modalities) > 1
    explained = _explained(model, training, test) if several else _reconstructed(model, training, test)
    shared = shared_signal(fit)
    return groups | {"explained": explained} | ({} if shared is None else {"shared": shared})


def _time_scales(found: LatentSummary, scale: Array) -> xr.Dataset:
    unknown = dict.fromkeys(("low", "high", "maximum"), np.full(len(scale), np.nan))
    attrs = {"units": "s"}
    variables = {"time_scale": ("latent", scale, attrs)}
    for end, value in (unknown | dict(found.interval)).items():
        variables[f"time_scale_{end}"] = ("latent", value, attrs | dict(found.interval_attrs))
    if not found.delay:
        return xr.Dataset(variables)
    longest = {"longest": found.longest_delay}
    dims = ("modality", "latent")
    delays = {"delay": (dims, np.array(list(found.delay.values())), attrs | longest)}
    of_delays = attrs | dict(found.interval_attrs)
    delays |= {f"delay_{end}": (dims, value, of_delays) for end, value in found.delay_interval.items()}
    return xr.Dataset(variables | delays, coords={"modality": list(found.delay)})


def _explained(model: LatentModel, training: Trials, test: Trials) -> xr.Dataset:
    groups = list(dict.fromkeys(model.latent_groups))
    alone, unique = np.full((2, len(groups), len(model.modalities)), np.nan)
    for j, modality in enumerate(model.modalities):
        scale = standard_deviation(training.values[modality], training.observed[modality])
        mean = model.latents_seen_by(modality, test, model.modalities)
        everything = pooled_r2(model.decode(mean, modality, test.condition), modality, scale, test)
        for i, group in enumerate(groups):
            if modality in group.modalities:
                own = np.array([g == group for g in model.latent_groups])
                kept, lost = np.where(own, mean, 0.0), np.where(own, 0.0, mean)
                alone[i, j] = pooled_r2(model.decode(kept, modality, test.condition), modality, scale, test)
                unique[i, j] = everything - pooled_r2(
                    model.decode(lost, modality, test.condition), modality, scale, test
                )
    return _dataset(alone, unique, [group.name for group in groups], model.modalities)


def _reconstructed(model: LatentModel, training: Trials, test: Trials) -> xr.Dataset:
    """Return the reconstruction R² of a model of one modality, whose only group explains all of it."""
    (modality,) = model.modalities
    scale = standard_deviation(training.values[modality], training.observed[modality])
    value = pooled_r2(
        model.predict(test.only((modality,)), (modality,), modality).mean, modality, scale, test
    )
    names = [model.latent_groups[0].name]
    return _dataset(np.array([[value]]), np.array([[value]]), names, (modality,))


def _dataset(alone: Array, unique: Array, groups: list[str], modalities: tuple[str, ...]) -> xr.Dataset:
    dims = ("group", "modality")
    return xr.Dataset(
        {"alone": (dims, alone), "unique": (dims, unique)},
        coords={"group": groups, "modality": list(modalities)},
        attrs={"unit": "R² in test trials"},
    )
