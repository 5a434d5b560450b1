"""What the latents of one fit are: time scales, loadings, and what each group explains where."""

import numpy as np
import xarray as xr

from colatent.analyses.analysed import AnalysedFit
from colatent.data import metrics
from colatent.data.scaling import standard_deviation
from colatent.data.trials import Trials
from colatent.models.base import Array, LatentModel, LatentSummary


def latent_summary(fit: AnalysedFit) -> dict[str, xr.Dataset]:
    """Return the groups ``latent``, ``explained`` and ``loading/{modality}`` of one fit.

    ``latent`` holds the learned ``time_scale`` (s, dim latent) of models that have one, and the ends
    ``time_scale_low`` and ``time_scale_high`` of its interval, and the ``time_scale_maximum`` in it: NaN
    where the model has none, 0 and infinite where it is open (see `GPFA.time_scale_interval`). ``loading``
    (channel, latent) is what one prior s.d. of a latent adds to a channel, in the unit of its attribute.
    ``explained`` (group, modality) is R² over all bins of the test trials, pooled over channels in units
    of their training s.d., given all modalities: ``alone`` with the posterior means of the other groups'
    latents replaced by their prior mean, ``unique`` is what is lost if those of this group are replaced.
    NaN where a group does not drive a modality.
    """
    model, training, test = fit.model, fit.fold.training, fit.fold.test
    mean = model.latents(test, model.modalities)[0]
    found = model.summary(mean)
    groups = {
        f"loading/{m}": xr.Dataset(
            {"loading": (("channel", "latent"), value)},
            coords={"channel": list(training.channels[m])},
            attrs={"unit": f"{found.unit[m]} per s.d. of the latent"},
        )
        for m, value in found.loading.items()
    }
    if found.time_scale is not None:
        groups["latent"] = _time_scales(found, found.time_scale)
    several = len(model.modalities) > 1
    explained = _explained(model, mean, training, test) if several else _whole(model, training, test)
    return groups | {"explained": explained}


def _time_scales(found: LatentSummary, scale: Array) -> xr.Dataset:
    unknown = dict.fromkeys(("low", "high", "maximum"), np.full(len(scale), np.nan))
    attrs = {"units": "s"}
    variables = {"time_scale": ("latent", scale, attrs)}
    for end, value in (unknown | dict(found.interval)).items():
        variables[f"time_scale_{end}"] = ("latent", value, attrs | dict(found.interval_attrs))
    return xr.Dataset(variables)


def _r2(prediction: Array, modality: str, scale: Array, test: Trials) -> float:
    return metrics.r2(test.values[modality], prediction, test.observed[modality], scale).pooled


def _explained(model: LatentModel, mean: Array, training: Trials, test: Trials) -> xr.Dataset:
    groups = list(dict.fromkeys(model.latent_groups))
    alone, unique = np.full((2, len(groups), len(model.modalities)), np.nan)
    for j, modality in enumerate(model.modalities):
        scale = standard_deviation(training.values[modality], training.observed[modality])
        everything = _r2(model.decode(mean, modality), modality, scale, test)
        for i, group in enumerate(groups):
            if modality in group.modalities:
                own = np.array([g == group for g in model.latent_groups])
                kept, lost = np.where(own, mean, 0.0), np.where(own, 0.0, mean)
                alone[i, j] = _r2(model.decode(kept, modality), modality, scale, test)
                unique[i, j] = everything - _r2(model.decode(lost, modality), modality, scale, test)
    return _dataset(alone, unique, [group.name for group in groups], model.modalities)


def _whole(model: LatentModel, training: Trials, test: Trials) -> xr.Dataset:
    """A model of one modality, so of one group, explains what it reconstructs; no other group could."""
    (modality,) = model.modalities
    scale = standard_deviation(training.values[modality], training.observed[modality])
    value = _r2(model.predict(test.only((modality,)), (modality,), modality).mean, modality, scale, test)
    names = [model.latent_groups[0].name]
    return _dataset(np.array([[value]]), np.array([[value]]), names, (modality,))


def _dataset(alone: Array, unique: Array, groups: list[str], modalities: tuple[str, ...]) -> xr.Dataset:
    dims = ("group", "modality")
    return xr.Dataset(
        {"alone": (dims, alone), "unique": (dims, unique)},
        coords={"group": groups, "modality": list(modalities)},
        attrs={"unit": "R² in test trials"},
    )
