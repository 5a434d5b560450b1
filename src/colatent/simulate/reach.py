"""A simulated recording of centre-out reaches: known latents, spikes, muscle activity and pose.

No animal was recorded. Six latents z(t) drive three modalities, each of which sees only the latents
of its own groups (``LATENT_GROUPS``):

    z_k(t) = sqrt(a) m_k(t, target) + sqrt(1 - a) g_k(t),   g_k ~ GP(0, exp(-lag^2 / 2 l_k^2))

    spikes:  Poisson process of rate exp(c_u . z(t) + d_u)                  Hz, unit u
    emg:     s softplus(w_m . z(t) + b_m) + noise                           mV, muscle m
    pose:    rest_j + V_j z(t) + noise                                      cm, keypoint j

The mean m_k = A_k(time in trial) phi_k(target) is what every reach to a target has in common (it
makes PSTHs), g_k is the variability from trial to trial. phi_k are different angular harmonics,
which are orthogonal over the targets, so that no group can be guessed from another's mean.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

Array = NDArray[np.float64]

LATENT_GROUPS = ("spikes+emg+pose", "spikes+emg+pose", "spikes", "spikes", "emg", "pose")
TIME_SCALES = (0.13, 0.16, 0.22, 0.25, 0.12, 0.15)  # seconds, one per latent
MUSCLES = (
    "anterior_deltoid",
    "posterior_deltoid",
    "pectoralis_major",
    "biceps_brachii",
    "triceps_brachii",
    "brachioradialis",
    "flexor_carpi_radialis",
    "extensor_carpi_ulnaris",
)
KEYPOINTS = ("shoulder", "elbow", "wrist", "hand")

N_TARGETS = 8
STEP = 0.001  # seconds: the grid on which latents and rates are simulated
TRIAL_DURATION = 1.0  # seconds
GO_DELAY = 0.2  # seconds from trial start to the go cue
REACH_DURATION = 0.5  # seconds from the go cue to arrival at the target
GAP_RANGE = (0.3, 0.8)  # seconds between trials
MARGIN = 0.5  # seconds recorded before the first and after the last trial
MEDIAN_RATE = 15.0  # Hz, of the units' log-normal mean rates
RATE_SPREAD = 0.4  # s.d. of the log mean rate
RATE_RANGE = (4.0, 40.0)  # Hz, beyond which mean rates are clipped
MODULATION = (0.65, 0.85)  # s.d. of a unit's log rate, least and most
PRIVATE_WEIGHT = 1.3  # s.d. of a unit's loadings on private latents, relative to shared ones
LOST_FRAMES = 0.01  # share of frames in which the tracker loses a keypoint


@dataclass(frozen=True)
class TrialTable:
    """Trials, one row each: ``start``, ``stop``, ``go`` (trial,) in s, ``target`` (trial,) in 1..8."""

    start: Array
    stop: Array
    go: Array
    target: NDArray[np.int64]


@dataclass(frozen=True)
class SimulatedSpikes:
    """Spike trains and the parameters that made them.

    Attributes:
        times: one sorted array of spike times (s) per unit.
        quality: (unit,) "good", or "noise" for a unit of constant rate that no latent drives.
        loading: (unit, latent), log rate per unit of latent; zero for latents that do not drive spikes.
        offset: (unit,), log rate (log Hz) at z = 0.
    """

    times: tuple[Array, ...]
    quality: tuple[str, ...]
    loading: Array
    offset: Array


@dataclass(frozen=True)
class SimulatedEmg:
    """Muscle activity envelopes and the parameters that made them.

    Attributes:
        values: (sample, muscle), mV, never negative.
        rate, start: samples per second; time of the first sample (s).
        muscles: (muscle,) names.
        loading, offset: (muscle, latent) and (muscle,), argument of the softplus.
        scale, noise: mV per unit of softplus; s.d. of the noise (mV), before rectification.
    """

    values: Array
    rate: float
    start: float
    muscles: tuple[str, ...]
    loading: Array
    offset: Array
    scale: float
    noise: float

    def expected(self, latents: Array) -> Array:
        """Return the noise-free envelope (mV), shape (..., muscle), of ``latents`` (..., latent)."""
        return _envelopes(latents, self.loading, self.offset, self.scale)


@dataclass(frozen=True)
class SimulatedPose:
    """Keypoint positions and the parameters that made them.

    Attributes:
        values: (sample, keypoint, 2), cm; frames of low confidence are displaced by several cm.
        confidence: (sample, keypoint), 0..1.
        rate, start: frames per second; time of the first frame (s).
        keypoints: (keypoint,) names.
        loading, rest: (keypoint, 2, latent) cm per unit of latent; (keypoint, 2) cm.
        noise: s.d. of the tracking noise (cm).
    """

    values: Array
    confidence: Array
    rate: float
    start: float
    keypoints: tuple[str, ...]
    loading: Array
    rest: Array
    noise: float

    def expected(self, latents: Array) -> Array:
        """Return noise-free positions (cm), shape (..., keypoint, 2), of ``latents`` (..., latent)."""
        return _positions(latents, self.loading, self.rest)


@dataclass(frozen=True)
class ReachSimulation:
    """A simulated session; it is not a recording of an animal.

    Attributes:
        seed: what the session was drawn from; the same seed gives the same arrays.
        duration: seconds, from 0.
        latents: (time, latent), sampled every ``STEP`` seconds from 0; dimensionless, mean 0 and
            variance 1 over the trial windows.
        latent_groups: (latent,) the modalities that each latent drives, as "spikes+emg+pose".
        time_scales: (latent,) seconds, of the squared exponential kernel.
        trials, spikes, emg, pose: see their classes. Times are seconds on the session's clock.
    """

    seed: int
    duration: float
    latents: Array
    latent_groups: tuple[str, ...]
    time_scales: tuple[float, ...]
    trials: TrialTable
    spikes: SimulatedSpikes
    emg: SimulatedEmg
    pose: SimulatedPose

    @property
    def firing_rates(self) -> Array:
        """True firing rates (Hz), shape (time, unit), on the grid of ``latents``."""
        return np.exp(self.latents @ self.spikes.loading.T + self.spikes.offset)

    def latents_at(self, times: Array) -> Array:
        """Return the latents at ``times`` (s) of any shape, shape (*times.shape, latent)."""
        return _sample(self.latents, times)


def simulate_reach(
    seed: int,
    n_trials: int = 80,
    n_units: int = 60,
    n_muscles: int = 8,
    n_keypoints: int = 4,
    mean_share: float = 0.5,
    n_noise_units: int = 2,
) -> ReachSimulation:
    """Simulate one session of centre-out reaches to eight targets.

    Args:
        seed: of every random draw. Each part draws from its own stream, so that changing the number
            of units, muscles or keypoints changes neither the latents nor the other modalities.
        n_trials: trials of 1 s; targets come in shuffled blocks of eight.
        n_units: units, of which ``n_noise_units`` have the quality "noise".
        n_muscles, n_keypoints: at most 8 and 4, the number of names.
        mean_share: share a of a latent's variance due to the mean trajectories of the targets.

    Raises:
        ValueError: an argument is out of its range.
    """
    _check(n_trials, n_units, n_muscles, n_keypoints, mean_share, n_noise_units)
    stream = np.random.default_rng(seed).spawn(5)
    trials = _draw_trials(stream[0], n_trials)
    duration = float(trials.stop[-1] + MARGIN)
    latents = _draw_latents(stream[1], trials, duration, mean_share)
    return ReachSimulation(
        seed=seed,
        duration=duration,
        latents=latents,
        latent_groups=LATENT_GROUPS,
        time_scales=TIME_SCALES,
        trials=trials,
        spikes=_draw_spikes(stream[2], latents, n_units, n_noise_units),
        emg=_draw_emg(stream[3], latents, duration, n_muscles),
        pose=_draw_pose(stream[4], latents, duration, n_keypoints),
    )


def drives(modality: str) -> NDArray[np.bool_]:
    """Return which latents drive ``modality``, boolean (latent,)."""
    return np.array([modality in group.split("+") for group in LATENT_GROUPS])


def _check(
    n_trials: int, n_units: int, n_muscles: int, n_keypoints: int, mean_share: float, n_noise: int
) -> None:
    if n_trials < 1:
        raise ValueError(f"n_trials must be at least 1, not {n_trials}")
    if not 0 <= n_noise < n_units:
        raise ValueError(f"n_noise_units must be 0 to n_units - 1, not {n_noise} of {n_units}")
    if not 1 <= n_muscles <= len(MUSCLES):
        raise ValueError(f"n_muscles must be 1 to {len(MUSCLES)}, not {n_muscles}")
    if not 1 <= n_keypoints <= len(KEYPOINTS):
        raise ValueError(f"n_keypoints must be 1 to {len(KEYPOINTS)}, not {n_keypoints}")
    if not 0 <= mean_share < 1:
        raise ValueError(f"mean_share must lie in [0, 1), not {mean_share}")


def _draw_trials(rng: np.random.Generator, n_trials: int) -> TrialTable:
    gaps = np.round(rng.uniform(*GAP_RANGE, n_trials - 1), 3)
    start = np.round(MARGIN + np.concatenate([[0.0], np.cumsum(TRIAL_DURATION + gaps)]), 3)
    blocks = [rng.permutation(N_TARGETS) + 1 for _ in range(-(-n_trials // N_TARGETS))]
    return TrialTable(
        start=start,
        stop=np.round(start + TRIAL_DURATION, 3),
        go=np.round(start + GO_DELAY, 3),
        target=np.concatenate(blocks)[:n_trials].astype(np.int64),
    )


def _draw_latents(rng: np.random.Generator, trials: TrialTable, duration: float, mean_share: float) -> Array:
    """Return z (time, latent) with mean 0 and variance 1 over the trial windows."""
    time = np.arange(round(duration / STEP), dtype=np.float64) * STEP
    in_trial = np.searchsorted(trials.start, time, "right") - np.searchsorted(trials.stop, time, "right") == 1
    variability = np.stack([_gaussian_process(rng, len(time), scale) for scale in TIME_SCALES], axis=1)
    mean = _mean_trajectories(rng, trials, time)
    latents = np.sqrt(mean_share) * mean + np.sqrt(1 - mean_share) * variability
    return (latents - latents[in_trial].mean(axis=0)) / latents[in_trial].std(axis=0)


def _gaussian_process(rng: np.random.Generator, n_steps: int, time_scale: float) -> Array:
    """Draw a path of unit variance with squared exponential covariance on the grid.

    White noise under a Gaussian filter of width l / sqrt(2) has the covariance exp(-lag^2 / 2 l^2).
    """
    width = time_scale / np.sqrt(2) / STEP
    noise = rng.standard_normal(n_steps)
    return gaussian_filter1d(noise, width, mode="wrap", truncate=6) * np.sqrt(2 * np.sqrt(np.pi) * width)


def _mean_trajectories(rng: np.random.Generator, trials: TrialTable, time: Array) -> Array:
    """Return m (time, latent), of variance 1 over the trials when every target comes equally often.

    Shared latents follow the hand: out to (cos, sin) of the target's angle by a minimum-jerk profile
    (Flash & Hogan 1985), and back in the gap. A private latent's time course A_k is a draw of its GP.
    """
    angle = 2 * np.pi * (trials.target - 1) / N_TARGETS
    order = np.array([1, 1, 2, 2, 3, 3])[:, None] * angle
    harmonic = np.sqrt(2) * np.where(np.arange(6)[:, None] % 2 == 0, np.cos(order), np.sin(order))
    pad = GAP_RANGE[1]
    around = np.arange(round((TRIAL_DURATION + 2 * pad) / STEP) + 1) * STEP - pad
    progress = np.clip((around - GO_DELAY) / REACH_DURATION, 0.0, 1.0)
    course = [10 * progress**3 - 15 * progress**4 + 6 * progress**5] * 2
    course += [_gaussian_process(rng, len(around), scale) for scale in TIME_SCALES[2:]]
    in_trial = (around >= 0) & (around < TRIAL_DURATION)
    course = [c / np.sqrt(np.mean(c[in_trial] ** 2)) for c in course]

    mean = np.zeros((len(time), len(TIME_SCALES)))
    before = np.append(trials.start[0] - MARGIN, trials.stop[:-1])
    after = np.append(trials.start[1:], trials.stop[-1] + MARGIN)
    for i, start in enumerate(trials.start):
        first, last = np.searchsorted(time, [before[i], after[i]])
        now = time[first:last]
        rise = (now - before[i]) / (start - before[i])
        fall = (after[i] - now) / (after[i] - trials.stop[i])
        weight = _crossfade(np.clip(np.minimum(rise, fall), 0.0, 1.0))
        for k in range(len(TIME_SCALES)):
            mean[first:last, k] += weight * harmonic[k, i] * np.interp(now - start, around, course[k])
    return mean


def _crossfade(progress: Array) -> Array:
    """Return the weight of a trial's mean at ``progress`` through the gap: 0 at one end, 1 at the other.

    The squares of the two neighbours' weights sum to one, so that the variance stays the same in the gaps.
    """
    return np.sin(np.pi / 2 * progress**2 * (3 - 2 * progress))


def _draw_spikes(rng: np.random.Generator, latents: Array, n_units: int, n_noise: int) -> SimulatedSpikes:
    """Draw inhomogeneous Poisson spike trains; mean rates are log-normal, as cortex has them."""
    driven = drives("spikes")
    weight = np.where(np.array(LATENT_GROUPS)[driven] == "spikes", PRIVATE_WEIGHT, 1.0)
    direction = weight * rng.standard_normal((n_units, len(weight)))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    loading = np.zeros((n_units, len(driven)))
    loading[:, driven] = direction * rng.uniform(*MODULATION, (n_units, 1))
    noise = np.zeros(n_units, dtype=bool)
    noise[rng.choice(n_units, n_noise, replace=False)] = True
    loading[noise] = 0.0
    mean_rate = np.clip(MEDIAN_RATE * np.exp(RATE_SPREAD * rng.standard_normal(n_units)), *RATE_RANGE)
    offset = np.log(mean_rate) - 0.5 * np.sum(loading**2, axis=1)

    times = []
    for unit in range(n_units):
        rate = np.exp(latents @ loading[unit] + offset[unit])
        count = rng.poisson(rate * STEP)
        step = np.repeat(np.arange(len(count)), count)
        times.append(np.sort((step + rng.random(len(step))) * STEP))
    return SimulatedSpikes(
        times=tuple(times),
        quality=tuple("noise" if is_noise else "good" for is_noise in noise),
        loading=loading,
        offset=offset,
    )


def _draw_emg(rng: np.random.Generator, latents: Array, duration: float, n_muscles: int) -> SimulatedEmg:
    """Draw envelopes; the muscles' preferred directions are spread over the circle."""
    rate, start, scale, noise = 100.0, 0.0037, 0.08, 0.025
    preferred = 2 * np.pi * np.arange(n_muscles) / n_muscles + rng.normal(0.0, 0.2, n_muscles)
    loading = np.zeros((n_muscles, len(LATENT_GROUPS)))
    loading[:, 0], loading[:, 1] = np.cos(preferred), np.sin(preferred)
    sign = rng.choice([-1.0, 1.0], n_muscles)
    loading[:, LATENT_GROUPS.index("emg")] = sign * rng.uniform(0.5, 1.0, n_muscles)
    offset = rng.uniform(0.5, 1.5, n_muscles)

    clean = _envelopes(_sample(latents, _clock(start, rate, duration)), loading, offset, scale)
    values = np.abs(clean + noise * rng.standard_normal(clean.shape))  # an envelope is rectified
    return SimulatedEmg(values, rate, start, MUSCLES[:n_muscles], loading, offset, scale, noise)


def _draw_pose(rng: np.random.Generator, latents: Array, duration: float, n_keypoints: int) -> SimulatedPose:
    """Draw keypoints of an arm: the hand follows the shared latents, the joints above it less so."""
    rate, start, noise = 50.0, 0.0113, 0.5
    gain = np.array([0.5, 1.5, 3.0, 4.0])[:n_keypoints]
    rest = np.array([[-12.0, -30.0], [8.0, -24.0], [2.0, -5.0], [0.0, 0.0]])[:n_keypoints]
    turn = rng.normal(0.0, 0.3, n_keypoints)
    loading = np.zeros((n_keypoints, 2, len(LATENT_GROUPS)))
    loading[:, 0, 0], loading[:, 0, 1] = gain * np.cos(turn), -gain * np.sin(turn)
    loading[:, 1, 0], loading[:, 1, 1] = gain * np.sin(turn), gain * np.cos(turn)
    swivel = rng.uniform(0.0, 2 * np.pi, n_keypoints)
    width = np.array([0.3, 2.0, 1.2, 0.6])[:n_keypoints]  # the elbow swivels most while the hand is held
    loading[:, 0, LATENT_GROUPS.index("pose")] = width * np.cos(swivel)
    loading[:, 1, LATENT_GROUPS.index("pose")] = width * np.sin(swivel)

    clean = _positions(_sample(latents, _clock(start, rate, duration)), loading, rest)
    lost = rng.random(clean.shape[:2]) < LOST_FRAMES
    confidence = np.where(lost, rng.uniform(0.05, 0.4, lost.shape), rng.uniform(0.95, 1.0, lost.shape))
    values = clean + noise * rng.standard_normal(clean.shape)
    values += lost[..., None] * rng.normal(0.0, 8.0, clean.shape)
    return SimulatedPose(values, confidence, rate, start, KEYPOINTS[:n_keypoints], loading, rest, noise)


def _envelopes(latents: Array, loading: Array, offset: Array, scale: float) -> Array:
    return scale * np.logaddexp(0.0, latents @ loading.T + offset)


def _positions(latents: Array, loading: Array, rest: Array) -> Array:
    return rest + np.einsum("...k,jdk->...jd", latents, loading)


def _clock(start: float, rate: float, duration: float) -> Array:
    """Return the sample times (s) of one modality, from ``start`` to before the session's end."""
    return start + np.arange(int(np.ceil((duration - start) * rate))) / rate


def _sample(latents: Array, times: Array) -> Array:
    """Interpolate the latents at ``times`` (s); they hardly move within one step of the grid."""
    grid = np.arange(len(latents)) * STEP
    return np.stack([np.interp(times, grid, latent) for latent in latents.T], axis=-1)
