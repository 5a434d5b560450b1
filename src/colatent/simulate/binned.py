"""What simulations on a grid of bins have in common: latents drawn per trial from their GP prior."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class BinnedSimulation:
    """A simulated session on common bins; it is not a recording of an animal.

    Attributes:
        name: what it imitates, for the file's description.
        seed: what the session was drawn from; the same seed gives the same arrays.
        bin_width: seconds.
        latents: (trial, time, latent), as they drive the observations.
        latent_groups: (latent,) the modalities that each latent drives, as "spikes+images".
        time_scale: seconds, of the squared exponential kernel.
        values: modality -> (trial, time, channel): counts per bin for spikes; NaN where nothing
            was recorded.
        kinds: modality -> "spikes" or "continuous".
        units: modality -> physical unit of the values.
        expected: modality -> expected count or value given the latents, where it is known.
    """

    name: str
    seed: int
    bin_width: float
    latents: Array
    latent_groups: tuple[str, ...]
    time_scale: float
    values: Mapping[str, Array]
    kinds: Mapping[str, str]
    units: Mapping[str, str]
    expected: Mapping[str, Array]


def gaussian_process(
    rng: np.random.Generator, n_trials: int, n_bins: int, time_scale: float, n_latents: int
) -> Array:
    """Draw paths of unit variance, (trial, time, latent); ``time_scale`` in bins.

    Their covariance is exp(-lag^2 / 2 time_scale^2), each trial independent of the others.
    """
    lag = np.subtract.outer(np.arange(n_bins), np.arange(n_bins))
    variance, direction = np.linalg.eigh(np.exp(-0.5 * (lag / time_scale) ** 2))
    root = direction * np.sqrt(np.maximum(variance, 0.0))
    return np.einsum("tf,nfk->ntk", root, rng.standard_normal((n_trials, n_bins, n_latents)))


def cut_short(values: Array, length: NDArray[np.int64]) -> Array:
    """Return ``values`` (trial, time, channel), NaN past each trial's ``length`` (trial,) in bins."""
    return np.where(np.arange(values.shape[1])[None, :, None] < length[:, None, None], values, np.nan)
