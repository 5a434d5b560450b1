"""The likelihoods against SciPy and numerical integration; what else stands in their records."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from scipy.special import expit

from colatent.data.likelihoods import LIKELIHOODS, CountLikelihood, likelihoods_of

COUNTS = [name for name, record in LIKELIHOODS.items() if isinstance(record, CountLikelihood)]
SCALE = np.array([0.5, 1.0, 2.0, 4.0])


def distribution(name: str, eta: np.ndarray, scale: np.ndarray | float = SCALE):
    """Return SciPy's distribution given eta."""
    return {
        "gaussian-sqrt": lambda: stats.norm(eta, scale),
        "gaussian": lambda: stats.norm(eta, scale),
        "poisson": lambda: stats.poisson(np.exp(eta)),
        "poisson-softplus": lambda: stats.poisson(np.logaddexp(0, eta)),
        "negative-binomial": lambda: stats.nbinom(scale, scale / (scale + np.exp(eta))),
        "bernoulli": lambda: stats.bernoulli(expit(eta)),
    }[name]()


def log_density(name: str, y: np.ndarray, eta: np.ndarray, scale: np.ndarray | float = SCALE) -> np.ndarray:
    d = distribution(name, eta, scale)
    return d.logpmf(y) if LIKELIHOODS[name].discrete else d.logpdf(y)


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_log_prob_equals_scipy(name: str) -> None:
    rng = np.random.default_rng(1)
    eta = rng.standard_normal((5, 7, len(SCALE)))
    y = distribution(name, eta).rvs(random_state=rng).astype(float)
    got = LIKELIHOODS[name].log_prob(*map(torch.from_numpy, (y, eta, np.log(SCALE))))
    np.testing.assert_allclose(got, log_density(name, y, eta), rtol=1e-6)


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_expected_log_prob_equals_monte_carlo(name: str) -> None:
    rng = np.random.default_rng(2)
    mean, variance = rng.standard_normal(len(SCALE)), rng.uniform(0.1, 0.6, len(SCALE))
    y = distribution(name, mean).rvs(random_state=rng).astype(float)
    # normal quantiles at equal steps: an integral without random error
    z = stats.norm.ppf((np.arange(20_000) + 0.5) / 20_000)[:, None]
    expected = log_density(name, y, mean + np.sqrt(variance) * z).mean(axis=0)
    got = LIKELIHOODS[name].expected_log_prob(*map(torch.from_numpy, (y, mean, variance, np.log(SCALE))))
    np.testing.assert_allclose(got, expected, atol=2e-3)


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_initial_eta_gives_the_mean(name: str) -> None:
    mean, record = torch.tensor([0.02, 0.2, 0.5, 0.9], dtype=torch.float64), LIKELIHOODS[name]
    start = record.distribution(record.initial_eta(mean), torch.from_numpy(np.log(SCALE)))
    torch.testing.assert_close(start.mean, mean)


@pytest.mark.parametrize("name", [*COUNTS, "gaussian"])
@pytest.mark.parametrize(("y", "mean", "variance"), [(0, -1.5, 0.3), (3, 0.4, 0.6), (7, 1.2, 0.05)])
def test_expectations_agree_with_numerical_integration(
    name: str, y: int, mean: float, variance: float
) -> None:
    r, h = 3.0, 1e-4

    def average(function: object) -> float:
        weight = stats.norm(mean, np.sqrt(variance)).pdf
        value, _ = integrate.quad(lambda eta: weight(eta) * function(eta), mean - 9, mean + 9, limit=200)  # type: ignore[operator]
        return value

    at = [torch.tensor([v], dtype=torch.float64) for v in (y, mean, variance, np.log(r))]
    e = LIKELIHOODS[name].expectation(*at)

    def p(eta: float, r: float = r) -> float:
        return float(log_density(name, np.array(y), np.array(eta), r))

    base = LIKELIHOODS[name].log_base(at[0])
    assert float(e.log_density + base) == pytest.approx(average(p), abs=1e-6)
    slope = average(lambda eta: (p(eta + h) - p(eta - h)) / (2 * h))
    assert float(e.slope) == pytest.approx(slope, abs=1e-5)
    bend = average(lambda eta: -(p(eta + h) - 2 * p(eta) + p(eta - h)) / h**2)
    assert float(e.curvature) == pytest.approx(bend, abs=1e-4)
    by_r = average(lambda eta: (p(eta, r * np.exp(h)) - p(eta, r * np.exp(-h))) / (2 * h))
    assert float(e.scale_slope) == pytest.approx(by_r, abs=1e-5)


@pytest.mark.parametrize("name", COUNTS)
def test_predictive_moments_agree_with_sampling(name: str) -> None:
    rng = np.random.default_rng(0)
    mean, variance, r = 0.3, 0.4, 4.0
    y = distribution(name, rng.normal(mean, np.sqrt(variance), 400_000), r).rvs(random_state=rng)
    moments = LIKELIHOODS[name].moments(
        *(torch.tensor(v, dtype=torch.float64) for v in (mean, variance, np.log(r)))
    )
    assert float(moments[0]) == pytest.approx(y.mean(), rel=0.01)
    assert float(moments[1]) == pytest.approx(y.var(), rel=0.03)


def test_names_of_a_kind_are_those_of_its_config() -> None:
    assert likelihoods_of("gpfa") == ("gaussian-sqrt", "gaussian", "poisson", "negative-binomial")
    assert likelihoods_of("mm-gpvae") == ("gaussian", "poisson", "negative-binomial", "bernoulli")


def test_the_config_does_not_wait_for_pytorch_or_scipy() -> None:
    code = "import sys, colatent.config; assert not {'torch', 'scipy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
