"""Continuous modalities: calcium, EMG, force, position, images, and keypoints."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from colatent.ingest.alignment import Windows
from colatent.ingest.envelope import envelope
from colatent.ingest.findings import Findings, check_continuous
from colatent.ingest.nwb import (
    find,
    find_all,
    wrong,
)
from colatent.ingest.observations import Observations
from colatent.ingest.resample import (
    SMALL_BLOCKS,
    Reading,
    method,
    onto_bins,
)
from colatent.ingest.series import (
    Series,
    check_names,
    keypoints,
    open_series,
    require_series,
)


@dataclass
class ContinuousSource:
    """One or more series whose channels make one modality.

    Attributes:
        modality: its name in the config.
        series: each with its own clock.
        max_gap: longest gap to interpolate over, in sampling steps.
        reading: bounds of memory and threads.
        extent: time that all series were recorded in (ns).
    """

    modality: str
    series: list[Series]
    max_gap: float
    reading: Reading = SMALL_BLOCKS
    extent: tuple[int, int] = field(init=False)

    def __post_init__(self) -> None:
        extents = [s.clock.extent for s in self.series]
        self.extent = max(e[0] for e in extents), min(e[1] for e in extents)

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the channels of all series."""
        return tuple(c for s in self.series for c in s.channels)

    def observe(self, windows: Windows, findings: Findings) -> Observations:
        """Put all channels on the bins, then look at them."""
        parts = [onto_bins(s, windows, self.max_gap, self.reading) for s in self.series]
        values = np.concatenate([v for v, _ in parts], axis=-1)
        observed = np.concatenate([o for _, o in parts], axis=-1)
        channels = self.channels
        if gaps := sum(s.clock.gaps for s in self.series):
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
        return Observations(values, observed, channels, "continuous", self.series[0].unit, attrs)


def _find_missing(
    modality: str,
    channels: tuple[str, ...],
    observed: NDArray[np.bool_],
    windows: Windows,
    findings: Findings,
) -> None:
    """Say how many bins within trials have no observation, and in which channel most."""
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


def open_continuous(file: h5py.File, modality: str, config: Any, reading: Reading) -> ContinuousSource:
    """Open the series that a path or glob names.

    Args:
        file: the NWB file.
        modality: name of the modality.
        config: `colatent.config.ContinuousModality`.
        reading: bounds of memory and threads.

    Raises:
        InputError: no such path, no data, different units, or as many names as there are not channels.
    """
    nodes = [require_series(node) for node in find_all(file, config.source)]
    dtypes = [_precision(node) if config.envelope else np.float64 for node in nodes]
    series = [open_series(n, config.columns, config.max_gap, d) for n, d in zip(nodes, dtypes, strict=True)]
    if len({s.unit for s in series}) > 1:
        units = ", ".join(sorted({s.unit for s in series}))
        raise wrong(nodes[0], f"the series of {config.source} have different units ({units})", "split them")
    if config.envelope is not None:
        series = [_envelope(s, node, config.envelope) for s, node in zip(series, nodes, strict=True)]
    names = [name for s in series for name in s.channels]
    if config.channels is not None:
        series = _rename(series, config.channels, nodes[0])
    elif len(set(names)) < len(names):  # series of one name in several modules
        named = [
            f"{str(node.name).strip('/')}:{c}"
            for s, node in zip(series, nodes, strict=True)
            for c in s.channels
        ]
        series = _rename(series, named, nodes[0])
    return ContinuousSource(modality, series, config.max_gap, reading)


def _precision(node: h5py.Group) -> type[np.floating]:
    """Single precision where it holds the samples exactly: filters of long recordings take half the time."""
    data = node["data"]
    fits = data.dtype.itemsize <= (2 if data.dtype.kind in "iu" else 4)
    return np.float32 if fits and not data.attrs.get("offset", 0.0) else np.float64


def _envelope(series: Series, node: h5py.Group, config: Any) -> Series:
    try:
        return envelope(series, config)
    except ValueError as error:
        raise wrong(node, str(error), "change `envelope`, or leave it out") from error


def _rename(series: list[Series], names: list[str], node: h5py.Group) -> list[Series]:
    check_names(names, sum(len(s.channels) for s in series), node)
    rest = iter(names)
    return [replace(s, channels=tuple(next(rest) for _ in s.channels)) for s in series]


def open_pose(file: h5py.File, modality: str, config: Any, reading: Reading) -> ContinuousSource:
    """Open the keypoints of an ndx-pose PoseEstimation; frames of low confidence are missing.

    Args:
        file: the NWB file.
        modality: name of the modality.
        config: `colatent.config.PoseModality`.
        reading: bounds of memory and threads.

    Raises:
        InputError: no such path, or no such keypoint.
    """
    nodes = keypoints(find(file, config.source), config.keypoints)
    series = []
    for node in nodes:
        keypoint = open_series(node, None, config.max_gap)
        read = keypoint.read
        if "confidence" in node:
            read = partial(_confident, read, node["confidence"], config.min_confidence)
        attrs = {**keypoint.attrs, "min_confidence": config.min_confidence}
        series.append(replace(keypoint, read=read, attrs=attrs))
    return ContinuousSource(modality, series, config.max_gap, reading)


def _confident(
    read: Callable[[int, int], NDArray[np.floating]],
    confidence: h5py.Dataset,
    least: float,
    first: int,
    last: int,
) -> NDArray[np.floating]:
    """Return rows first to last - 1, NaN where the confidence is lower (or missing)."""
    rows = read(first, last)
    rows[~(confidence[first:last] >= least)] = np.nan
    return rows
