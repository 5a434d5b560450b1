"""Which channels are scored: decided here once for every metric and histogram."""

import numpy as np
from numpy.typing import NDArray

from colatent.data.scaling import standard_deviation
from colatent.scoring.answers import Answer

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


def scorable(answered: Answer, kind: str, scale: Array) -> Mask:
    """Return a mask of the scored channels (channel,); every metric of the others is NaN.

    A continuous channel is not scored if it is constant or never observed in the training trials: errors
    have no unit, and no model could learn its spread, so its density would only reflect the model's s.d.
    floor. Nor is a channel scored that is constant in the scored bins, with no variance to explain. The
    rule does not depend on the model, so all are scored on the same channels.

    Counts are always scored. A silent unit has neither bits/spike nor PSTH R² (see `metrics`), but log
    density and coverage include it, as pooled bits/spike does; otherwise spikes predicted for a silent
    unit would cost nothing.

    Args:
        answered: an answer with its scored bins.
        kind: kind of the predicted modality.
        scale: s.d. of its channels (channel,) in the training trials, NaN if undefined.
    """
    if kind == "spikes":
        return np.ones(len(scale), dtype=bool)
    return np.isfinite(scale) & np.isfinite(standard_deviation(answered.observation, answered.scored))
