"""Base classes of the likelihoods: the distribution of an observation given a predictor eta."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor
    from torch.distributions import Distribution

Array = NDArray[np.float64]

_NODES = 12  # quadrature nodes for an expected log density
_MIN_COUNT = 1e-3  # per bin; the log rate of a silent unit needs a finite start


class Likelihood(ABC):
    """The distribution of an observation y given its predictor eta, independent over bins and channels.

    Predictions use NumPy arrays of expected values and scales in the data's units; fits use tensors of eta
    and the log scale. All broadcast, with channels last. The scale is a second parameter per channel, None
    for likelihoods without one. Log densities are in nats.

    Attributes:
        name: identifier in configs and fits.
        title: name in reports.
        describes: "values", "counts" or "binary".
        models: kinds of models whose configs may name it.
        unit: unit of eta in reports.
        discrete: whether y is a whole number.
        initial_scale: the scale before training.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    describes: ClassVar[str]
    models: ClassVar[frozenset[str]]
    unit: ClassVar[str]
    discrete: ClassVar[bool] = True
    initial_scale: ClassVar[float | None] = None

    @abstractmethod
    def log_density(self, y: Array, mean: Array, scale: Any) -> Array:
        """Return log p(y) given the expected value of y."""

    @abstractmethod
    def cdf(self, y: Array, mean: Array, scale: Any) -> Array:
        """Return the cumulative distribution function at y."""

    def quantile(self, probability: float, mean: Array, scale: Any) -> Array:
        """Return the quantile of a continuous likelihood."""
        raise NotImplementedError(f"{self.name} has no quantile function in closed form")

    @abstractmethod
    def distribution(self, eta: Tensor, log_scale: Any) -> Distribution:
        """Return the distribution of y given eta."""

    @abstractmethod
    def initial_eta(self, mean: Tensor) -> Tensor:
        """Return the eta at which the expected value of y is ``mean``."""

    def eta_of_expectation(self, mean: Tensor, variance: Tensor) -> Tensor:
        """Return the eta at which the expected y is that over eta ~ N(mean, variance), if in closed form."""
        return mean

    def scale(self, log_scale: Tensor) -> Tensor:
        """Return the scale given its logarithm."""
        return log_scale.exp()

    def log_prob(self, y: Tensor, eta: Tensor, log_scale: Any) -> Tensor:
        """Return log p(y | eta)."""
        return self.distribution(eta, log_scale).log_prob(y)

    def expected_log_prob(self, y: Tensor, mean: Tensor, variance: Tensor, log_scale: Any) -> Tensor:
        """Return E[log p(y | eta)] over eta ~ N(mean, variance), by Gauss-Hermite quadrature."""
        import torch

        nodes = quadrature(mean, variance, _NODES)
        return torch.stack([w * self.log_prob(y, eta, log_scale) for eta, w in nodes]).sum(dim=0)


class Expectation(NamedTuple):
    """Expectations under eta ~ N(mean, variance), elementwise.

    Attributes:
        log_density: E[log p(y | eta)], less the likelihood's ``log_base``.
        slope: E[d log p / d eta].
        curvature: -E[d^2 log p / d eta^2], non-negative.
        scale_slope: E[d log p / d log scale], zero without a scale.
    """

    log_density: Tensor
    slope: Tensor
    curvature: Tensor
    scale_slope: Tensor


class SiteLikelihood(Likelihood):
    """A log-concave likelihood, which Gaussian sites can approximate."""

    def log_base(self, y: Tensor) -> Tensor:
        """Return the part of log p(y | eta) that depends on y alone."""
        return y.new_zeros(y.shape)

    @abstractmethod
    def expectation(self, y: Tensor, mean: Tensor, variance: Tensor, log_scale: Tensor) -> Expectation:
        """Return expectations of the log density of y, less `log_base`, and of its derivatives."""

    @abstractmethod
    def moments(self, mean: Tensor, variance: Tensor, log_scale: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean and variance of y under eta ~ N(mean, variance)."""


class CountLikelihood(SiteLikelihood):
    """A log-concave likelihood of counts.

    The expected count is exp(eta) unless a subclass says otherwise.
    """

    describes = "counts"
    models = frozenset({"gpfa", "mm-gpvae"})
    unit = "log rate"

    def log_base(self, y: Tensor) -> Tensor:
        return -(y + 1).lgamma()

    def initial_eta(self, mean: Tensor) -> Tensor:
        return mean.clamp_min(_MIN_COUNT).log()

    def eta_of_expectation(self, mean: Tensor, variance: Tensor) -> Tensor:
        return mean + 0.5 * variance

    def initial_loading_and_offset(self, loading: Array, mean: Array) -> tuple[Array, Array]:
        """Return initial loadings and offsets of the predictor C z + d.

        Args:
            loading: loadings for log rates (channel, latent).
            mean: count per bin (channel,), positive.
        """
        return loading, np.log(mean) - 0.5 * (loading**2).sum(1)


def cdf_of_counts(y: Array, at_zero: Array, elsewhere: Callable[[NDArray[np.bool_]], Array]) -> Array:
    """Return the cumulative distribution function of counts, most of which are zero.

    Args:
        y: counts.
        at_zero: the function at zero; changed in place.
        elsewhere: gives the function where a mask says that counts are not zero, by a special function that
            takes ten times as long.
    """
    others = y != 0  # also NaN
    at_zero[others] = elsewhere(others)
    at_zero[y < 0] = 0.0
    return at_zero


def quadrature(mean: Tensor, variance: Tensor, n_nodes: int) -> Iterator[tuple[Tensor, float]]:
    """Yield Gauss-Hermite nodes and weights for expectations under N(mean, variance)."""
    node, weight = np.polynomial.hermite_e.hermegauss(n_nodes)
    sd = variance.clamp_min(0.0).sqrt()
    for x, w in zip(node.tolist(), (weight / weight.sum()).tolist(), strict=True):
        yield mean + x * sd, w
