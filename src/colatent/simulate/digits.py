"""The simulation of the MM-GPVAE's paper (Gondur et al. 2024, section 4.1): neurons and a turning digit.

Three Gaussian processes of one time scale: z_s (variance 0.3) turns the digit by 120 degrees times
z_s and drives the neurons; z_n (0.5) drives only the neurons, of rate exp(W [z_n, z_s] + b) counts
per bin; z_b (0.8, mean 1) zooms the digit by |z_b|. The digits are scikit-learn's, of one class, a
different one in each frame: frames of the same turn and zoom still differ.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates
from sklearn.datasets import load_digits

from colatent.simulate.binned import Array, BinnedSimulation, cut_short, gaussian_process

SIDE = 36  # pixels
DIGIT = 3
WIDTH_AT_ZOOM_1 = 20.0  # pixels that the digit's 8 x 8 grid covers
TURN = np.deg2rad(120.0)  # per unit of z_s
GROUPS = ("spikes+images", "spikes", "images")
VARIANCES = (0.3, 0.5, 0.8)
ZOOM_MEAN = 1.0
BIN_WIDTH = 0.02  # seconds; the paper has bins only
SMALLEST_ZOOM = 0.02  # the digit is less than a pixel wide below it


class Gaps(NamedTuple):
    """What is missing of a session.

    Attributes:
        missing_frames: share of the frames that were not recorded.
        occluded_frames: share of the other frames of which a random quarter is hidden.
        shortest: length of the shortest trial as a share of the longest.
    """

    missing_frames: float = 0.0
    occluded_frames: float = 0.0
    shortest: float = 1.0


NO_GAPS = Gaps()


def simulate_digits(
    seed: int,
    n_trials: int = 300,
    n_bins: int = 60,
    n_units: int = 100,
    time_scale: float = 10.0,
    gaps: Gaps = NO_GAPS,
) -> BinnedSimulation:
    """Simulate one session; its latents are z_s, z_n and |z_b|, all that can be seen of z_b.

    Args:
        seed: of every random draw; each part draws from a stream of its own.
        n_trials, n_bins, n_units: sizes.
        time_scale: of the latents, bins.
        gaps: what was not recorded.
    """
    of_latents, of_spikes, of_images, of_gaps = np.random.default_rng(seed).spawn(4)
    z = gaussian_process(of_latents, n_trials, n_bins, time_scale, 3) * np.sqrt(VARIANCES)
    z[..., 2] += ZOOM_MEAN
    weight = 1.5 * of_spikes.uniform(-1, 1, (n_units, 2))
    rate = np.exp(z[..., [1, 0]] @ weight.T + 0.5 * of_spikes.uniform(-1, 1, n_units))
    images = draw_digits(of_images, z[..., 0], z[..., 2])
    images[_hidden(of_gaps, n_trials, n_bins, gaps)] = np.nan
    length = np.round(n_bins * of_gaps.uniform(gaps.shortest, 1.0, n_trials)).astype(np.int64)
    return BinnedSimulation(
        name="neurons and a digit that turns and zooms",
        seed=seed,
        bin_width=BIN_WIDTH,
        latents=np.concatenate([z[..., :2], np.abs(z[..., 2:])], axis=-1),
        latent_groups=GROUPS,
        time_scale=time_scale * BIN_WIDTH,
        values={
            "spikes": cut_short(of_spikes.poisson(rate).astype(np.float64), length),
            "images": cut_short(images.reshape(n_trials, n_bins, SIDE**2), length),
        },
        kinds={"spikes": "spikes", "images": "continuous"},
        units={"spikes": "counts", "images": "1"},
        expected={"spikes": rate},
    )


def draw_digits(rng: np.random.Generator, turn: Array, zoom: Array) -> Array:
    """Return frames (trial, time, SIDE, SIDE) of intensity 0 to 1, a random digit in each.

    Args:
        turn: z_s, (trial, time).
        zoom: z_b, (trial, time).
    """
    digits = load_digits()
    shapes = digits.images[digits.target == DIGIT] / 16
    size = shapes.shape[1]
    axis = np.arange(SIDE) - (SIDE - 1) / 2
    y, x = axis[:, None], axis[None, :]
    zoom = np.maximum(np.abs(zoom), SMALLEST_ZOOM)
    frames = np.empty((*turn.shape, SIDE, SIDE))
    for i in np.ndindex(turn.shape):
        angle = TURN * turn[i]
        step = size / (WIDTH_AT_ZOOM_1 * zoom[i])
        rows = step * (np.cos(angle) * y - np.sin(angle) * x) + (size - 1) / 2
        columns = step * (np.sin(angle) * y + np.cos(angle) * x) + (size - 1) / 2
        shape = shapes[rng.integers(len(shapes))]
        frames[i] = map_coordinates(shape, [rows, columns], order=1, mode="grid-constant")
    return frames


def _hidden(rng: np.random.Generator, n_trials: int, n_bins: int, gaps: Gaps) -> NDArray[np.bool_]:
    """Return which pixels were not recorded, (trial, time, SIDE, SIDE)."""
    hidden = np.zeros((n_trials, n_bins, SIDE, SIDE), dtype=bool)
    chance, corner = rng.random((n_trials, n_bins)), rng.integers(0, 2, (n_trials, n_bins, 2))
    upper = np.arange(SIDE) < SIDE // 2
    quarter = (upper == corner[..., :1])[..., :, None] & (upper == corner[..., 1:])[..., None, :]
    missing = gaps.missing_frames
    hidden |= (chance < missing)[..., None, None]
    hidden |= (chance < missing + (1 - missing) * gaps.occluded_frames)[..., None, None] & quarter
    return hidden
