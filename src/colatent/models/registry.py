"""From a section of the config to a model.

A model's code is imported when it is first needed: a job for a baseline does not wait for that of others.
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
    """Return the class of a model (`colatent.models.base.Model`); its code is imported."""
    module, name = settings.record.code.split(":")
    return getattr(import_module(module), name)


def make_model(settings: ModelSettings, layout: Layout, device: str = "cpu") -> Any:
    """Return an unfitted model (`colatent.models.base.Model`).

    Args:
        settings: a section under ``models``.
        layout: what all trials of the session have in common.
        device: "cpu" or "cuda".
    """
    return model_class(settings)(settings, layout, device)


def load_model(
    settings: ModelSettings, layout: Layout, state: State, device: str = "cpu", fit: str | Path | None = None
) -> Any:
    """Rebuild a fitted model (`colatent.models.base.Model`) from its arrays.

    Args:
        fit: the store that holds the arrays, for messages.

    Raises:
        InputError: they are not the arrays of such a fit.
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
        tensors: of the store of the fit, see `FittedModel.tensors`.
        fit: the store, for messages.

    Raises:
        InputError: these are not the tensors of such a fit.
    """
    model = load_model(settings, layout, tensors["state"], fit=fit)
    if not settings.latent_groups:
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
