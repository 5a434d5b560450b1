"""Continuous modalities: calcium, EMG, force, position, images."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import h5py
import numpy as np

from colatent.config import ContinuousModality, EnvelopeSettings
from colatent.errors import InputError
from colatent.ingest.findings import Findings
from colatent.ingest.modalities.base import Candidate, ChannelInFile, FileGroups, Reader
from colatent.ingest.nwb.file import find_all, wrong
from colatent.ingest.nwb.tables import rows_of_channels
from colatent.ingest.signals.angles import without_wraps
from colatent.ingest.signals.clocks import NANOSECONDS
from colatent.ingest.signals.grid import on_regular_grid
from colatent.ingest.signals.series import (
    Series,
    check_names,
    is_series,
    kept_columns,
    open_series,
    require_series,
)

if TYPE_CHECKING:
    from colatent.ingest.signals.resample import Reading
    from colatent.ingest.signals.source import SeriesSource

_SAMPLE_ROWS = 10_000
_RAW_RATE = 500.0  # Hz


def select_columns(file: h5py.File, config: ContinuousModality) -> list[ChannelInFile]:
    """Return the columns of all series that the path or glob names."""
    nodes = [require_series(node, config.transpose) for node in find_all(file, config.source)]
    found = [
        (node, int(c))
        for node in nodes
        for c in kept_columns(node, config.columns, config.where, config.transpose)
    ]
    if config.channels is not None:
        check_names(config.channels, len(found), nodes[0])
    return found


def open_continuous(
    file: h5py.File, modality: str, config: ContinuousModality, findings: Findings, reading: "Reading"
) -> "SeriesSource":
    """Open the series that a path or glob names.

    Args:
        file: the NWB file.
        modality: name of the modality.
        config: which series, and which of its channels.
        findings: collects samples that were dropped; series are checked once they are on bins.
        reading: bounds of memory and threads.

    Raises:
        InputError: no such path, no data, different units, or not one name per channel.
    """
    from colatent.ingest.signals.source import SeriesSource  # dask, which checking a file does not need

    nodes = [require_series(node, config.transpose) for node in find_all(file, config.source)]
    dtypes = [_precision(node) if config.envelope else np.float64 for node in nodes]
    series = [
        open_series(node, _columns(node, config), config.max_gap, dtype, config.transpose, drops(findings))
        for node, dtype in zip(nodes, dtypes, strict=True)
    ]
    tell_dropped(series, modality, findings)
    if len({s.unit for s in series}) > 1:
        units = ", ".join(sorted({s.unit for s in series}))
        raise wrong(nodes[0], f"the series of {config.source} have different units ({units})", "split them")
    if config.envelope is not None:
        series = [_envelope(s, node, config.envelope) for s, node in zip(series, nodes, strict=True)]
    names = [name for s in series for name in s.channels]
    if config.channels is not None:
        series = _rename(series, config.channels, nodes[0])
    elif len(set(names)) < len(names):  # series with the same name in several modules
        named = [
            f"{str(node.name).strip('/')}:{c}"
            for s, node in zip(series, nodes, strict=True)
            for c in s.channels
        ]
        series = _rename(series, named, nodes[0])
    series = [without_wraps(s, node) for s, node in zip(series, nodes, strict=True)]
    return SeriesSource(modality, series, config.max_gap, reading)


def drops(findings: Findings) -> bool:
    """Whether samples are dropped whose time is not finite or does not increase."""
    return findings.action("timestamps") != "refuse"


def tell_dropped(series: Sequence[Series], modality: str, findings: Findings) -> None:
    """Add the number of samples that were dropped to the findings."""
    if count := sum(s.clock.dropped for s in series):
        message = f"{count} samples have a time that is not finite or not later than those before: dropped"
        findings.add("timestamps", message, modality, count=count)


def _columns(node: h5py.Group, config: ContinuousModality) -> list[int] | None:
    if config.where is None:
        return config.columns
    return kept_columns(node, config.columns, config.where, config.transpose).tolist()


def _precision(node: h5py.Group) -> type[np.floating]:
    """Return single precision if it holds the samples exactly, as filters then take half the time."""
    data = node["data"]
    fits = data.dtype.itemsize <= (2 if data.dtype.kind in "iu" else 4)
    return np.float32 if fits and not data.attrs.get("offset", 0.0) else np.float64


def _envelope(series: Series, node: h5py.Group, config: EnvelopeSettings) -> Series:
    from colatent.ingest.signals.envelope import envelope  # SciPy and Numba

    try:
        return envelope(series, config)
    except ValueError as error:
        raise wrong(node, str(error), "change `envelope`, or leave it out") from error


def _rename(series: list[Series], names: list[str], node: h5py.Group) -> list[Series]:
    check_names(names, sum(len(s.channels) for s in series), node)
    rest = iter(names)
    return [replace(s, channels=tuple(next(rest) for _ in s.channels)) for s in series]


def list_series(contents: FileGroups) -> Iterator[Candidate]:
    """Yield each series that is not a keypoint of a pose."""
    for path, group in contents.groups.items():
        if contents.types.get(path.rpartition("/")[0]) != "PoseEstimation" and is_series(group):
            yield describe_series(path, group)


def describe_series(path: str, group: h5py.Group) -> Candidate:
    """Describe a series; for raw EMG, propose an envelope."""
    settings = ContinuousModality(kind="continuous", source=path)
    try:
        series = open_series(group, None, settings.max_gap)
    except InputError as error:
        return Candidate(settings, problem=str(error).partition(": ")[2])
    if _is_raw_emg(path, series):
        settings = settings.model_copy(update={"envelope": EnvelopeSettings(highpass=40.0, lowpass=10.0)})
    return Candidate(
        settings,
        shape=" x ".join(map(str, group["data"].shape)),
        channels=len(series.channels),
        rate=NANOSECONDS / series.clock.step,
        unit=series.unit,
        gaps=series.clock.gaps,
        missing=_missing(series),
        extent=series.clock.extent,
        columns=() if (described := rows_of_channels(group)) is None else tuple(map(str, described[1])),
        joins=len(series.channels) == 1 and not set("*?[") & set(path),
    )


def _is_raw_emg(path: str, series: Series) -> bool:
    """Whether a series is called EMG, is too fast for an envelope, and has the clock that one needs."""
    fast = NANOSECONDS / series.clock.step >= _RAW_RATE
    return fast and bool(re.search("emg|muscle", path, re.I)) and on_regular_grid(series) is not None


def _missing(series: Series) -> str:
    """Return the share of NaN in the first rows, as scanning a whole raw file would take minutes."""
    rows = min(series.clock.size, _SAMPLE_ROWS)
    share = np.isnan(series.read(0, rows)).mean()
    whole = "" if rows == series.clock.size else f" of the first {rows} rows"
    return f"{share:.1%}{whole}" if share else ""


READER = Reader(select_columns, open_continuous, list_series)
