"""The one definition of the configuration: Pydantic models of its sections.

The JSON schema and the reference table in ``config/README.md`` are generated from these models.
"""

from colatent.config.analysis import (
    Config,
    Distributed,
    Heldout,
    LearningCurve,
    Simulation,
    Truth,
)
from colatent.config.models import (
    COUNT_LIKELIHOODS,
    ConditionMean,
    GPFAModel,
    LagRegression,
    LatentModel,
    MLPLags,
    MMGPVAEModel,
    Model,
    RidgeLags,
    SmoothedFA,
)
from colatent.config.recording import (
    Alignment,
    ContinuousAlignment,
    ContinuousModality,
    EnvelopeSettings,
    Modality,
    PoseModality,
    SpikesModality,
    TrialAlignment,
)
from colatent.config.settings import Settings

__all__ = [
    "COUNT_LIKELIHOODS",
    "Alignment",
    "ConditionMean",
    "Config",
    "ContinuousAlignment",
    "ContinuousModality",
    "Distributed",
    "EnvelopeSettings",
    "GPFAModel",
    "Heldout",
    "LagRegression",
    "LatentModel",
    "LearningCurve",
    "MLPLags",
    "MMGPVAEModel",
    "Modality",
    "Model",
    "PoseModality",
    "RidgeLags",
    "Settings",
    "Simulation",
    "SmoothedFA",
    "SpikesModality",
    "TrialAlignment",
    "Truth",
]
