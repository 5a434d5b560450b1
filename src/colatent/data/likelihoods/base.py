"""What a likelihood is: the distribution of an observation given a predictor eta."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor
    from torch.distributions import Distribution

Array = NDArray[np.float64]

_NODES = 12  # of the quadrature of an expected log density
_MIN_COUNT = 1e-3  # per bin; a silent unit starts at a rate that one training set could just have missed


class Likelihood(ABC):
    """The distribution of an observation y given its predictor eta, independent over bins and channels.

    NumPy arrays hold expected values and scales in the data's units, for predictions; tensors hold eta and
    the log of the scale, for fits. All broadcast, the last dimension is the channel. The scale is a second
    parameter per channel; it is None for likelihoods without one. Log densities are in nats.

    Attributes:
        name: in configs and fits.
        title: in reports.
        describes: "values", "counts" or "binary".
        models: kinds of models whose configs may name it.
        unit: of eta, in reports.
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
        """Return log p(y) where y has this expected value."""

    @abstractmethod
    def cdf(self, y: Array, mean: Array, scale: Any) -> Array:
        """Return the distribution function at y."""

    def quantile(self, probability: float, mean: Array, scale: Any) -> Array:
        """Return the quantile of a continuous likelihood."""
        raise NotImplementedError(f"{self.name} has no closed quantile")

    @abstractmethod
    def distribution(self, eta: Tensor, log_scale: Any) -> Distribution:
        """Return the distribution of y given eta."""

    @abstractmethod
    def initial_eta(self, mean: Tensor) -> Tensor:
        """Return the eta at which the expected value of y is ``mean``."""

    def scale(self, log_scale: Tensor) -> Tensor:
        """Return the scale given its logarithm."""
        return log_scale.exp()

    def log_prob(self, y: Tensor, eta: Tensor, log_scale: Any) -> Tensor:
        """Return log p(y | eta)."""
        return self.distribution(eta, log_scale).log_prob(y)

    def expected_log_prob(self, y: Tensor, mean: Tensor, variance: Tensor, log_scale: Any) -> Tensor:
        """Return E[log p(y | eta)] over eta ~ N(mean, variance); here by Gauss-Hermite quadrature."""
        import torch

        nodes = quadrature(mean, variance, _NODES)
        return torch.stack([w * self.log_prob(y, eta, log_scale) for eta, w in nodes]).sum(dim=0)


class Expectation(NamedTuple):
    """Expectations under eta ~ N(mean, variance), elementwise.

    Attributes:
        log_density: E[log p(y | eta)].
        slope: E[d log p / d eta].
        curvature: -E[d^2 log p / d eta^2], not negative.
        scale_slope: E[d log p / d log scale], zero without a scale.
    """

    log_density: Tensor
    slope: Tensor
    curvature: Tensor
    scale_slope: Tensor


class CountLikelihood(Likelihood):
    """A likelihood of counts that is log-concave in eta, so that Gaussian sites can approximate it.

    Unless a subclass says otherwise, exp(eta) is the expected count.
    """

    describes = "counts"
    models = frozenset({"gpfa", "mm-gpvae"})
    unit = "log rate"

    def initial_eta(self, mean: Tensor) -> Tensor:
        return mean.clamp_min(_MIN_COUNT).log()

    def initial_loading_and_offset(self, loading: Array, mean: Array) -> tuple[Array, Array]:
        """Return where fits of C z + d start.

        Args:
            loading: loadings of log rates (channel, latent).
            mean: count per bin (channel,), positive.
        """
        return loading, np.log(mean) - 0.5 * (loading**2).sum(1)

    @abstractmethod
    def expectation(self, y: Tensor, mean: Tensor, variance: Tensor, log_scale: Tensor) -> Expectation:
        """Return the expectations for counts y."""

    @abstractmethod
    def moments(self, mean: Tensor, variance: Tensor, log_scale: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and variance of y over eta ~ N(mean, variance)."""


def quadrature(mean: Tensor, variance: Tensor, n_nodes: int) -> Iterator[tuple[Tensor, float]]:
    """Yield nodes and weights of an expectation under N(mean, variance) (Gauss-Hermite)."""
    node, weight = np.polynomial.hermite_e.hermegauss(n_nodes)
    sd = variance.clamp_min(0.0).sqrt()
    for x, w in zip(node.tolist(), (weight / weight.sum()).tolist(), strict=True):
        yield mean + x * sd, w
