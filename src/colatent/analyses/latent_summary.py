"""What the latents of one fit are: time scales, loadings, and what each group explains where."""

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from colatent.data import metrics
from colatent.data.scaling import standard_deviation
from colatent.data.trials import Trials

Array = NDArray[np.float64]
LEVEL = 0.95  # of the intervals of time scales


def latent_summary(
    model: Any, modalities: tuple[str, ...], training: Trials, test: Trials
) -> dict[str, xr.Dataset]:
    """Return the groups ``latent``, ``explained`` and ``loading/{modality}`` of one fit.

    ``latent`` holds the learned ``time_scale`` (s, dim latent) of models that have one, and the ends
    ``time_scale_low`` and ``time_scale_high`` of its interval, and the ``time_scale_maximum`` in it: NaN
    where the model has none, 0 and infinite where it is open (see `GPFA.time_scale_interval`). ``loading``
    (channel, latent) is what one prior s.d. of a latent adds to a channel, in the unit of its attribute.
    ``explained`` (group, modality) is R² over all bins of the test trials, pooled over channels in units
    of their training s.d., given all modalities: ``alone`` with the posterior means of the other groups'
    latents replaced by their prior mean, ``unique`` is what is lost if those of this group are replaced.
    NaN where a group does not drive a modality.

    Args:
        model: a fitted model that has latents.
        modalities: those it describes, all given to inference.
        training, test: trials of the fold.
    """
    if hasattr(model, "decode"):  # MM-GPVAE, whose module loads PyTorch, which others can do without
        mean = model.latents(test, modalities)[0]
        loading = {m: model.loading(mean, m) for m in modalities}
        explained = _explained(model, mean, modalities, training, test)
        unit = {m: f"{model.decoded_unit(m)} per s.d. of the latent" for m in modalities}
        scale: Array | None = model.time_scales()
    else:
        (name,) = modalities
        state = model.state()
        loading = {name: state["loading"]}
        explained = _whole(model, name, training, test)
        unit = {name: _gaussian_unit(model, name)}
        scale = state.get("time_scale")
    groups = {
        f"loading/{m}": xr.Dataset(
            {"loading": (("channel", "latent"), value)},
            coords={"channel": list(training.channels[m])},
            attrs={"unit": unit[m]},
        )
        for m, value in loading.items()
    }
    if scale is not None:
        groups["latent"] = _time_scales(model, scale, training)
    return groups | {"explained": explained}


def _time_scales(model: Any, scale: Array, training: Trials) -> xr.Dataset:
    attrs: dict[str, Any] = {"units": "s"}
    variables = {"time_scale": ("latent", scale, attrs)}
    # that of the other models is only bounded, and a bound's profile is not the likelihood's
    interval = dict.fromkeys(("low", "high", "maximum"), np.full(len(scale), np.nan))
    if hasattr(model, "time_scale_interval"):
        from colatent.models.gpfa.time_scale_interval import (
            interval_drop,  # loads PyTorch, which the model has loaded
        )

        interval = model.time_scale_interval(training, LEVEL)._asdict()
        likelihood = "penalised" if model.penalised else "marginal"
        attrs = attrs | {"level": LEVEL, "drop": interval_drop(LEVEL), "likelihood": likelihood}
    variables |= {f"time_scale_{k}": ("latent", v, attrs) for k, v in interval.items()}
    return xr.Dataset(variables)


def _gaussian_unit(model: Any, modality: str) -> str:
    if getattr(model, "square_root", False):
        return "√(spikes per bin) per s.d. of the latent"
    return f"unit of {modality}, or log rate of a count model, per s.d. of the latent"


def _r2(prediction: Array, modality: str, scale: Array, test: Trials) -> float:
    return metrics.r2(test.values[modality], prediction, test.observed[modality], scale).pooled


def _explained(
    model: Any, mean: Array, modalities: tuple[str, ...], training: Trials, test: Trials
) -> xr.Dataset:
    groups = list(dict.fromkeys(model.latent_groups))
    of = np.array(model.latent_groups)
    alone, unique = np.full((2, len(groups), len(modalities)), np.nan)
    for j, modality in enumerate(modalities):
        scale = standard_deviation(training.values[modality], training.observed[modality])
        everything = _r2(model.decode(mean, modality), modality, scale, test)
        for i, group in enumerate(groups):
            if modality in group.split("+"):
                kept, lost = (np.where(of == group, mean, 0.0), np.where(of == group, 0.0, mean))
                alone[i, j] = _r2(model.decode(kept, modality), modality, scale, test)
                unique[i, j] = everything - _r2(model.decode(lost, modality), modality, scale, test)
    return _dataset(alone, unique, groups, modalities)


def _whole(model: Any, modality: str, training: Trials, test: Trials) -> xr.Dataset:
    """A model of one group explains what it reconstructs, and nobody else could."""
    scale = standard_deviation(training.values[modality], training.observed[modality])
    value = _r2(model.predict(test.only((modality,)), (modality,), modality).mean, modality, scale, test)
    return _dataset(np.array([[value]]), np.array([[value]]), [modality], (modality,))


def _dataset(alone: Array, unique: Array, groups: list[str], modalities: tuple[str, ...]) -> xr.Dataset:
    dims = ("group", "modality")
    return xr.Dataset(
        {"alone": (dims, alone), "unique": (dims, unique)},
        coords={"group": groups, "modality": list(modalities)},
        attrs={"unit": "R² in test trials"},
    )
