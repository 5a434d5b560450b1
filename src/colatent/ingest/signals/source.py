"""Series on common bins: the source of every modality that is made of time series."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from colatent.ingest.alignment import Windows
from colatent.ingest.findings import Findings, check_continuous
from colatent.ingest.modalities.base import BinnedModality
from colatent.ingest.signals.resample import SMALL_BLOCKS, Reading, method, onto_bins
from colatent.ingest.signals.series import Series


@dataclass
class SeriesSource:
    """One or more series whose channels make one modality.

    Attributes:
        modality: its name in the config.
        series: each with its own clock.
        max_gap: longest gap to interpolate over, in sampling steps.
        reading: bounds of memory and threads.
        extent: begin and end of the time in which all series were recorded (ns).
    """

    modality: str
    series: list[Series]
    max_gap: float
    reading: Reading = SMALL_BLOCKS
    extent: tuple[int, int] = field(init=False)

    def __post_init__(self) -> None:
        extents = [s.extent for s in self.series]
        self.extent = max(e[0] for e in extents), min(e[1] for e in extents)

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the channels of all series."""
        return tuple(c for s in self.series for c in s.channels)

    def observe(self, windows: Windows, findings: Findings) -> BinnedModality:
        """Put all channels on the bins, then check them."""
        parts = [onto_bins(s, windows, self.max_gap, self.reading) for s in self.series]
        values = np.concatenate([v for v, _ in parts], axis=-1)
        observed = np.concatenate([o for _, o in parts], axis=-1)
        channels = self.channels
        if gaps := sum(s.clock.gaps for s in self.series if not s.held):
            findings.add(
                "clock-gaps",
                f"{gaps} gaps longer than {self.max_gap:g} sampling steps",
                self.modality,
                count=gaps,
            )
        _find_missing(self.modality, channels, observed, windows, findings)
        observed = check_continuous(self.modality, channels, values, observed, findings)
        values[~observed] = 0.0
        attrs = {
            "series": [s.attrs for s in self.series],
            "resampling": [method(s, windows) for s in self.series],
            "max_gap_steps": self.max_gap,
        }
        return BinnedModality(values, observed, channels, self.series[0].unit, attrs)


def _find_missing(
    modality: str,
    channels: tuple[str, ...],
    observed: NDArray[np.bool_],
    windows: Windows,
    findings: Findings,
) -> None:
    """Report how many bins within trials are not observed, and the channel that lacks most."""
    missing = (windows.inside[..., None] & ~observed).sum(axis=(0, 1))
    total = int(windows.inside.sum())
    partly = (missing > 0) & (missing < total)  # a channel never observed is another finding
    if partly.any():
        worst = int(np.argmax(np.where(partly, missing, -1)))
        findings.add(
            "missing-samples",
            f"{partly.sum()} channels lack some of the {total} bins within trials; most lacks "
            f"{channels[worst]} ({missing[worst] / total:.1%})",
            modality,
            count=int(missing[partly].sum()),
        )
