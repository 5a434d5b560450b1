"""Likelihoods with a learned scale."""

import numpy as np
import torch

from colatent.data.likelihoods import LIKELIHOODS
from colatent.models.mmgpvae.likelihoods import ChannelLikelihood, masked_sum


def test_masked_sum_ignores_what_was_not_observed() -> None:
    log_prob = torch.ones(2, 3, 4)
    observed = torch.ones(2, 3, 4, dtype=torch.bool)
    observed[0, 1], log_prob[0, 1] = False, float("nan")
    assert masked_sum(log_prob, observed).tolist() == [8.0, 12.0]


def test_only_likelihoods_with_a_scale_learn_one() -> None:
    assert {name for name in LIKELIHOODS if ChannelLikelihood(name, 3).scale() is not None} == {
        "gaussian-sqrt",
        "gaussian",
        "negative-binomial",
    }
    np.testing.assert_allclose(ChannelLikelihood("negative-binomial", 3).scale().detach(), 10.0)
