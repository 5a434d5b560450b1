"""The likelihoods, one record each; to add one, write its file and register it here.

Importing this package must not load PyTorch or SciPy, because the config takes the names from it.
"""

from colatent.data.likelihoods.base import CountLikelihood, Expectation, Likelihood, SiteLikelihood
from colatent.data.likelihoods.bernoulli import Bernoulli
from colatent.data.likelihoods.gaussian import Gaussian, GaussianOfRoots
from colatent.data.likelihoods.negative_binomial import NegativeBinomial
from colatent.data.likelihoods.poisson import Poisson, SoftplusPoisson

# saved count fits store an index into this order: append new ones at the end
LIKELIHOODS: dict[str, Likelihood] = {
    record.name: record
    for record in (
        GaussianOfRoots(),
        Gaussian(),
        Poisson(),
        SoftplusPoisson(),
        NegativeBinomial(),
        Bernoulli(),
    )
}


def likelihoods_of(kind: str) -> tuple[str, ...]:
    """Return the names of the likelihoods that a kind of model supports."""
    return tuple(name for name, record in LIKELIHOODS.items() if kind in record.models)


__all__ = ["LIKELIHOODS", "CountLikelihood", "Expectation", "Likelihood", "SiteLikelihood", "likelihoods_of"]
