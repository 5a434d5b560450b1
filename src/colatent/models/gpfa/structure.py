"""Which modalities see which latents, and with which delays."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from colatent.models.gpfa.delayed import Delays

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Structure:
    """The modalities of joined channels, and the latents that drive each.

    Attributes:
        modality: index of each channel's modality (channel,).
        drives: whether a latent drives a modality (modality, latent).
        longest_delay: bound of the delays' absolute value, bins; 0 for none.
        names: names of the modalities.
    """

    modality: NDArray[np.intp]
    drives: Mask
    longest_delay: float = 0.0
    names: tuple[str, ...] = ()

    @classmethod
    def of_groups(
        cls, n_channels: Mapping[str, int], latents: Mapping[str, int], longest_delay: float
    ) -> Self:
        """Return the structure for channels by modality and latents by group, such as spikes+emg."""
        rows = [
            [name in group.split("+") for group, n in latents.items() for _ in range(n)]
            for name in n_channels
        ]
        modality = np.repeat(np.arange(len(n_channels)), list(n_channels.values()))
        return cls(modality, np.array(rows), longest_delay, tuple(n_channels))

    @classmethod
    def of_one(cls, n_channels: int, n_latents: int) -> Self:
        """Return the structure of a single modality."""
        return cls(np.zeros(n_channels, dtype=np.intp), np.ones((1, n_latents), dtype=bool))

    def check(self, loading: NDArray[np.float64], delay: NDArray[np.float64]) -> None:
        """Raise ValueError unless loadings and delays are where they can be, and nowhere else."""
        if loading.shape != self.support.shape or loading[~self.support].any():
            raise ValueError("loading does not match the groups of latents")
        if delay.shape != self.drives.shape or not (np.isfinite(delay) == self.drives).all():
            raise ValueError("delay does not match the groups of latents")

    def at_longest(self, delay: NDArray[np.float64], bin_width: float) -> list[str]:
        """Return a sentence for each delay (modality, latent) in seconds that is as long as it may be."""
        far = self.delayed & (np.abs(delay) > 0.999 * self.longest_delay * bin_width)
        return [
            f"{self.names[m]} {'follows' if delay[m, k] > 0 else 'leads'} latent {k + 1} by the longest "
            f"delay allowed, {1e3 * self.longest_delay * bin_width:.0f} ms: it may be longer"
            for m, k in np.argwhere(far)
        ]

    @property
    def support(self) -> Mask:
        """Where loadings can differ from zero (channel, latent)."""
        return self.drives[self.modality]

    @property
    def delayed(self) -> Mask:
        """Where delays are learned (modality, latent): in all modalities of a group but its first."""
        first = self.drives.argmax(axis=0) == np.arange(len(self.drives))[:, None]
        return self.drives & ~first & (self.longest_delay > 0)

    @property
    def delays(self) -> Delays | None:
        """What blocks of trials must know of the delays; None without any."""
        return Delays(self.modality, self.longest_delay) if self.delayed.any() else None

    @property
    def groups(self) -> list[NDArray[np.intp]]:
        """The latents of each group, in the order of the latents."""
        keys = [column.tobytes() for column in self.drives.T]
        return [np.flatnonzero([key == other for other in keys]) for key in dict.fromkeys(keys)]


def joined(trials: Mapping[str, NDArray[np.float64]], names: Sequence[str]) -> NDArray[np.float64]:
    """Return the trials of all modalities as one array (trial, time, channel)."""
    return np.concatenate([trials[name] for name in names], axis=2)
