"""GPFA and elephant's on the sample recording of the original GPFA code, same trials, same units.

elephant's parameters are put into our inference (which other tests check against dense algebra), so
that leave-one-unit-out predictions differ by the fit alone.
"""

import numpy as np
import pytest
from premotor import BIN_WIDTH, LATENTS, RECORDING, fit_elephant, leave_one_unit_out_error, read_counts

from colatent.models.gpfa.gaussian import GPFA

pytestmark = pytest.mark.skipif(not RECORDING.exists(), reason=f"no {RECORDING}; set COLATENT_REAL_DATA")


def test_leave_one_unit_out_error_is_not_above_elephants() -> None:
    pytest.importorskip("elephant.gpfa.gpfa_core")
    roots = np.sqrt(read_counts())
    fold = np.arange(len(roots)) % 4
    ours, theirs = 0.0, 0.0
    for f in (0, 1):
        train, test = roots[fold != f], roots[fold == f]
        ours += leave_one_unit_out_error(GPFA(LATENTS, BIN_WIDTH, automatic_relevance=0.5).fit(train), test)
        theirs += leave_one_unit_out_error(fit_elephant(train, max_iterations=200), test)
    assert ours <= theirs
