"""Build models from their sections of the config.

A model's code is imported when first needed, so that a job for one model does not load the others.
"""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from colatent.config.models import ModelSettings
from colatent.data.trials import Layout
from colatent.errors import InputError
from colatent.models.base import State
from colatent.models.fitting import FittedModel
from colatent.models.readout.decoding import Decoder
from colatent.store.stores import DamagedStoreError
from colatent.store.tensors import SUFFIX


def model_class(settings: ModelSettings) -> Any:
    """Import and return the class of a model (`colatent.models.base.Model`)."""
    module, name = settings.record.code.split(":")
    return getattr(import_module(module), name)


def make_model(settings: ModelSettings, layout: Layout, device: str = "cpu") -> Any:
    """Return an unfitted model (`colatent.models.base.Model`).

    Args:
        settings: a section under ``models``.
        layout: layout of the session's trials.
        device: "cpu" or "cuda".
    """
    return model_class(settings)(settings, layout, device)


def load_model(
    settings: ModelSettings, layout: Layout, state: State, device: str = "cpu", fit: str | Path | None = None
) -> Any:
    """Rebuild a fitted model (`colatent.models.base.Model`) from its arrays.

    Args:
        settings, layout, device: see `make_model`.
        state: arrays of the fit.
        fit: the store that holds the arrays, for messages.

    Raises:
        InputError: the arrays are not those of such a fit.
    """
    cls = model_class(settings)
    try:
        return cls.from_state(settings, layout, state, device)
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise _damaged(settings, "state", error, fit) from error


def load_fit(
    settings: ModelSettings, layout: Layout, tensors: Mapping[str, State], fit: str | Path | None = None
) -> FittedModel:
    """Rebuild a fitted model with its read-outs on the CPU.

    Args:
        settings, layout: see `make_model`.
        tensors: `FittedModel.tensors` of the fit.
        fit: the store of the fit, for messages.

    Raises:
        InputError: the tensors are not those of such a fit.
    """
    model = load_model(settings, layout, tensors["state"], fit=fit)
    if not settings.record.has_latents:
        return FittedModel(model)
    try:
        return FittedModel(model, Decoder.from_state(model, layout, tensors.get("decoding", {})))
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise _damaged(settings, "decoding", error, fit) from error


def _damaged(settings: ModelSettings, tensors: str, error: Exception, fit: str | Path | None) -> InputError:
    what = f"{tensors}{SUFFIX} does not hold what such a fit learns ({error})"
    if fit is None:
        return InputError(f"a fit of {settings.kind}: {what}; rerun this model's fits")
    return DamagedStoreError(Path(fit), what)
