"""Time series of a file: channels on one clock, read in blocks of rows."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from colatent.ingest.nwb.file import dataset, name_of, neurodata_type, number, text, wrong
from colatent.ingest.nwb.tables import rows_of_channels, select_rows
from colatent.ingest.signals.clocks import ALWAYS, Clock, kept_rows, read_clock

_AXES = ("x", "y", "z")
_MUCH_LONGER = 10  # recordings have at least so many times as many samples as channels
# types that derive from series of values, or look like them
_NOT_SIGNALS = {
    "AnnotationSeries": "texts at moments",
    "IndexSeries": "numbers of pictures",
    "SpikeEventSeries": "snippets round spikes",
    "LabeledEvents": "numbers of labels of events",
    "TTLs": "numbers of labels of pulses",
    "Events": "moments without values",
}
_MOST_CHANNELS = 10**7


@dataclass(frozen=True)
class Series:
    """Channels on one clock.

    Attributes:
        clock: times of the rows.
        channels: names.
        unit: physical unit of what `read` returns.
        read: (first, last) -> rows first to last - 1, floating (row, channel), NaN where missing; no
            closure, so that it can be sent to another process.
        row_bytes: memory that reading takes per row, by which blocks are bounded.
        attrs: what was done, JSON-compatible.
        held: whether each value holds until the next sample, as a state does; else the signal is smooth.
        outside: value of a held signal before its first sample and after its last, NaN if unknown.
    """

    clock: Clock
    channels: tuple[str, ...]
    unit: str
    read: Callable[[int, int], NDArray[np.floating]]
    row_bytes: int
    attrs: dict[str, Any] = field(default_factory=dict)
    held: bool = False
    outside: float = math.nan

    @property
    def extent(self) -> tuple[int, int]:
        """Begin and end of the time in which its values are known (ns)."""
        return self.clock.extent if math.isnan(self.outside) else ALWAYS


class Transposed:
    """Data that a file holds as (channel, time), read as (time, channel)."""

    def __init__(self, data: h5py.Dataset) -> None:
        self.data, self.shape, self.dtype, self.attrs = data, data.shape[::-1], data.dtype, data.attrs

    def __len__(self) -> int:
        return int(self.shape[0])

    def __getitem__(self, rows: slice) -> NDArray:
        return self.data[..., rows].T


def samples(group: h5py.Group, transpose: bool = False) -> "h5py.Dataset | Transposed":
    """Return the data of a series, (time, channel, ...)."""
    data = group["data"]
    return Transposed(data) if transpose and data.ndim > 1 else data


def open_series(
    node: h5py.Group,
    columns: list[int] | None,
    max_gap: float,
    dtype: type[np.floating] = np.float64,
    transpose: bool | None = None,
    drop_times: bool = False,
) -> Series:
    """Return a TimeSeries (or any of its kinds) with `conversion` and `offset` applied.

    Args:
        node: group of the series, or an interface that holds exactly one.
        columns: positions of the channels to keep, or None for all; pixels of images are counted row by row.
        max_gap: longest gap in sampling steps, for the count of clock gaps.
        dtype: precision of what is read.
        transpose: whether the file holds (channel, time), see `require_series`.
        drop_times: drop samples whose time is not finite or does not increase.

    Raises:
        InputError: not a series, no data or clock, lengths that differ, video kept outside the file.
    """
    group = require_series(node, transpose)
    data = samples(group, bool(transpose))
    clock = read_clock(group, data.shape[0], max_gap, drop_times)
    width = math.prod(data.shape[1:])
    kept = kept_columns(group, columns, transpose=transpose)
    scale, offset = _conversion(group, data.shape)
    if not (np.isfinite(scale[kept]) & (scale[kept] != 0)).all():
        raise wrong(group, "a factor in its channel_conversion is 0 or not finite", "correct the file")
    factor = scale[kept].astype(dtype)
    marks = neurodata_type(group) == "IntervalSeries"  # n > 0 where an interval begins, -n where it ends
    held = marks or _continuity(data) == "step"
    return Series(
        clock,
        tuple(np.array(_channel_names(group, data.shape[1:]))[kept].tolist()),
        text(data.attrs.get("unit", "")),
        partial(_rows_of, _states(data, clock.rows), kept)
        if marks
        else partial(_read, data, clock.rows, None if columns is None else kept, factor, offset),
        width * (data.dtype.itemsize + np.dtype(dtype).itemsize),
        {"path": str(group.name).strip("/"), "rate_hz": 1e9 / clock.step, "clock": type(clock).__name__},
        held,
        0.0 if marks else math.nan,
    )


def _continuity(data: h5py.Dataset) -> str:
    return text(data.attrs.get("continuity", ""))


def _read(
    data: h5py.Dataset | Transposed,
    wanted: NDArray[np.int64] | None,
    kept: NDArray[np.intp] | None,
    factor: NDArray[np.floating],
    offset: float,
    first: int,
    last: int,
) -> NDArray[np.floating]:
    """Return physical values of rows first to last - 1, (row, channel), in the precision of the factors."""
    rows = kept_rows(data, wanted, first, last).reshape(last - first, math.prod(data.shape[1:]))
    rows = (rows if kept is None else rows[:, kept]).astype(factor.dtype)
    if (factor != 1).any():
        rows *= factor
    if offset:
        rows += factor.dtype.type(offset)
    return rows


def _states(data: h5py.Dataset | Transposed, wanted: NDArray[np.int64] | None) -> NDArray[np.float64]:
    """Return what a series of intervals says from each row on, (row, 1): the kind that began last, or 0."""
    on: list[int] = []
    states = np.zeros((len(data) if wanted is None else len(wanted), 1))
    for row, mark in enumerate(np.ravel(kept_rows(data, wanted, 0, len(states))).tolist()):
        on = [kind for kind in on if kind != abs(mark)] + ([mark] if mark > 0 else [])
        states[row] = on[-1] if on else 0
    return states


def _rows_of(
    values: NDArray[np.float64], kept: NDArray[np.intp], first: int, last: int
) -> NDArray[np.floating]:
    return values[first:last, kept]


def kept_columns(
    group: h5py.Group,
    columns: list[int] | None,
    where: str | None = None,
    transpose: bool | None = None,
) -> NDArray[np.intp]:
    """Return the positions of the channels to keep: all, or those given, that a query keeps.

    Args:
        where: a query over the table of the channels' ROIs or electrodes.
        transpose: whether the file holds (channel, time).
    """
    width = math.prod(samples(group, bool(transpose)).shape[1:])
    kept = np.arange(width) if columns is None else np.asarray(columns, dtype=np.intp)
    if kept.size == 0 or kept.min() < 0 or kept.max() >= width or len(set(kept.tolist())) < len(kept):
        raise wrong(
            group, f"columns {columns} are not all different and among its {width}", "count columns from 0"
        )
    if where is None:
        return kept
    described = rows_of_channels(group)
    if described is None or len(described[1]) != width:
        raise wrong(group, "no table describes its channels", "leave out `where`, or use `columns`")
    table, frame = described
    kept = kept[np.isin(kept, select_rows(table, frame, where))]
    if kept.size == 0:
        raise wrong(group, f"none of columns {columns} is kept by {where!r}", "change one of them")
    return kept


def check_names(names: list[str], n_channels: int, node: h5py.Group) -> None:
    """Raise InputError unless there is one name for each channel, each different."""
    if len(names) != n_channels or len(set(names)) != n_channels:
        raise wrong(node, f"{len(names)} names for {n_channels} channels", "give each channel its own name")


def require_series(node: h5py.Group | h5py.Dataset, transpose: bool | None = None) -> h5py.Group:
    """Return the group of a TimeSeries that holds numeric data.

    Args:
        transpose: whether the file holds (channel, time) where NWB has (time, channel); None if it is not
            known, so that data that look like it are refused.

    Raises:
        InputError: saying what is missing.
    """
    if not isinstance(node, h5py.Group):
        raise wrong(node, "this is a dataset, not a series", f"give {node.parent.name.strip('/')}")
    if "data" not in node and "external_file" not in node:
        inside = [child for child in node.values() if is_series(child)]
        if len(inside) == 1:
            return require_series(inside[0], transpose)
        if inside:
            names = ", ".join(name_of(child) for child in inside)
            raise wrong(node, f"it holds {len(inside)} series", f"name one of {names}, or use a glob")
        raise wrong(node, "there is no data in it", "choose a time series that holds data")
    if "external_file" in node and ("data" not in node or dataset(node, "data").size == 0):
        raise wrong(node, "its frames lie in a video file", "only data inside the file are read")
    data = dataset(node, "data")
    if data.shape is None or data.ndim == 0 or data.size == 0:
        raise wrong(node, "its data are empty", "only data inside the file are read")
    if data.dtype.kind not in "biuf":
        raise wrong(data, f"its data are {data.dtype}, not numbers", "choose another series")
    if (width := math.prod(data.shape[1:])) > _MOST_CHANNELS:
        raise wrong(data, f"{width} channels are more than fit in memory", "choose another series")
    _refuse_events(node, data)
    conversion, offset = _scaling(data)
    if not (np.isfinite(conversion) and np.isfinite(offset)) or conversion == 0:
        raise wrong(data, f"its conversion is {conversion:g} and its offset {offset:g}", "correct the file")
    if transpose is None and _looks_transposed(node, data):
        raise wrong(
            node,
            f"its data are {data.shape[0]} x {data.shape[1]}, as if channels came before time",
            "set `transpose: true`, or `transpose: false` if time does come first",
        )
    n_samples = samples(node, bool(transpose)).shape[0]
    if "timestamps" in node and dataset(node, "timestamps").shape != (n_samples,):
        shape = " x ".join(map(str, node["timestamps"].shape or (0,)))
        raise wrong(
            node, f"{shape} timestamps for {n_samples} samples", "the series is damaged: repair the file"
        )
    if "timestamps" not in node and "starting_time" not in node:
        raise wrong(node, "there are neither timestamps nor a starting_time", "a series needs a clock")
    return node


def _refuse_events(node: h5py.Group, data: h5py.Dataset) -> None:
    """Raise InputError if nothing is known between the samples of a series, or they are no values."""
    kind, above = neurodata_type(node), neurodata_type(node.parent)
    is_marks = kind == "IntervalSeries"
    if is_marks and data.dtype.kind == "u":
        raise wrong(data, f"it holds {data.dtype}, but ends of intervals are negative", "repair the file")
    if kind in _NOT_SIGNALS:
        raise wrong(
            node, f"it is a {kind}, {_NOT_SIGNALS[kind]}", "choose a series that is sampled over time"
        )
    instantaneous = _continuity(data) == "instantaneous" and "timestamps" in node
    if (instantaneous or above == "BehavioralEvents") and not is_marks:
        raise wrong(
            node,
            "its values are instantaneous, so that nothing is known between them",
            "choose a series that is continuous or a step signal",
        )


def _looks_transposed(node: h5py.Group, data: h5py.Dataset) -> bool:
    """Whether data are longer along the second dimension, and nothing says that these are channels."""
    if data.ndim < 2 or data.shape[0] == data.shape[-1]:
        return False
    if "timestamps" in node:  # they say which it is
        return bool(dataset(node, "timestamps").shape == data.shape[-1:] != data.shape[:1])
    if data.ndim > 2:
        return False
    names = ("rois", "electrodes", "channel_conversion")
    named = [node[name].shape for name in names if isinstance(node.get(name), h5py.Dataset)]
    if named and (data.shape[1:] in named) != (data.shape[:1] in named):
        return data.shape[:1] in named
    return bool(_MUCH_LONGER * data.shape[0] < data.shape[1])


def is_series(node: h5py.Group | h5py.Dataset) -> bool:
    """Return whether an object is a series (it holds data or frames, and a clock)."""
    return isinstance(node, h5py.Group) and (
        ("data" in node and ("timestamps" in node or "starting_time" in node)) or "external_file" in node
    )


def _conversion(group: h5py.Group, shape: tuple[int, ...]) -> tuple[NDArray[np.float64], float]:
    """Factor of each channel, (channel,), and offset: physical = data * factor + offset."""
    conversion, offset = _scaling(group["data"])
    width = math.prod(shape[1:])
    scale = np.full(width, conversion)
    if "channel_conversion" in group and group["channel_conversion"].shape is not None:
        column = dataset(group, "channel_conversion")
        if column.dtype.kind not in "biuf":
            raise wrong(column, f"it holds {column.dtype}, not numbers", "repair the series")
        factors = np.ravel(column[()]).astype(np.float64)
        if factors.shape != (shape[1:2] or (1,)):  # without a second dimension, all is one channel
            raise wrong(
                group,
                f"{factors.size} factors in channel_conversion for {(*shape, 1)[1]} channels",
                "repair the series",
            )
        scale *= np.repeat(factors, width // len(factors))  # further dimensions lie within a channel
    return scale, offset


def _scaling(data: h5py.Dataset) -> tuple[float, float]:
    """The attributes `conversion` and `offset`."""
    stated = {name: value for name, value in data.attrs.items() if not isinstance(value, h5py.Empty)}
    conversion, offset = stated.get("conversion", 1.0), stated.get("offset", 0.0)
    return number(conversion, data, "conversion"), number(offset, data, "offset")


def _ids(region: h5py.Dataset) -> NDArray:
    """Return the ids of the rows in a DynamicTableRegion, or the row numbers if its table is missing."""
    rows = region[:]
    try:
        ids = region.file[region.attrs["table"]]["id"][:]
        return np.asarray(ids[rows]) if rows.min() >= 0 else rows
    except (KeyError, ValueError, TypeError, IndexError):
        return rows


def _channel_names(group: h5py.Group, shape: tuple[int, ...]) -> list[str]:
    """Names from ids of ROIs or electrodes, axes of positions, else the series' name and a number."""
    name = name_of(group)
    width = math.prod(shape)
    if width == 1:
        return [name]
    for region, word in (("rois", "roi"), ("electrodes", "electrode")):
        if region in group and dataset(group, region).shape == (width,):
            numbers = _ids(group[region]).tolist()
            if len(set(numbers)) == width:  # otherwise they do not identify channels
                return [f"{word}_{i}" for i in numbers]
    if len(shape) > 1:
        return [f"{name}_" + "_".join(map(str, at)) for at in np.ndindex(*shape)]
    if neurodata_type(group) in ("SpatialSeries", "PoseEstimationSeries") and width <= len(_AXES):
        return [f"{name}_{axis}" for axis in _AXES[:width]]
    return [f"{name}_{i:0{len(str(width - 1))}d}" for i in range(width)]
