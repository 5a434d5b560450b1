"""From a section of the config to a model.

Modules are imported where they are used: a job for a baseline need not wait for the others.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from colatent import config as settings
from colatent.data.trials import Trials
from colatent.errors import InputError
from colatent.store.stores import DamagedStoreError
from colatent.store.tensors import SUFFIX


def modalities_of(model: settings.Model, trials: Trials) -> tuple[str, ...]:
    """Return the modalities that a model describes, in the order of the session."""
    if isinstance(model, settings.OneModalitySettings):
        return (model.modality,)
    if isinstance(model, settings.MMGPVAESettings):
        return tuple(m for m in trials.modalities if m in model.modalities)
    return trials.modalities


def model_class_and_options(
    model: settings.Model, trials: Trials, time_locked: bool, device: str
) -> tuple[Any, dict[str, Any]]:
    """Return the class of a model and the options to make it with.

    Args:
        model: a section under ``models``.
        trials: trials of the session, for bin width, modalities and kinds.
        time_locked: False for windows of a continuous recording.
        device: "cpu", "cuda" or "auto".
    """
    return _class_and_options(model, trials, time_locked, device)


def _class_and_options(
    model: settings.Model, trials: Trials, time_locked: bool, device: str
) -> tuple[Any, dict[str, Any]]:
    match model:
        case settings.ConditionMeanSettings():
            from colatent.models.baselines.condition_mean import ConditionMean

            return ConditionMean, {"time_locked": time_locked}
        case settings.RidgeLagsSettings():
            from colatent.models.baselines.ridge_lags import RidgeLags

            options = {"modalities": trials.modalities, "lags": model.lags}
            return RidgeLags, options | {"time_locked": time_locked}
        case settings.MLPLagsSettings():
            from colatent.models.baselines.mlp_lags import MLPLags

            options = {"modalities": trials.modalities, **model.model_dump(exclude={"kind"})}
            return MLPLags, options | {"time_locked": time_locked}
        case settings.SmoothedFASettings():
            from colatent.models.baselines.smoothed_fa import SmoothedFA

            square_root = trials.kinds[model.modality] == "spikes"
            smoothing = model.smoothing / trials.bin_width
            return SmoothedFA, _latent_options(model, square_root) | {"smoothing": smoothing}
        case settings.GPFASettings():
            return _gpfa_class_and_options(model, trials)
        case settings.MMGPVAESettings():
            from colatent.models.mmgpvae.model import MMGPVAE

            return MMGPVAE, _mmgpvae_options(model, trials) | {"device": device}
    raise AssertionError(model)


def gpfa_likelihood(model: settings.GPFASettings, trials: Trials) -> str:
    """Return the likelihood that a GPFA has for the session at hand."""
    default = "gaussian-sqrt" if trials.kinds[model.modality] == "spikes" else "gaussian"
    return model.likelihood.get(model.modality, default)


def _gpfa_class_and_options(model: settings.GPFASettings, trials: Trials) -> tuple[Any, dict[str, Any]]:
    likelihood = gpfa_likelihood(model, trials)
    options: dict[str, Any] = {"bin_width": trials.bin_width, "kernel": model.kernel}
    if likelihood in settings.COUNT_LIKELIHOODS:
        from colatent.models.gpfa.count_model import CountGPFAPrediction

        latents = {"modality": model.modality, "n_latents": model.latents[model.modality]}
        return CountGPFAPrediction, latents | options | {"likelihood": likelihood}
    from colatent.models.gpfa.gaussian_model import GPFAReadout

    options["automatic_relevance"] = model.automatic_relevance
    return GPFAReadout, _latent_options(model, square_root=likelihood == "gaussian-sqrt") | options


def _latent_options(model: settings.OneModalitySettings, square_root: bool) -> dict[str, Any]:
    n_latents = model.latents[model.modality]
    return {"modality": model.modality, "n_latents": n_latents, "square_root": square_root}


def _mmgpvae_options(model: settings.MMGPVAESettings, trials: Trials) -> dict[str, Any]:
    spikes = {m: trials.kinds[m] == "spikes" for m in modalities_of(model, trials)}
    likelihood = {m: "poisson" if s else "gaussian" for m, s in spikes.items()} | model.likelihood
    decoder = {m: model.decoder_of(m, trials.kinds[m]) for m in spikes}
    options = model.model_dump(exclude={"kind", "likelihood", "decoder", "time_scale"})
    return options | {
        "likelihood": likelihood,
        "decoder": decoder,
        "bin_width": trials.bin_width,
        "time_scale": model.time_scale or 5 * trials.bin_width,
    }


def load_model(
    model: settings.Model,
    state: dict[str, np.ndarray],
    training: Trials,
    time_locked: bool,
    device: str,
    fit: str | Path | None = None,
) -> Any:
    """Rebuild a fitted model from its arrays and its training trials.

    Args:
        fit: the store that holds the arrays, for messages.

    Raises:
        InputError: they are not the arrays of such a fit.
    """
    cls, options = model_class_and_options(model, training, time_locked, device)
    try:
        _check_arrays(state, cls.state_shapes(options, training))
        if isinstance(model, settings.MMGPVAESettings):  # it needs no training trials: no read-out
            return cls.from_state(options, state)
        return cls.from_state(options, state, training)
    except (IndexError, TypeError, ValueError) as error:  # the latter ones: of the right shape, but absurd
        what = f"state{SUFFIX} does not hold what such a fit learns ({error})"
        if fit is None:
            raise InputError(f"a fit of {model.kind}: {what}; make this model's fits anew") from error
        raise DamagedStoreError(Path(fit), what) from error


def _check_arrays(state: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raise ValueError unless the arrays, but for a history, have these names and shapes and are finite."""
    names = {name for name in state if not name.startswith("history.")}
    if unlike := sorted(names ^ shapes.keys()):
        raise ValueError(f"{unlike[0]} is {'unknown' if unlike[0] in names else 'missing'}")
    for name, shape in shapes.items():
        if state[name].shape != shape:
            raise ValueError(f"{name} has the shape {state[name].shape}, not {shape}")
        if not np.isfinite(state[name]).all():
            raise ValueError(f"{name} is not finite")
