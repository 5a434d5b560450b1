"""Predictive mixtures against SciPy's distributions and sampling."""

import numpy as np
import pytest
from scipy import stats

from colatent.data.predictive import Predictive, coverage
from colatent.scoring.calibration import pit_histogram

SHAPE = (5, 4, 6, 3)
FAMILIES = ("gaussian", "poisson", "negative-binomial", "bernoulli")


def make(family: str, rng: np.random.Generator) -> tuple[Predictive, list]:
    """Return a mixture and its components as frozen SciPy distributions."""
    scale = np.array([0.5, 1.5, 3.0])
    match family:
        case "gaussian":
            mean = rng.normal(size=SHAPE)
            return Predictive(family, mean, scale), [stats.norm(m, scale) for m in mean]
        case "poisson":
            mean = rng.gamma(1.0, 2.0, SHAPE)
            return Predictive(family, mean), [stats.poisson(m) for m in mean]
        case "negative-binomial":
            mean = rng.gamma(1.0, 2.0, SHAPE)
            return Predictive(family, mean, scale), [stats.nbinom(scale, scale / (scale + m)) for m in mean]
        case _:
            mean = rng.uniform(0.05, 0.95, SHAPE)
            return Predictive(family, mean), [stats.bernoulli(m) for m in mean]


@pytest.mark.parametrize("family", FAMILIES)
def test_density_and_cdf_are_the_mixture_of_scipys(family):
    rng = np.random.default_rng(0)
    predictive, components = make(family, rng)
    y = components[0].rvs(random_state=rng)
    density = [c.pdf(y) if family == "gaussian" else c.pmf(y) for c in components]
    np.testing.assert_allclose(predictive.log_density(y), np.log(np.mean(density, axis=0)), atol=1e-10)
    np.testing.assert_allclose(predictive.cdf(y), np.mean([c.cdf(y) for c in components], axis=0), atol=1e-10)
    np.testing.assert_allclose(predictive.mean, np.mean([c.mean() for c in components], axis=0), atol=1e-10)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("probability", [0.025, 0.25, 0.75, 0.975])
def test_quantile_inverts_the_distribution_function(family, probability):
    predictive, _ = make(family, np.random.default_rng(1))
    q = predictive.quantile(probability)
    if family == "gaussian":
        np.testing.assert_allclose(predictive.cdf(q), probability, atol=1e-6)
    else:
        assert (predictive.cdf(q) >= probability).all()
        assert (predictive.cdf(q - 1) < probability).all()


def drawn(family: str, rng: np.random.Generator, n_trials: int) -> tuple[Predictive, np.ndarray]:
    """A mixture of 3 components with (n_trials, 50, 3) observations from it, independent of one another."""
    shape = (3, n_trials, 50, 3)
    mean = {"gaussian": rng.normal(size=shape), "bernoulli": rng.uniform(0.02, 0.3, shape)}.get(
        family, rng.gamma(1.0, 0.3, shape)
    )
    predictive = Predictive(family, mean, np.array([0.5, 1.0, 2.0]))
    one = np.take_along_axis(mean, rng.integers(0, 3, (1, *shape[1:])), axis=0)[0]
    scale = predictive.scale
    distribution = {
        "gaussian": lambda: stats.norm(one, scale),
        "poisson": lambda: stats.poisson(one),
        "negative-binomial": lambda: stats.nbinom(scale, scale / (scale + one)),
        "bernoulli": lambda: stats.bernoulli(one),
    }[family]()
    return predictive, distribution.rvs(random_state=rng).astype(float)


@pytest.mark.parametrize("family", FAMILIES)
def test_pit_of_a_known_model_is_flat_and_of_one_too_sure_is_not(family):
    rng = np.random.default_rng(6)
    predictive, y = drawn(family, rng, 200)
    scored = rng.random(y.shape) < 0.7
    share, n = pit_histogram(predictive.pit(y), scored)
    assert n == scored.sum()
    assert share.sum() == pytest.approx(1.0)
    limit = stats.binom.ppf(1 - 1e-4, n, 0.05) / n - 0.05  # counts vary less: their transform is averaged
    assert np.abs(share - 0.05).max() < limit
    # the expectation of the randomised transform
    lower, upper = (end[scored] for end in predictive.pit(y))
    repeats = [np.histogram(rng.uniform(lower, upper), 20, (0, 1))[0] / n for _ in range(20)]
    np.testing.assert_allclose(share, np.mean(repeats, axis=0), atol=limit / 2)
    if family == "gaussian":
        narrow = Predictive(family, predictive.component_mean, 0.1 * np.asarray(predictive.scale))
        assert pit_histogram(narrow.pit(y), scored)[0][[0, -1]].min() > 0.15
    assert np.isnan(pit_histogram(predictive.pit(y), np.zeros_like(scored))[0]).all()


@pytest.mark.parametrize("level", [0.5, 0.95])
@pytest.mark.parametrize("family", FAMILIES)
def test_coverage_of_a_known_model_is_nominal_within_two_binomial_errors(family, level):
    predictive, y = drawn(family, np.random.default_rng(7), 200)
    covered = coverage(predictive.pit(y), level)
    assert abs(covered.mean() - level) < 2 * np.sqrt(level * (1 - level) / y.size)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_calibrated_prediction_covers_as_often_as_it_says(family):
    rng = np.random.default_rng(2)
    shape = (1, 200, 50, 3)
    mean = {"gaussian": rng.normal(size=shape), "bernoulli": rng.uniform(0.02, 0.3, shape)}.get(
        family, rng.gamma(1.0, 0.3, shape)
    )
    predictive = Predictive(family, mean, np.array([1.0, 2.0, 3.0]))
    scale = predictive.scale
    y = {
        "gaussian": lambda: rng.normal(mean[0], scale),
        "poisson": lambda: rng.poisson(mean[0]).astype(float),
        "negative-binomial": lambda: rng.negative_binomial(scale, scale / (scale + mean[0])).astype(float),
        "bernoulli": lambda: (rng.random(shape[1:]) < mean[0]).astype(float),
    }[family]()
    covered = [coverage(predictive.pit(y), level) for level in (0.5, 0.95)]
    # 30,000 observations: the standard error is below 0.003
    np.testing.assert_allclose([c.mean() for c in covered], [0.5, 0.95], atol=0.012)


def test_what_cannot_be_a_prediction_is_refused():
    with pytest.raises(ValueError, match="unknown family"):
        Predictive("normal", np.zeros(SHAPE))
    with pytest.raises(ValueError, match="sample, trial, time, channel"):
        Predictive("poisson", np.zeros(SHAPE[1:]))
    with pytest.raises(ValueError, match="needs a scale"):
        Predictive("gaussian", np.zeros(SHAPE))
