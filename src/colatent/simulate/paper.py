"""Simulated stand-ins for the two recordings of the MM-GPVAE's paper (Gondur et al. 2024, section 4).

Neither is a recording of an animal. Each has the size and kinds of signals of the original recording, and
known latents of unit variance, some shared, some private.
"""

import numpy as np

from colatent.simulate.binned import Array, BinnedSimulation, gaussian_process

MUSCLES, PIXELS = 10, (8, 8)
MOTH_GROUPS = ("spikes+stimulus", "spikes+stimulus", "spikes", "stimulus")
FLY_GROUPS = ("calcium+limbs", "calcium+limbs", "calcium", "calcium", "limbs")
LIMB_COORDINATES = 16
FRAME = 0.2  # seconds per bin, fly
BIN = 0.02  # seconds per bin, moth
TRANSIENT = 3.0  # bins in which a calcium transient decays by 1/e


def simulate_fly(seed: int, n_trials: int = 318, n_bins: int = 35, n_units: int = 120) -> BinnedSimulation:
    """Simulate calcium of many ROIs and 16 limb coordinates: 318 trials of 35 bins by default.

    Calcium is the latents' drive convolved with an exponential transient, plus noise; limbs are a smooth
    non-linear function of their latents.
    """
    of_latents, of_calcium, of_limbs = np.random.default_rng(seed).spawn(3)
    time_scale = 5.0
    z = gaussian_process(of_latents, n_trials, n_bins, time_scale, len(FLY_GROUPS))
    drive = z[..., :4] @ (of_calcium.standard_normal((4, n_units)) / 2)
    decay = np.exp(-np.arange(n_bins) / TRANSIENT) * (1 - np.exp(-1 / TRANSIENT))
    earlier = np.subtract.outer(np.arange(n_bins), np.arange(n_bins))
    transient = np.where(earlier >= 0, decay[np.abs(earlier)], 0.0)
    calcium = np.einsum("ts,nsc->ntc", transient, drive)
    own = z[..., [0, 1, 4]]
    limbs = 4 * np.tanh(own @ (0.7 * of_limbs.standard_normal((3, LIMB_COORDINATES))))
    expected = {"calcium": calcium, "limbs": limbs}
    noise = {"calcium": (of_calcium, 0.5 * calcium.std()), "limbs": (of_limbs, 0.5)}
    return BinnedSimulation(
        name="a fly's calcium (many ROIs) and limb coordinates",
        seed=seed,
        bin_width=FRAME,
        latents=z,
        latent_groups=FLY_GROUPS,
        time_scale=time_scale * FRAME,
        values={m: _noisy(*noise[m], expected[m]) for m in expected},
        kinds={"calcium": "continuous", "limbs": "continuous"},
        units={"calcium": "dF/F", "limbs": "pixels"},
        expected=expected,
    )


def simulate_moth(
    seed: int, n_trials: int = 150, n_bins: int = 50, n_units: int = MUSCLES
) -> BinnedSimulation:
    """Simulate spikes of a moth's flight muscles and the moving visual stimulus it follows.

    The stimulus is a blob on 8 x 8 pixels; two latents that also drive the muscles set its position, and a
    private latent its brightness.
    """
    of_latents, of_spikes, of_stimulus = np.random.default_rng(seed).spawn(3)
    time_scale = 8.0
    z = gaussian_process(of_latents, n_trials, n_bins, time_scale, len(MOTH_GROUPS))
    weight = of_spikes.uniform(-1, 1, (3, n_units))
    rate = np.exp(z[..., :3] @ weight - 0.3)
    rows, columns = (np.linspace(-2, 2, n) for n in PIXELS)
    distance = (z[..., 0, None, None] - rows[:, None]) ** 2 + (z[..., 1, None, None] - columns) ** 2
    blob = np.exp(-distance) * np.exp(0.3 * z[..., 3, None, None])
    stimulus = blob.reshape(n_trials, n_bins, -1)
    return BinnedSimulation(
        name="a moth's flight muscles (spikes) and a moving visual stimulus",
        seed=seed,
        bin_width=BIN,
        latents=z,
        latent_groups=MOTH_GROUPS,
        time_scale=time_scale * BIN,
        values={
            "spikes": of_spikes.poisson(rate).astype(np.float64),
            "stimulus": _noisy(of_stimulus, 0.15, stimulus),
        },
        kinds={"spikes": "spikes", "stimulus": "continuous"},
        units={"spikes": "counts", "stimulus": "1"},
        expected={"spikes": rate, "stimulus": stimulus},
    )


def _noisy(rng: np.random.Generator, sd: float, expected: Array) -> Array:
    return expected + sd * rng.standard_normal(expected.shape)
