"""The likelihood of counts, chosen from the training trials."""

import numpy as np
from numpy.typing import NDArray

# Mean count per bin from which square roots of counts are close to Gaussian.
ENOUGH = 0.5


def chosen_likelihood(counts: NDArray[np.float64]) -> tuple[str, str]:
    """Return a likelihood for counts and the reason, in words.

    Square roots of large counts are close to Gaussian with a variance of a quarter (Yu et al. 2009), and
    their exact inference takes less time. Small counts are mostly zero: their roots tell less than they do.

    Args:
        counts: training trials (trial, time, channel), NaN where nothing was observed.
    """
    seen = ~np.isnan(counts)
    rate = np.where(seen, counts, 0.0).sum((0, 1)) / np.maximum(seen.sum((0, 1)), 1)
    typical = float(np.median(rate[seen.any((0, 1))]))
    reason = f"as half of the channels have more than {typical:.2g} counts per bin"
    return ("gaussian-sqrt" if typical >= ENOUGH else "poisson"), reason
