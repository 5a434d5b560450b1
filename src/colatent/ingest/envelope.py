"""Raw EMG to its envelope: high-pass, rectify, low-pass, down-sample; block by block."""

from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from colatent.ingest.clocks import RegularClock, as_regular
from colatent.ingest.series import Series

ORDER = 4
# Samples of the envelope in one period of its low-pass corner: at their Nyquist frequency, five times
# the corner, the filter passes 2.6e-6 of the power, so that nothing folds back.
_OVERSAMPLING = 10
# Response of the filters beyond this many periods of their corner is below 1e-6 of its peak.
_MEMORY_PERIODS = 6.0


def envelope(series: Series, config: Any) -> Series:
    """Return the envelope of a raw EMG series as a series at a lower rate, computed when read.

    Both filters are Butterworth filters of order 4 run forwards and backwards, so without phase lag:
    their response to frequency f is 1 / (1 + (corner / f)^8), and 1 / (1 + (f / corner)^8). They are
    applied by overlap-save in the Fourier domain, the ends of the recording reflected.

    Args:
        series: raw EMG at a regular rate.
        config: `colatent.config.EnvelopeSettings`.

    Raises:
        ValueError: an irregular clock, or corners that the sampling rate cannot carry.
    """
    clock = as_regular(series.clock)
    if clock is None:
        raise ValueError("an envelope needs a regular sampling rate, and these timestamps are irregular")
    if not (config.highpass or 0.0) < clock.rate / 2 or 2 * config.lowpass > clock.rate:
        raise ValueError(
            f"corners {config.highpass} and {config.lowpass} Hz do not fit a sampling rate of {clock.rate:g} Hz"
        )
    factor = max(int(clock.rate / (_OVERSAMPLING * config.lowpass)), 1)
    slow = RegularClock(clock.start, clock.rate / factor, -(-clock.size // factor))
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

    def read(self, first: int, last: int) -> NDArray[np.float64]:
        """Envelope samples first to last - 1, (row, channel)."""
        raw = self._raw((first - self.margin) * self.factor, (last + self.margin) * self.factor)
        missing = np.isnan(raw)
        gaps = bool(missing.any())
        if gaps:
            raw[missing] = 0.0
        n = scipy.fft.next_fast_len(len(raw) // self.factor, real=True) * self.factor
        if self.highpass:
            spectrum = scipy.fft.rfft(raw, n, axis=0, overwrite_x=True)
            spectrum *= _passed(self._frequencies(n), self.highpass, -1)
            raw = scipy.fft.irfft(spectrum, n, axis=0, overwrite_x=True)
        np.abs(raw, out=raw)
        spectrum = scipy.fft.rfft(raw, n, axis=0, overwrite_x=True)[: n // self.factor // 2 + 1]
        spectrum *= _passed(self._frequencies(n)[: len(spectrum)], self.lowpass, 1)
        slow = scipy.fft.irfft(spectrum, n // self.factor, axis=0) / self.factor
        rows = slow[self.margin : self.margin + last - first]
        if gaps:
            whole = missing[: len(missing) // self.factor * self.factor]
            lost = whole.reshape(-1, self.factor, missing.shape[1]).any(axis=1)
            rows[lost[self.margin : self.margin + last - first]] = np.nan
        return rows

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

    def _frequencies(self, n: int) -> NDArray[np.float64]:
        return scipy.fft.rfftfreq(n, 1 / self.clock.rate)


def _passed(frequencies: NDArray[np.float64], corner: float, sign: int) -> NDArray[np.float64]:
    """Squared magnitude of a Butterworth low-pass (sign 1) or high-pass (sign -1), (frequency, 1)."""
    with np.errstate(divide="ignore"):
        return (1.0 / (1.0 + (frequencies / corner) ** (2.0 * ORDER * sign)))[:, None]
