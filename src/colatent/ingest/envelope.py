"""Raw EMG to its envelope: high-pass, rectify, low-pass, down-sample; block by block."""

from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation

from colatent.ingest.clocks import RegularClock
from colatent.ingest.grid import on_regular_grid
from colatent.ingest.series import Series

ORDER = 4
# Samples of the envelope in one period of its low-pass corner: at their Nyquist frequency, five times
# the corner, the filter passes 2.6e-6 of the power, so that nothing folds back.
_OVERSAMPLING = 10
# Response of the filters beyond this many periods of their corner is below 1e-6 of its peak.
_MEMORY_PERIODS = 6.0
# Raw rows of one transform, which then stays in the processor's cache.
_TILE_ROWS = 2**14


def envelope(series: Series, config: Any) -> Series:
    """Return the envelope of a raw EMG series as a series at a lower rate, computed when read.

    Both filters are Butterworth filters of order 4 run forwards and backwards, so without phase lag:
    their response to frequency f is 1 / (1 + (corner / f)^8), and 1 / (1 + (f / corner)^8). They are
    applied by overlap-save in the Fourier domain, the ends of the recording reflected. Gaps and missing
    samples are filtered as zeros, so the envelope is missing up to half a period of the low-pass from
    them.

    Args:
        series: raw EMG at a regular rate.
        config: `colatent.config.EnvelopeSettings`.

    Raises:
        ValueError: an irregular clock, or corners that the sampling rate cannot carry.
    """
    regular = on_regular_grid(series)
    if regular is None:
        raise ValueError(
            "an envelope needs a regular sampling rate, and these timestamps are irregular between gaps too"
        )
    series, clock = regular, regular.clock
    assert isinstance(clock, RegularClock)
    if not (config.highpass or 0.0) < clock.rate / 2 or 2 * config.lowpass > clock.rate:
        raise ValueError(
            f"corners {config.highpass} and {config.lowpass} Hz do not fit a rate of {clock.rate:g} Hz"
        )
    factor = max(int(clock.rate / (_OVERSAMPLING * config.lowpass)), 1)
    slow = RegularClock(clock.start, clock.rate / factor, -(-clock.size // factor), clock.gaps)
    steps = [
        f"high-pass {config.highpass:g} Hz" if config.highpass else "no high-pass",
        "rectified",
        f"low-pass {config.lowpass:g} Hz",
        f"every {factor}th sample ({slow.rate:g} Hz)",
    ]
    filters = _Filters(series, clock, config.highpass, config.lowpass, factor)
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
        self.series, self.clock = series, clock
        self.highpass, self.lowpass, self.factor = highpass, lowpass, factor
        memory = _MEMORY_PERIODS / lowpass + (_MEMORY_PERIODS / highpass if highpass else 0.0)
        self.margin = -(-int(memory * clock.rate) // factor)
        self.beside = round(0.5 / lowpass * clock.rate / factor)

    def read(self, first: int, last: int) -> NDArray[np.float64]:
        """Envelope samples first to last - 1, (row, channel)."""
        step = max(_TILE_ROWS // self.factor, 1)
        tiles = [self._tile(i, min(i + step, last)) for i in range(first, last, step)]
        return np.concatenate(tiles) if tiles else np.empty((0, len(self.series.channels)))

    def _tile(self, first: int, last: int) -> NDArray[np.float64]:
        raw = self._raw((first - self.margin) * self.factor, (last + self.margin) * self.factor)
        missing = np.asarray(~np.isfinite(raw))
        gaps = bool(missing.any())
        if gaps:
            raw[missing] = 0.0
        # Single precision is finer than any converter; a channel's samples in a row make the FFT fast.
        emg = raw.astype(np.float32).T.copy()
        slow = self._filter(emg).T[self.margin : self.margin + last - first].astype(np.float64)
        if gaps:
            lost = np.asarray(missing.reshape(-1, self.factor, missing.shape[1]).any(axis=1))
            lost = binary_dilation(lost, np.ones((2 * self.beside + 1, 1)))
            slow[lost[self.margin : self.margin + last - first]] = np.nan
        return slow

    def _filter(self, emg: NDArray[np.float32]) -> NDArray[np.float32]:
        """High-pass, rectify, low-pass and keep every factor-th sample, (channel, row)."""
        n = scipy.fft.next_fast_len(emg.shape[1] // self.factor, real=True) * self.factor
        frequencies = scipy.fft.rfftfreq(n, 1 / self.clock.rate)
        if self.highpass:
            spectrum = scipy.fft.rfft(emg, n)
            spectrum *= _passed(frequencies, self.highpass, -1)
            emg = scipy.fft.irfft(spectrum, n, overwrite_x=True)
        spectrum = scipy.fft.rfft(np.abs(emg), n)[:, : n // self.factor // 2 + 1]
        spectrum *= _passed(frequencies[: spectrum.shape[1]], self.lowpass, 1)
        return scipy.fft.irfft(spectrum, n // self.factor) / np.float32(self.factor)

    def _raw(self, first: int, last: int) -> NDArray[np.float64]:
        """Raw rows; those before the beginning and after the end are reflected."""
        size = self.clock.size
        low, high = max(first, 0), min(last, size)
        pad = (min(low - first, high - low - 1), min(last - high, high - low - 1))
        rows = self.series.read(low, high)
        if pad != (0, 0):
            rows = np.pad(rows, (pad, (0, 0)), mode="reflect")
        short = (low - first - pad[0], last - high - pad[1])
        return np.pad(rows, (short, (0, 0))) if short != (0, 0) else rows


def _passed(frequencies: NDArray[np.float64], corner: float, sign: int) -> NDArray[np.float32]:
    """Squared magnitude of a Butterworth low-pass (sign 1) or high-pass (sign -1), (frequency,)."""
    with np.errstate(divide="ignore"):
        return (1.0 / (1.0 + (frequencies / corner) ** (2.0 * ORDER * sign))).astype(np.float32)
