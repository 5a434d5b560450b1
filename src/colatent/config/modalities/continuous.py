"""The section on continuous signals."""

from typing import ClassVar, Literal

from pydantic import Field, field_validator

from colatent.config.modalities.base import ModalityKind, ModalitySettings
from colatent.config.settings import Positive, Settings


class EnvelopeSettings(Settings):
    """Raw EMG to envelope: band-pass, rectify, low-pass."""

    highpass: Positive | None = Field(40.0, description="high-pass corner (Hz)")
    lowpass: Positive = Field(10.0, description="corner of the envelope's low-pass (Hz)")


class ContinuousModality(ModalitySettings):
    """A continuous signal: calcium, EMG, force, position, any NWB time series."""

    record: ClassVar = ModalityKind(reader="colatent.ingest.modalities.continuous:READER")
    kind: Literal["continuous"]
    source: str = Field(description="path of the time series in the NWB file, or a glob over paths")
    channels: list[str] | None = Field(
        None,
        min_length=1,
        description="names of the channels, if the file has none; for a glob in the order cell_2, cell_10",
    )
    columns: list[int] | None = Field(None, description="columns to keep, counted from 0")
    where: str | None = Field(
        None,
        description="pandas query over the table of the channels' ROIs or electrodes, such as `iscell == 1`: "
        "channels to keep",
    )
    transpose: bool | None = Field(
        None,
        description="true if the file holds (channel, time) where NWB has (time, channel), false if it only "
        "looks so",
    )
    max_gap: Positive = Field(3.0, description="longest gap interpolated over, in sampling steps")
    envelope: EnvelopeSettings | None = Field(None, description="turn raw EMG into an envelope")
    clip: tuple[float, float] | None = Field(
        None, description="percentiles of the training trials that values are clipped to"
    )

    @field_validator("clip")
    @classmethod
    def _percentiles(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        if value is not None and not 0 <= value[0] < value[1] <= 100:
            raise ValueError(f"clip {list(value)} must be two percentiles, such as [0.5, 99.5]")
        return value
