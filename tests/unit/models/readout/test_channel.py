"""Read-outs of counts where latents lie beyond those that they were fitted to."""

import numpy as np
import pytest

from colatent.models.readout.channel import adapt_count, expected_count, fit_count


@pytest.mark.parametrize("to_the_end", [False, True])
def test_a_rate_is_not_extrapolated_beyond_the_most_it_was_fitted_to(to_the_end):
    rng = np.random.default_rng(0)
    latent = rng.normal(size=(400, 2))
    count = rng.poisson(np.exp(latent @ [0.9, -0.5] + 1.0)).astype(float)
    readout = fit_count(latent, count)
    most = expected_count(readout, latent).max()
    if to_the_end:
        readout = adapt_count(readout, latent[:200], 2 * count[:200])
    beyond = expected_count(readout, np.array([[30.0, -30.0], [0.0, 0.0]]))
    assert beyond[0] == most and 0 < beyond[1] < most
    inside = expected_count(readout, latent)
    assert inside.max() <= most and np.corrcoef(inside, count)[0, 1] > 0.7
