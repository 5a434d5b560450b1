"""Metrics against scikit-learn, SciPy and hand-made cases."""

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import r2_score, root_mean_squared_error

from colatent.data import metrics

RNG = np.random.default_rng(0)
Y = RNG.normal(size=(6, 10, 4)) * [1.0, 10.0, 0.1, 3.0] + [0, 5, 0, -2]
PREDICTION = Y + RNG.normal(size=Y.shape) * 0.5
OBSERVED = RNG.random(Y.shape) < 0.8
SCALE = Y.std(axis=(0, 1))
COUNT = RNG.poisson(0.4, (6, 10, 4)).astype(float)
RATE = RNG.gamma(2.0, 0.2, COUNT.shape)


def test_r2_and_nrmse_are_scikit_learns_on_the_observed_bins():
    r2, nrmse = (f(Y, PREDICTION, OBSERVED, SCALE) for f in (metrics.r2, metrics.nrmse))
    for c in range(4):
        seen = OBSERVED[..., c]
        y, p = Y[..., c][seen], PREDICTION[..., c][seen]
        assert r2.channel[c] == pytest.approx(r2_score(y, p))
        assert nrmse.channel[c] == pytest.approx(root_mean_squared_error(y, p) / SCALE[c])
        assert r2.n_channel[c] == seen.sum()


def test_pooled_r2_does_not_depend_on_the_units_of_a_channel():
    unit = np.array([1.0, 1000.0, 0.01, 7.0])
    one = metrics.r2(Y, PREDICTION, OBSERVED, SCALE)
    other = metrics.r2(Y * unit, PREDICTION * unit, OBSERVED, SCALE * unit)
    assert other.pooled == pytest.approx(one.pooled)
    sse = np.where(OBSERVED, (Y - PREDICTION) ** 2, 0).sum((0, 1)) / SCALE**2
    mean = np.nanmean(np.where(OBSERVED, Y, np.nan), axis=(0, 1))
    sst = np.where(OBSERVED, (Y - mean) ** 2, 0).sum((0, 1)) / SCALE**2
    assert one.pooled == pytest.approx(1 - sse.sum() / sst.sum())


def test_bits_per_spike_is_the_benchmarks_definition():
    result = metrics.bits_per_spike(COUNT, RATE, OBSERVED)
    total, spikes = 0.0, 0.0
    for c in range(4):
        seen = OBSERVED[..., c]
        y, rate = COUNT[..., c][seen], RATE[..., c][seen]
        null = stats.poisson.logpmf(y, y.mean()).sum()
        gain = stats.poisson.logpmf(y, rate).sum() - null
        assert result.channel[c] == pytest.approx(gain / y.sum() / np.log(2))
        total, spikes = total + gain, spikes + y.sum()
    assert result.pooled == pytest.approx(total / spikes / np.log(2))


def test_silent_units_and_constant_channels_are_nan_and_counted():
    count = COUNT.copy()
    count[..., 1] = 0
    bits = metrics.bits_per_spike(count, RATE, OBSERVED)
    assert np.isnan(bits.channel[1])
    assert bits.n_channel[1] == OBSERVED[..., 1].sum()
    # the pooled score charges what was predicted of the silent unit, as the benchmark does
    gain = sum(
        stats.poisson.logpmf(y, rate).sum() - stats.poisson.logpmf(y, y.mean()).sum()
        for y, rate in ((count[..., c][OBSERVED[..., c]], RATE[..., c][OBSERVED[..., c]]) for c in range(4))
    )
    assert bits.pooled == pytest.approx(gain / np.where(OBSERVED, count, 0).sum() / np.log(2))
    assert bits.n_pooled == OBSERVED.sum()
    constant = Y.copy()
    constant[..., 2] = 0.1
    assert np.isnan(metrics.r2(constant, PREDICTION, OBSERVED, SCALE).channel[2])
    assert np.isnan(metrics.nrmse(constant, PREDICTION, OBSERVED, SCALE).channel[2])
    nothing = np.zeros_like(OBSERVED)
    for score in (
        metrics.r2(Y, PREDICTION, nothing, SCALE),
        metrics.bits_per_spike(COUNT, RATE, nothing),
        metrics.mean_over_observed(Y, nothing, np.ones(4, dtype=bool)),
    ):
        assert np.isnan(score.channel).all()
        assert np.isnan(score.pooled)


def test_unobserved_values_cannot_change_a_score():
    changed = np.where(OBSERVED, Y, 1e6)
    for metric in (metrics.r2, metrics.nrmse):
        one, other = (metric(y, PREDICTION, OBSERVED, SCALE) for y in (Y, changed))
        np.testing.assert_allclose(other.channel, one.channel)
        assert other.pooled == pytest.approx(one.pooled)


def test_psth_r2_is_the_r2_of_condition_means():
    condition = np.array(list("aabbcc"))
    full = np.ones_like(OBSERVED)
    result = metrics.psth_r2(Y, PREDICTION, full, condition, SCALE)
    y = np.stack([Y[condition == c].mean(0) for c in "abc"])
    p = np.stack([PREDICTION[condition == c].mean(0) for c in "abc"])
    for c in range(4):
        assert result.channel[c] == pytest.approx(r2_score(y[..., c].ravel(), p[..., c].ravel()))


def test_a_broken_prediction_is_no_missing_score():
    for broken in (np.nan, np.inf):
        rate, mean = RATE.copy(), Y.copy()
        at = tuple(np.argwhere(OBSERVED)[0])
        rate[at] = mean[at] = broken
        for score in (
            lambda r, m: metrics.bits_per_spike(COUNT, r, OBSERVED),
            lambda r, m: metrics.r2(Y, m, OBSERVED, SCALE),
            lambda r, m: metrics.nrmse(Y, m, OBSERVED, SCALE),
        ):
            with pytest.raises(ValueError, match="not finite"):
                score(rate, mean)
    with pytest.raises(ValueError, match="negative"):
        metrics.bits_per_spike(COUNT, -RATE, OBSERVED)


def test_a_channel_constant_in_training_is_not_pooled():
    scale = np.where(np.arange(4) == 1, np.nan, SCALE)
    others = np.array([0, 2, 3])
    for metric in (metrics.r2, metrics.nrmse):
        whole = metric(Y, Y + 0.1, OBSERVED, scale)
        alone = metric(Y[..., others], Y[..., others] + 0.1, OBSERVED[..., others], scale[others])
        assert whole.pooled == pytest.approx(alone.pooled)
