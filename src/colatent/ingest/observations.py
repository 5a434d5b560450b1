"""One modality of one session on the common bins."""

from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from colatent.ingest.alignment import Windows
from colatent.ingest.findings import Findings


@dataclass(frozen=True)
class Observations:
    """What was observed in every bin.

    Attributes:
        values: (trial, time, channel); zero, and without meaning, where not observed.
        observed: boolean, the same shape.
        channels: names of the channels.
        kind: "spikes" (counts) or "continuous".
        unit: physical unit of the values.
        attrs: what was done to get here, JSON-compatible.
    """

    values: NDArray[np.float64]
    observed: NDArray[np.bool_]
    channels: tuple[str, ...]
    kind: str
    unit: str
    attrs: dict[str, Any] = field(default_factory=dict)


class Source(Protocol):
    """A modality in its file, before it is put on bins."""

    @property
    def extent(self) -> tuple[int, int]:
        """First time and end of what was recorded (ns)."""
        ...

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of its channels."""
        ...

    def observe(self, windows: Windows, findings: Findings) -> Observations:
        """Put the modality on bins; what is doubtful goes to the findings."""
        ...
