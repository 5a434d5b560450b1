"""Binary observations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from colatent.data.likelihoods.base import Array, Likelihood

if TYPE_CHECKING:
    from torch import Tensor
    from torch.distributions import Distribution


class Bernoulli(Likelihood):
    """y is 1 with log odds eta, else 0."""

    name = "bernoulli"
    title = "Bernoulli"
    describes = "binary"
    models = frozenset({"mm-gpvae"})
    unit = "log odds"

    def log_density(self, y: Array, mean: Array, scale: Any) -> Array:
        from scipy.special import xlog1py, xlogy

        return xlogy(y, mean) + xlog1py(1 - y, -mean)

    def cdf(self, y: Array, mean: Array, scale: Any) -> Array:
        return np.where(y < 0, 0.0, np.where(y < 1, 1 - mean, 1.0))

    def distribution(self, eta: Tensor, log_scale: Any) -> Distribution:
        from torch.distributions import Bernoulli

        return Bernoulli(logits=eta, validate_args=False)

    def initial_eta(self, mean: Tensor) -> Tensor:
        return mean.logit(eps=1e-3)
