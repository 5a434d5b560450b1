"""Raw EMG to its envelope: high-pass, rectify, low-pass, down-sample; block by block."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation
from scipy.signal import butter

from colatent.ingest.signals.biquads import filter_both_ways
from colatent.ingest.signals.clocks import RegularClock
from colatent.ingest.signals.grid import on_regular_grid
from colatent.ingest.signals.series import Series

ORDER = 4
# Samples of the envelope in one period of its low-pass corner: at their Nyquist frequency, five times
# the corner, the filter passes less than 2.6e-6 of the power, so that nothing aliases.
_OVERSAMPLING = 10
# Response of the filters beyond this many periods of their corner is below 1e-6 of its peak.
_MEMORY_PERIODS = 6.0
_MOST_BYTES = 4 * 2**30
# Raw rows that are filtered together, so that they stay in the processor's cache.
_TILE_ROWS = 40_000


def envelope(series: Series, config: Any) -> Series:
    """Return the envelope of a raw EMG series as a series at a lower rate, computed when read.

    Both filters are Butterworth filters of order 4 run forwards and backwards, so without phase lag,
    on blocks that overlap by more than the filters' memory. Each sample of the envelope is the mean of a
    run of filtered samples, at the time of the middle of that run. Bins whose edges lie between runs
    therefore get exactly the mean of all their samples; others are off by at most half a run. Gaps and
    missing samples are filtered as if at the mean, and the ends of the recording are reflected; within
    half a period of the low-pass from any of them, the envelope is missing.

    Args:
        series: raw EMG at a regular rate.
        config: `colatent.config.EnvelopeSettings`.

    Raises:
        ValueError: an irregular clock, or corners that the sampling rate cannot carry.
    """
    regular = on_regular_grid(series)
    if regular is None:
        raise ValueError(
            "an envelope needs a regular sampling rate, and these timestamps stray from any by more than 5 ms"
        )
    series, clock = regular, regular.clock
    assert isinstance(clock, RegularClock)
    if max(config.highpass or 0.0, config.lowpass) >= clock.rate / 2:
        raise ValueError(
            f"corners {config.highpass} and {config.lowpass} Hz do not fit a rate of {clock.rate:g} Hz"
        )
    factor = max(int(clock.rate / (_OVERSAMPLING * config.lowpass)), 1)
    middle = round((factor - 1) / 2 * clock.step)
    slow = RegularClock(clock.start + middle, clock.rate / factor, -(-clock.size // factor), clock.gaps)
    steps = [
        f"high-pass {config.highpass:g} Hz" if config.highpass else "no high-pass",
        "rectified",
        f"low-pass {config.lowpass:g} Hz",
        f"mean of every {factor} samples ({slow.rate:g} Hz)",
    ]
    filters = _Filters(series, clock, config.highpass, config.lowpass, factor)
    needed = (2 * filters.margin * factor + _TILE_ROWS) * (series.row_bytes + 8 * len(series.channels))
    if needed > _MOST_BYTES:
        raise ValueError(
            f"corners {config.highpass} and {config.lowpass} Hz reach so far back in {len(series.channels)} "
            f"channels at {clock.rate:g} Hz that {needed / 2**30:.3g} GiB would be held at a time"
        )
    return Series(
        slow,
        series.channels,
        series.unit,
        filters.read,
        4 * factor * series.row_bytes,
        {**series.attrs, "envelope": ", ".join(steps) + f"; Butterworth order {ORDER}, zero phase"},
    )


class _Filters:
    """Reads blocks of the envelope; holds nothing but settings."""

    def __init__(
        self, series: Series, clock: RegularClock, highpass: float | None, lowpass: float, factor: int
    ) -> None:
        self.series, self.clock, self.factor = series, clock, factor
        # The high-pass works in single precision, finer than any converter; the low-pass, whose poles
        # crowd round one, does not.
        self.highpass = None
        if highpass:
            self.highpass = butter(ORDER, highpass, "high", fs=clock.rate, output="sos").astype(np.float32)
        self.lowpass = butter(ORDER, lowpass, "low", fs=clock.rate, output="sos")
        memory = _MEMORY_PERIODS / lowpass + (_MEMORY_PERIODS / highpass if highpass else 0.0)
        self.margin = -(-int(memory * clock.rate) // factor)
        self.beside = round(0.5 / lowpass * clock.rate / factor)

    def read(self, first: int, last: int) -> NDArray[np.float32]:
        """Envelope samples first to last - 1, (row, channel)."""
        step = max(_TILE_ROWS // self.factor - 2 * self.margin, self.margin)
        out = np.empty((last - first, len(self.series.channels)), dtype=np.float32)
        for i in range(first, last, step):
            out[i - first : i - first + step] = self._tile(i, min(i + step, last))
        return out

    def _tile(self, first: int, last: int) -> NDArray[np.float32]:
        begin, end = (first - self.margin) * self.factor, (last + self.margin) * self.factor
        raw = self._raw(begin, end)
        finite = np.isfinite(raw)
        gaps = not finite.all()
        if gaps:  # filled with the mean, or the filters would ring at the edges of each gap
            count = np.maximum(finite.sum(axis=0), 1)
            level = np.where(finite, raw, 0.0).sum(axis=0, dtype=np.float64) / count
            raw = np.where(finite, raw, level.astype(raw.dtype))
        if self.highpass is None:
            emg = raw.astype(np.float32, copy=False)
        else:  # single precision must not be spent on an offset
            level = raw.mean(axis=0, dtype=np.float64).astype(raw.dtype)
            emg = (raw - level).astype(np.float32, copy=False)
            filter_both_ways(emg, self.highpass)
        np.abs(emg, out=emg)
        filter_both_ways(emg, self.lowpass)
        runs = emg.reshape(-1, self.factor, emg.shape[1])
        slow = np.einsum("rfc->rc", runs) / np.float32(self.factor)
        outside = begin < 0 or end > self.clock.size
        if gaps or outside:
            lost = ~finite.reshape(runs.shape).all(axis=1)
            if outside:
                at = begin + self.factor * np.arange(len(slow))
                lost |= ((at < 0) | (at + self.factor > self.clock.size))[:, None]
            slow[binary_dilation(lost, np.ones((2 * self.beside + 1, 1)))] = np.nan
        return slow[self.margin : self.margin + last - first]

    def _raw(self, first: int, last: int) -> NDArray[np.floating]:
        """Raw rows; those before the beginning and after the end are reflected."""
        size = self.clock.size
        low, high = max(first, 0), min(last, size)
        pad = (min(low - first, high - low - 1), min(last - high, high - low - 1))
        rows = self.series.read(low, high)
        if pad != (0, 0):
            rows = np.pad(rows, (pad, (0, 0)), mode="reflect")
        short = (low - first - pad[0], last - high - pad[1])
        return np.pad(rows, (short, (0, 0))) if short != (0, 0) else rows
