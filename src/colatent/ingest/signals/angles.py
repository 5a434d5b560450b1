"""Directions, which wrap round: means of, and lines between, 359 and 1 degrees are wrong."""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import h5py
import numpy as np
from numpy.typing import NDArray

from colatent.ingest.nwb.file import neurodata_type
from colatent.ingest.signals.series import Series

_RADIANS = {"deg": math.pi / 180, "rad": 1.0}  # per unit, by the first letters of its name


def without_wraps(series: Series, node: h5py.Group) -> Series:
    """Return cosine and sine of each channel of a CompassDirection; other series unchanged."""
    unit = next((size for word, size in _RADIANS.items() if series.unit.lower().startswith(word)), None)
    if unit is None or neurodata_type(node.parent) != "CompassDirection":
        return series
    return replace(
        series,
        channels=tuple(f"{c}_{part}" for c in series.channels for part in ("cos", "sin")),
        unit="",
        read=partial(_cos_and_sin, series.read, unit),
        row_bytes=2 * series.row_bytes,
        attrs={**series.attrs, "angles": f"cosine and sine of angles in {series.unit}"},
    )


def _cos_and_sin(
    read: Callable[[int, int], NDArray[np.floating]], radians: float, first: int, last: int
) -> NDArray[np.floating]:
    angle = radians * read(first, last)
    return np.stack([np.cos(angle), np.sin(angle)], axis=-1).reshape(len(angle), -1)
