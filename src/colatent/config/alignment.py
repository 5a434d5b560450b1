"""The section ``alignment``: how trials, or windows of a continuous recording, are cut."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Self

from pydantic import Discriminator, Field, Tag, model_validator

from colatent.config.settings import BinWidth, Positive, Seconds, Settings


class TrialAlignment(Settings):
    """Trials cut from a table of intervals in the NWB file."""

    has_trials: ClassVar[bool] = True
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

    has_trials: ClassVar[bool] = False
    condition: ClassVar[None] = None
    window: Positive = Field(le=1e7, description="length of a window (s)")
    gap: float = Field(ge=0, le=1e7, description="time left out between windows (s)")
    bin_width: BinWidth = Field(description="bin width (s)")

    @model_validator(mode="after")
    def _window_holds_bins(self) -> Self:
        if self.window < self.bin_width:
            raise ValueError(f"window {self.window} s holds no bin of {self.bin_width} s")
        return self


# keys that only an alignment to trials has
_TRIAL_KEYS = set(TrialAlignment.model_fields) - set(ContinuousAlignment.model_fields)
_CONTINUOUS = "continuous recording"


def _alignment_kind(value: Any) -> str:
    if isinstance(value, Mapping):
        lengths = {"window", "gap"} & set(value) and not isinstance(value.get("window"), list | tuple)
        return _CONTINUOUS if lengths and not _TRIAL_KEYS & set(value) else "trials"
    return "trials" if isinstance(value, TrialAlignment) else _CONTINUOUS


Alignment = Annotated[
    Annotated[TrialAlignment, Tag("trials")] | Annotated[ContinuousAlignment, Tag(_CONTINUOUS)],
    Discriminator(_alignment_kind),
]
