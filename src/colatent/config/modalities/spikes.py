"""The section on spike trains."""

from typing import ClassVar, Literal

from pydantic import Field

from colatent.config.modalities.base import ModalityKind, ModalitySettings


class SpikesModality(ModalitySettings):
    """Spike trains of a units table."""

    record: ClassVar = ModalityKind(reader="colatent.ingest.modalities.spikes:READER", counts=True)
    kind: Literal["spikes"]
    source: str = Field("units", description="path of the units table in the NWB file")
    where: str | None = Field(
        None, description="pandas query over the columns of units and of their electrodes: units to keep"
    )
    min_rate: float = Field(
        0.0, ge=0, description="lowest mean rate of a unit over the recording, test trials included (Hz)"
    )
