"""The simulated session: what it claims of itself, and whether its latents can be recovered at all."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats
from sklearn.linear_model import Ridge

from colatent.simulate import ReachSimulation, simulate_reach
from colatent.simulate.reach import STEP, _gaussian_process, drives

Array = NDArray[np.float64]
BIN = 0.02
CENTRES = (np.arange(50) + 0.5) * BIN
HELD_OUT = np.arange(80) % 5 == 0


def in_trials(simulation: ReachSimulation) -> NDArray[np.intp]:
    """Indices (trial, step) of the trial windows on the grid of the latents."""
    first = np.round(simulation.trials.start / STEP).astype(int)
    return first[:, None] + np.arange(1000)


def counts(simulation: ReachSimulation) -> Array:
    """Spike counts of the good units, (trial, bin, unit)."""
    edges = simulation.trials.start[:, None] + np.arange(51) * BIN
    good = [t for t, q in zip(simulation.spikes.times, simulation.spikes.quality, strict=True) if q == "good"]
    return np.stack([np.diff(np.searchsorted(times, edges), axis=1) for times in good], axis=-1).astype(float)


def samples(simulation: ReachSimulation, modality: str) -> Array:
    """Values (trial, bin, ...) of the sample nearest to each bin centre, lost frames interpolated."""
    series = getattr(simulation, modality)
    clock = series.start + np.arange(len(series.values)) / series.rate
    values = series.values
    if modality == "pose":
        values = values.copy()
        for j in range(values.shape[1]):
            kept = series.confidence[:, j] > 0.5
            for d in range(2):
                values[:, j, d] = np.interp(clock, clock[kept], values[kept, j, d])
    times = simulation.trials.start[:, None] + CENTRES
    index = np.clip(np.round((times - series.start) * series.rate).astype(int), 0, len(values) - 1)
    return values[index]


def r_squared(truth: Array, estimate: Array) -> Array:
    """R^2 of each latent over all trials and bins."""
    error = ((truth - estimate) ** 2).sum(axis=(0, 1))
    return 1 - error / ((truth - truth.mean(axis=(0, 1))) ** 2).sum(axis=(0, 1))


def test_trials_do_not_overlap_and_targets_are_balanced(simulation: ReachSimulation) -> None:
    trials = simulation.trials
    assert len(trials.start) == 80
    np.testing.assert_allclose(trials.stop - trials.start, 1.0)
    gaps = trials.start[1:] - trials.stop[:-1]
    assert gaps.min() >= 0.3 - 1e-9 and gaps.max() <= 0.8 + 1e-9
    assert trials.start[0] > 0 and trials.stop[-1] < simulation.duration
    assert (trials.go > trials.start).all() and (trials.go < trials.stop).all()
    np.testing.assert_array_equal(np.bincount(trials.target)[1:], np.full(8, 10))


def test_gaussian_process_has_the_squared_exponential_covariance() -> None:
    """Monte Carlo: the covariance over a path of 4000 time scales, against the kernel's equation."""
    path = _gaussian_process(np.random.default_rng(1), 400_000, 0.1)
    for lag in (0, 50, 100, 200, 400):
        assert np.mean(path * np.roll(path, lag)) == pytest.approx(np.exp(-0.5 * (lag / 100) ** 2), abs=0.05)


def test_latents_have_unit_variance_and_groups_hardly_correlate(simulation: ReachSimulation) -> None:
    latents = simulation.latents[in_trials(simulation)]
    np.testing.assert_allclose(latents.mean(axis=(0, 1)), 0.0, atol=0.01)
    np.testing.assert_allclose(latents.var(axis=(0, 1)), 1.0, atol=0.01)
    correlation = np.corrcoef(latents.reshape(-1, 6).T) - np.eye(6)
    assert np.abs(correlation).max() < 0.25


def test_latents_have_both_a_mean_per_target_and_variability_between_trials() -> None:
    """With more trials the variance of the target means approaches the share that was asked for."""
    simulation = simulate_reach(seed=3, n_trials=400, n_units=3, mean_share=0.5)
    latents = simulation.latents[in_trials(simulation)]
    psth = np.stack([latents[simulation.trials.target == target].mean(axis=0) for target in range(1, 9)])
    share = (psth**2).mean(axis=(0, 1))
    np.testing.assert_allclose(share, 0.5, atol=0.08)


def test_spike_counts_agree_with_the_rates(simulation: ReachSimulation) -> None:
    """Counts are Poisson with the integral of the rate as mean: Pearson's chi-squared, units and bins."""
    n_steps = len(simulation.latents)
    expected = simulation.firing_rates.sum(axis=0) * STEP
    total = np.array([len(times) for times in simulation.spikes.times])
    assert stats.chi2.sf(np.sum((total - expected) ** 2 / expected), df=len(total)) > 0.001

    edges = np.arange(0, n_steps + 1, 100)
    binned = np.stack([np.histogram(t, edges * STEP)[0] for t in simulation.spikes.times], axis=1)
    mean = np.add.reduceat(simulation.firing_rates, edges[:-1], axis=0)[: len(binned)] * STEP
    squared = (binned - mean) ** 2 / mean  # mean 1, variance 2 + 1/mean for Poisson counts
    standard_error = np.sqrt(np.sum(2 + 1 / mean)) / mean.size
    assert abs(squared.mean() - 1) < 4 * standard_error


def test_firing_is_realistic(simulation: ReachSimulation) -> None:
    rate = np.array([len(times) for times in simulation.spikes.times]) / simulation.duration
    assert rate.min() > 3 and rate.max() < 45 and 8 < np.median(rate) < 20
    for times in simulation.spikes.times:
        assert (np.diff(times) >= 0).all() and times[0] >= 0 and times[-1] <= simulation.duration
    noise = np.array(simulation.spikes.quality) == "noise"
    assert noise.sum() == 2
    modulation = np.log(simulation.firing_rates).std(axis=0)
    assert (modulation[noise] < 1e-9).all() and (modulation[~noise] > 0.4).all()


def test_each_modality_sees_only_its_own_latents(simulation: ReachSimulation) -> None:
    loadings = {
        "spikes": simulation.spikes.loading,
        "emg": simulation.emg.loading,
        "pose": simulation.pose.loading.reshape(-1, 6),
    }
    for modality, loading in loadings.items():
        seen = drives(modality)
        np.testing.assert_array_equal(loading[:, ~seen], 0.0)
        assert np.linalg.matrix_rank(loading) == seen.sum()


def test_emg_and_pose_follow_the_latents_on_their_own_clocks(simulation: ReachSimulation) -> None:
    emg, pose = simulation.emg, simulation.pose
    assert (emg.rate, pose.rate) == (100.0, 50.0) and emg.start != pose.start
    for series in (emg, pose):
        last = series.start + (len(series.values) - 1) / series.rate
        assert simulation.duration - 1.001 / series.rate < last < simulation.duration

    clean = emg.expected(simulation.latents_at(emg.start + np.arange(len(emg.values)) / emg.rate))
    far = clean > 4 * emg.noise  # where rectification changes nothing
    assert (emg.values - clean)[far].std() == pytest.approx(emg.noise, rel=0.02)
    assert (emg.values >= 0).all()

    clean = pose.expected(simulation.latents_at(pose.start + np.arange(len(pose.values)) / pose.rate))
    kept = pose.confidence > 0.5
    assert (pose.values - clean)[kept].std() == pytest.approx(pose.noise, rel=0.02)
    assert 0.005 < 1 - kept.mean() < 0.015
    assert np.abs(pose.values - clean)[~kept].mean() > 5 * pose.noise


def test_same_seed_same_session_other_seed_other_session(simulation: ReachSimulation) -> None:
    again, other = simulate_reach(seed=0), simulate_reach(seed=1)
    np.testing.assert_array_equal(again.latents, simulation.latents)
    np.testing.assert_array_equal(again.emg.values, simulation.emg.values)
    np.testing.assert_array_equal(again.pose.values, simulation.pose.values)
    for one, two in zip(again.spikes.times, simulation.spikes.times, strict=True):
        np.testing.assert_array_equal(one, two)
    assert abs(np.corrcoef(other.latents[:90_000, 0], simulation.latents[:90_000, 0])[0, 1]) < 0.5


def test_the_number_of_units_leaves_everything_else_as_it_is(simulation: ReachSimulation) -> None:
    fewer = simulate_reach(seed=0, n_units=5, n_muscles=3)
    np.testing.assert_array_equal(fewer.latents, simulation.latents)
    np.testing.assert_array_equal(fewer.pose.values, simulation.pose.values)
    assert len(fewer.spikes.times) == 5 and fewer.emg.values.shape[1] == 3


@pytest.mark.parametrize(
    "argument",
    [
        {"n_trials": 0},
        {"n_units": 2},
        {"n_muscles": 9},
        {"n_keypoints": 0},
        {"mean_share": 1.0},
        {"n_noise_units": -1},
    ],
)
def test_arguments_out_of_range_are_refused(argument: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(argument)).replace("n_units", "n_noise_units")):
        simulate_reach(seed=0, **argument)  # type: ignore[arg-type]


def oracle_posterior_mean(simulation: ReachSimulation, trial: int, modalities: set[str]) -> Array:
    """Return the mode (bin, latent) of the latents' posterior under the true parameters.

    Newton's method (Gauss-Newton for the envelopes) on the dense joint of 50 bins x 6 latents; the
    prior has mean zero, as the models' priors have: the oracle is not told the target.
    """
    lag = CENTRES[:, None] - CENTRES
    precision = np.zeros((50, 6, 50, 6))
    for k, scale in enumerate(simulation.time_scales):
        kernel = np.exp(-0.5 * (lag / scale) ** 2) + 1e-6 * np.eye(50)
        precision[:, k, :, k] = np.linalg.inv(kernel)
    prior = precision.reshape(300, 300)
    y = counts(simulation)[trial]
    good = np.array(simulation.spikes.quality) == "good"
    spike_loading, offset = simulation.spikes.loading[good], simulation.spikes.offset[good]
    emg, pose = simulation.emg, simulation.pose
    envelope, position = samples(simulation, "emg")[trial], samples(simulation, "pose")[trial]

    z = np.zeros((50, 6))
    for _ in range(12):
        slope, weight, gradient = [], [], np.zeros((50, 6))
        if "spikes" in modalities:
            rate = BIN * np.exp(z @ spike_loading.T + offset)
            gradient += (y - rate) @ spike_loading
            slope.append(np.broadcast_to(spike_loading, (50, *spike_loading.shape)))
            weight.append(rate)
        if "emg" in modalities:
            drive = z @ emg.loading.T + emg.offset
            jacobian = (emg.scale / (1 + np.exp(-drive)))[..., None] * emg.loading
            gradient += np.einsum("tm,tmk->tk", envelope - emg.expected(z), jacobian) / emg.noise**2
            slope.append(jacobian)
            weight.append(np.full(drive.shape, emg.noise**-2))
        if "pose" in modalities:
            jacobian = pose.loading.reshape(-1, 6)
            residual = (position - pose.expected(z)).reshape(50, -1)
            gradient += residual @ jacobian / pose.noise**2
            slope.append(np.broadcast_to(jacobian, (50, *jacobian.shape)))
            weight.append(np.full(residual.shape, pose.noise**-2))
        j, w = np.concatenate(slope, axis=1), np.concatenate(weight, axis=1)
        hessian = precision.copy()
        hessian[np.arange(50), :, np.arange(50), :] += np.einsum("tck,tc,tcl->tkl", j, w, j)
        step = np.linalg.solve(hessian.reshape(300, 300), gradient.ravel() - prior @ z.ravel())
        z = z + step.reshape(50, 6)
    return z


def test_an_oracle_recovers_the_latents_of_held_out_trials(simulation: ReachSimulation) -> None:
    """The ceiling that a fitted model can reach; it must leave room above the 0.9 the demo promises."""
    truth = simulation.latents_at(simulation.trials.start[:, None] + CENTRES)[HELD_OUT]
    score = {}
    for modalities in (("spikes", "emg", "pose"), ("spikes",)):
        trials = np.flatnonzero(HELD_OUT)
        mode = np.stack([oracle_posterior_mean(simulation, i, set(modalities)) for i in trials])
        score[modalities] = r_squared(truth, mode)
    joint, spikes = score["spikes", "emg", "pose"], score[("spikes",)]
    assert (joint[:2] > 0.98).all(), joint
    assert (joint[2:4] > 0.94).all(), joint
    assert (joint[4:] > 0.95).all(), joint
    assert (spikes[:2] > 0.88).all(), spikes
    assert (spikes[4:] < 0.1).all(), spikes


def test_ridge_regression_recovers_shared_latents_and_no_private_one_of_others(
    simulation: ReachSimulation,
) -> None:
    """scikit-learn, trained on four fifths of the trials: smoothed square-root counts, EMG, pose."""
    truth = simulation.latents_at(simulation.trials.start[:, None] + CENTRES)
    kernel = np.exp(-0.5 * ((CENTRES[:, None] - CENTRES) / 0.05) ** 2)
    smooth = kernel / kernel.sum(axis=1, keepdims=True)
    spikes = np.einsum("ts,nsc->ntc", smooth, np.sqrt(counts(simulation)))
    behavior = np.concatenate(
        [samples(simulation, "emg"), samples(simulation, "pose").reshape(80, 50, -1)], axis=2
    )

    def held_out_score(features: Array) -> Array:
        def flat(array: Array) -> Array:
            return array.reshape(-1, array.shape[-1])

        model = Ridge(alpha=1.0).fit(flat(features[~HELD_OUT]), flat(truth[~HELD_OUT]))
        estimate = model.predict(flat(features[HELD_OUT])).reshape(truth[HELD_OUT].shape)
        return r_squared(truth[HELD_OUT], estimate)

    everything = held_out_score(np.concatenate([spikes, behavior], axis=2))
    assert (everything[:2] > 0.95).all(), everything
    assert (everything[2:4] > 0.7).all(), everything
    assert (held_out_score(behavior)[2:4] < 0.15).all()
    assert (held_out_score(spikes)[4:] < 0.15).all()
