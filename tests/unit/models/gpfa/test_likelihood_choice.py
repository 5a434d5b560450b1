"""Which likelihood is chosen for which counts."""

import numpy as np
import pytest

from colatent.models.gpfa.likelihood_choice import ENOUGH, chosen_likelihood, in_words


def counts(*rates: float) -> np.ndarray:
    """Return counts of channels with exactly these means in each of eight trials of 20 bins."""
    total = np.round(20 * np.array(rates)).astype(int)
    bins = np.arange(20)[:, None]
    one = total // 20 + (bins < total % 20)
    return np.tile(one.astype(float), (8, 1, 1))


def test_the_mean_over_channels_decides() -> None:
    assert counts(0.3, 1.2).mean((0, 1)).tolist() == [0.3, 1.2]
    assert chosen_likelihood(counts(0.05))[0] == "poisson"
    assert chosen_likelihood(counts(ENOUGH - 0.05))[0] == "poisson"
    assert chosen_likelihood(counts(ENOUGH))[0] == "gaussian-sqrt"
    assert chosen_likelihood(counts(5.0))[0] == "gaussian-sqrt"
    # also if most channels have fewer
    assert chosen_likelihood(counts(0.2, 0.2, 3.0))[0] == "gaussian-sqrt"


def test_what_was_not_observed_does_not_count() -> None:
    """Neither placeholders of missing bins nor channels that were never seen lower the mean."""
    masked = counts(1.5, 1.5)
    masked[:, ::2, 0] = np.nan
    assert chosen_likelihood(masked) == chosen_likelihood(counts(1.5, 1.5))
    never = np.concatenate([counts(1.5), np.full((8, 20, 3), np.nan)], axis=2)
    assert chosen_likelihood(never) == chosen_likelihood(counts(1.5))
    # a channel seen in one trial weighs as much as the others
    rarely = counts(0.1, 4.0)
    rarely[1:, :, 1] = np.nan
    assert chosen_likelihood(rarely) == chosen_likelihood(counts(0.1, 4.0))


def test_silent_channels_do_not_count() -> None:
    assert chosen_likelihood(counts(1.5, 0.0, 0.0, 0.0)) == chosen_likelihood(counts(1.5))


@pytest.mark.parametrize("nothing", [np.full((8, 20, 2), np.nan), np.zeros((8, 20, 2))])
def test_without_counts_it_is_poisson(nothing: np.ndarray) -> None:
    assert chosen_likelihood(nothing)[0] == "poisson"


def test_the_reason_names_the_mean() -> None:
    assert in_words(*chosen_likelihood(counts(0.3, 0.5))) == (
        "Poisson, as channels have 0.4 counts per bin on average"
    )
    assert in_words("gaussian-sqrt", np.nan) == "Gaussian of square-rooted counts"  # named in the config
