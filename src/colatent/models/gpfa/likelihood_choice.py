"""The likelihood of counts, chosen from the training trials."""

import numpy as np
from numpy.typing import NDArray

from colatent.data.likelihoods import LIKELIHOODS

# Mean count per bin from which Poisson predictions are hardly better, see `chosen_likelihood`.
ENOUGH = 0.75


def chosen_likelihood(counts: NDArray[np.float64]) -> tuple[str, float]:
    """Return a likelihood for counts, and the mean count per bin by which it was chosen.

    Square roots of large counts are close to Gaussian with a variance of a quarter (Yu et al. 2009), and
    their exact inference takes less time. Small counts are mostly zero: their roots tell less than they do.
    Gain of Poisson in co-smoothing (bits per spike of hidden units), and CPU time of its fit:

    ==================================  ==============  ====  ========
    recording or simulation             counts per bin  gain  CPU time
    ==================================  ==============  ====  ========
    simulated, rate 0.05                0.10            25 %  x 3
    premotor cortex, 10 and 20 ms bins  0.14 and 0.28   3 %   x 2 to 4
    simulated, rate 0.2                 0.39            7 %   x 3
    motor cortex, monkey S              0.67            15 %  x 1.3
    premotor cortex, 50 ms bins         0.70            3 %   x 1.2
    motor cortex, monkey with EMG       0.79            0 %   x 5
    motor cortex, Chewie                0.96            0 %   x 2
    simulated, rates 0.8 and 2          1.6 and 3.9     2 %   x 4
    ==================================  ==============  ====  ========

    The share of zeros, the Fano factor and the median unit's rate tell these cases apart less well. The
    negative binomial takes 4 to 14 times as long as Poisson and gains 1 % at most, even of counts that are
    overdispersed: it has to be asked for.

    Args:
        counts: training trials (trial, time, channel), NaN where nothing was observed. Silent channels
            do not count.
    """
    seen = ~np.isnan(counts)
    rate = np.where(seen, counts, 0.0).sum((0, 1)) / np.maximum(seen.sum((0, 1)), 1)
    firing = rate[rate > 0]
    mean = float(firing.mean()) if len(firing) else 0.0
    return ("gaussian-sqrt" if mean >= ENOUGH else "poisson"), mean


def in_words(likelihood: str, mean_count: float) -> str:
    """Say which likelihood a modality has and, if it was chosen (no NaN), why."""
    title = LIKELIHOODS[likelihood].title
    chosen = f", as channels have {mean_count:.2g} counts per bin on average"
    return title if np.isnan(mean_count) else title + chosen
