"""Sections on a recording: how trials are cut, and where each modality lies in the file."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from colatent.config.settings import (
    BinWidth,
    Positive,
    Seconds,
    Settings,
)


class TrialAlignment(Settings):
    """Trials cut from a table of intervals in the NWB file."""

    intervals: str = Field("trials", description="NWB intervals table: `trials`, or a path in the file")
    start: str = Field("start_time", description="column that holds each trial's time zero (s)")
    stop: str | None = Field(
        "stop_time", description="column with each trial's end (s); not used with `window`"
    )
    window: tuple[Seconds, Seconds] | None = Field(
        None, description="fixed window round `start` (s), instead of `stop`"
    )
    pad: tuple[Seconds, Seconds] = Field(
        (0.0, 0.0), description="time added before `start` and after `stop` (s)"
    )
    bin_width: BinWidth = Field(description="bin width (s)")
    condition: str | None = Field(None, description="column that names each trial's condition")
    where: str | None = Field(None, description="pandas query over the table: trials to keep")

    @model_validator(mode="after")
    def _window_is_ordered(self) -> Self:
        if self.window is not None and self.window[1] <= self.window[0]:
            raise ValueError(f"window {list(self.window)} must be [earlier, later] in seconds")
        if self.window is None and self.stop is None:
            raise ValueError("give `stop` (a column) or `window` ([from, to] in seconds)")
        if self.window is not None and sum(self.pad) + self.window[1] - self.window[0] < self.bin_width:
            raise ValueError(f"window {list(self.window)} holds no bin of {self.bin_width} s")
        return self


class ContinuousAlignment(Settings):
    """A recording without trials, cut into windows with a guard gap between them."""

    window: Positive = Field(le=1e7, description="length of a window (s)")
    gap: float = Field(ge=0, le=1e7, description="time left out between windows (s)")
    bin_width: BinWidth = Field(description="bin width (s)")

    @model_validator(mode="after")
    def _window_holds_bins(self) -> Self:
        if self.window < self.bin_width:
            raise ValueError(f"window {self.window} s holds no bin of {self.bin_width} s")
        return self


# keys that only an alignment to trials has
_TRIAL_KEYS = {"intervals", "start", "stop", "pad", "condition", "where"}


def _alignment_kind(value: Any) -> str:
    if isinstance(value, Mapping):
        return "continuous" if {"window", "gap"} & set(value) and not _TRIAL_KEYS & set(value) else "trials"
    return "trials" if isinstance(value, TrialAlignment) else "continuous"


Alignment = Annotated[
    Annotated[TrialAlignment, Tag("trials")] | Annotated[ContinuousAlignment, Tag("continuous")],
    Discriminator(_alignment_kind),
]


class SpikesModality(Settings):
    """Spike trains of a units table."""

    kind: Literal["spikes"]
    source: str = Field("units", description="path of the units table in the NWB file")
    where: str | None = Field(None, description="pandas query over the units table: units to keep")
    min_rate: float = Field(
        0.0, ge=0, description="lowest mean rate of a unit over the recording, test trials included (Hz)"
    )


class EnvelopeSettings(Settings):
    """Raw EMG to envelope: band-pass, rectify, low-pass."""

    highpass: Positive | None = Field(40.0, description="high-pass corner (Hz)")
    lowpass: Positive = Field(10.0, description="corner of the envelope's low-pass (Hz)")


class ContinuousModality(Settings):
    """A continuous signal: calcium, EMG, force, position, any NWB time series."""

    kind: Literal["continuous"]
    source: str = Field(description="path of the time series in the NWB file, or a glob over paths")
    channels: list[str] | None = Field(
        None,
        min_length=1,
        description="names of the channels, if the file has none; those of a glob with cell_2 before cell_10",
    )
    columns: list[int] | None = Field(None, description="columns to keep, counted from 0")
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


class PoseModality(Settings):
    """Keypoints of an ndx-pose PoseEstimation."""

    kind: Literal["pose"]
    source: str = Field(description="path of the PoseEstimation in the NWB file")
    min_confidence: float = Field(0.5, ge=0, le=1, description="frames below it count as not observed")
    keypoints: list[str] | None = Field(None, min_length=1, description="keypoints to keep, by name")
    max_gap: Positive = Field(3.0, description="longest gap interpolated over, in sampling steps")
    clip: None = None


Modality = Annotated[SpikesModality | ContinuousModality | PoseModality, Field(discriminator="kind")]
