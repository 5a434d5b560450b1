"""Sections on the models, one class for each kind, with its record."""

from typing import Annotated

from pydantic import Field

from colatent.config.models.base import COUNT_LIKELIHOODS, LatentGroup, ModelKind, ModelSettings, Size
from colatent.config.models.baselines import (
    ConditionMeanSettings,
    GRUSettings,
    LagRegressionSettings,
    MLPLagsSettings,
    OneModalitySettings,
    RidgeLagsSettings,
    SmoothedFASettings,
)
from colatent.config.models.gpfa import GPFASettings
from colatent.config.models.mmgpvae import MMGPVAESettings

# the kinds of models, in the order of the manual; the first that has latents heads a report
Model = Annotated[
    MMGPVAESettings
    | GPFASettings
    | SmoothedFASettings
    | ConditionMeanSettings
    | RidgeLagsSettings
    | MLPLagsSettings
    | GRUSettings,
    Field(discriminator="kind"),
]

__all__ = [
    "COUNT_LIKELIHOODS",
    "ConditionMeanSettings",
    "GPFASettings",
    "GRUSettings",
    "LagRegressionSettings",
    "LatentGroup",
    "MLPLagsSettings",
    "MMGPVAESettings",
    "Model",
    "ModelKind",
    "ModelSettings",
    "OneModalitySettings",
    "RidgeLagsSettings",
    "Size",
    "SmoothedFASettings",
]
