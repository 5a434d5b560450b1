"""Which channels of an answer have a score at all: decided here, for every metric and histogram."""

import numpy as np
from numpy.typing import NDArray

from colatent.data.scaling import standard_deviation
from colatent.scoring.answers import Answer

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


def scorable(answered: Answer, kind: str, scale: Array) -> Mask:
    """Return the channels (channel,) that are scored; of the others every metric is NaN.

    A continuous channel is not scored if it is constant or never observed in the training trials: it has no
    unit to express errors in, and no model could learn its spread, so that its density would be that of the
    least s.d. a model allows. Nor is one that is constant in the scored bins, of which there is no variance
    to explain. It depends on no model: all are scored on the same channels.

    Counts are always scored. A silent unit has no bits/spike, nor a PSTH R² (see `metrics`), but its zeros
    have a probability, at most 1, under the rate predicted for it: log density and coverage keep it, as
    pooled bits/spike does, or a rate predicted of a unit that stays silent would cost nothing.

    Args:
        answered: with the bins that are scored.
        kind: of the predicted modality.
        scale: s.d. of its channels (channel,) in the training trials, NaN of those without one.
    """
    if kind == "spikes":
        return np.ones(len(scale), dtype=bool)
    return np.isfinite(scale) & np.isfinite(standard_deviation(answered.observation, answered.scored))
