"""GPFA of counts: the same prior with Poisson or negative-binomial observations.

    y_t ~ p(y | eta_t),   eta_t = C z_t + d,   z_k ~ GP(0, correlation(. / tau_k))

The posterior is approximated by the best Gaussian. It has the form of the prior times Gaussian
sites, one per bin and channel, whose precision and slope are expectations of the likelihood's
derivatives under the posterior itself; they are iterated as conjugate-computation variational
inference does (Khan & Lin 2017; for GPFA, Jensen et al. 2021). Given converged sites, the gradient
of the bound with respect to the parameters needs no derivative of the sites.
"""

from collections.abc import Callable
from typing import NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.stats import poisson
from torch import Tensor

from colatent import gp
from colatent.models.count_likelihoods import LIKELIHOODS, CountLikelihood
from colatent.models.gpfa import GPFA, Posterior, Prediction
from colatent.models.gpfa_data import Observations, TrialsLike, as_observations
from colatent.models.gpfa_evidence import Prior
from colatent.models.gpfa_sites import (
    CountParameters,
    SitePosterior,
    Sites,
    bound_and_gradient,
    initial_sites,
    iterate_sites,
)
from colatent.models.latent_model import LatentModel

Array = NDArray[np.float64]
