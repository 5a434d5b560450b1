"""The section on keypoints."""

from typing import ClassVar, Literal

from pydantic import Field

from colatent.config.modalities.base import ModalityKind, ModalitySettings
from colatent.config.settings import Positive


class PoseModality(ModalitySettings):
    """Keypoints of an ndx-pose PoseEstimation."""

    record: ClassVar = ModalityKind(reader="colatent.ingest.modalities.pose:READER")
    kind: Literal["pose"]
    source: str = Field(description="path of the PoseEstimation in the NWB file")
    min_confidence: float = Field(0.5, ge=0, le=1, description="frames below it count as not observed")
    keypoints: list[str] | None = Field(None, min_length=1, description="keypoints to keep, by name")
    max_gap: Positive = Field(3.0, description="longest gap interpolated over, in sampling steps")
    clip: None = None
