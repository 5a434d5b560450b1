"""Sections on the modalities, one class for each kind, with its record."""

from typing import Annotated

from pydantic import Field

from colatent.config.modalities.base import ModalityKind, ModalitySettings, require_known
from colatent.config.modalities.continuous import ContinuousModality, EnvelopeSettings
from colatent.config.modalities.pose import PoseModality
from colatent.config.modalities.spikes import SpikesModality

# the kinds of modalities, in the order of the manual and of `colatent inspect`
Modality = Annotated[SpikesModality | ContinuousModality | PoseModality, Field(discriminator="kind")]

__all__ = [
    "ContinuousModality",
    "EnvelopeSettings",
    "Modality",
    "ModalityKind",
    "ModalitySettings",
    "PoseModality",
    "SpikesModality",
    "require_known",
]
