"""The one definition of the configuration: Pydantic models of its sections.

The JSON schema and the reference table in ``config/README.md`` are generated from these models.
"""

from colatent.config.alignment import Alignment, ContinuousAlignment, TrialAlignment
from colatent.config.analysis import Config, Distributed, Heldout, LearningCurve, Simulation, TruthSettings
from colatent.config.modalities import (
    ContinuousModality,
    EnvelopeSettings,
    Modality,
    ModalitySettings,
    PoseModality,
    SpikesModality,
)
from colatent.config.models import (
    COUNT_LIKELIHOODS,
    ConditionMeanSettings,
    GPFASettings,
    LagRegressionSettings,
    MLPLagsSettings,
    MMGPVAESettings,
    Model,
    OneModalitySettings,
    RidgeLagsSettings,
    SmoothedFASettings,
)
from colatent.config.settings import Settings

__all__ = [
    "COUNT_LIKELIHOODS",
    "Alignment",
    "ConditionMeanSettings",
    "Config",
    "ContinuousAlignment",
    "ContinuousModality",
    "Distributed",
    "EnvelopeSettings",
    "GPFASettings",
    "Heldout",
    "LagRegressionSettings",
    "LearningCurve",
    "MLPLagsSettings",
    "MMGPVAESettings",
    "Modality",
    "ModalitySettings",
    "Model",
    "OneModalitySettings",
    "PoseModality",
    "RidgeLagsSettings",
    "Settings",
    "Simulation",
    "SmoothedFASettings",
    "SpikesModality",
    "TrialAlignment",
    "TruthSettings",
]
