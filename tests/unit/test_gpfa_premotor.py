"""GPFA and elephant's on the sample recording of the original GPFA code, same trials, same units.

elephant's parameters are put into our inference (which other tests check against dense algebra), so
that leave-one-unit-out predictions differ by the fit alone.
"""

import os
from pathlib import Path

import h5py
import numpy as np
import pytest

from colatent import gp
from colatent.models.gpfa import GPFA

FOLDER = Path(os.environ.get("COLATENT_REAL_DATA", Path(__file__).parents[3] / "shared" / "data"))
RECORDING = FOLDER / "premotor_gpfa_sample.nwb"
BIN_WIDTH = 0.02
LATENTS = 8

pytestmark = pytest.mark.skipif(not RECORDING.exists(), reason=f"no {RECORDING}; set COLATENT_REAL_DATA")


def root_counts() -> np.ndarray:
    """Square roots of the counts (trial, time, unit) of the units that fire in every fold."""
    with h5py.File(RECORDING) as file:
        starts = file["intervals/trials/start_time"][:]
        ends = file["units/spike_times_index"][:]
        spikes = np.split(file["units/spike_times"][:], ends[:-1])
    edges = starts[:, None] + BIN_WIDTH * np.arange(21)
    counts = np.stack([np.diff(np.searchsorted(s, edges - 1e-6), axis=1) for s in spikes], axis=-1)
    often = (counts.sum(axis=1) > 0).mean(axis=0) > 0.2
    return np.sqrt(counts[:, :, often].astype(float))


def fit_elephant(trials: np.ndarray) -> GPFA:
    gpfa_core = pytest.importorskip("elephant.gpfa.gpfa_core")
    np.random.seed(0)  # noqa: NPY002 (elephant cuts its training pieces with the global generator)
    rows = np.array([(len(t), t.T.copy()) for t in trials], dtype=[("T", int), ("y", "O")])
    parameters, _ = gpfa_core.fit(rows, x_dim=LATENTS, bin_width=20.0, em_max_iters=200)
    return GPFA.from_state(
        {
            "loading": parameters["C"],
            "offset": parameters["d"].ravel(),
            "noise_variance": parameters["R"].diagonal(),
            "time_scale": BIN_WIDTH / np.sqrt(parameters["gamma"]),
            "bin_width": np.array(BIN_WIDTH),
            "tolerance": np.array(1e-8),
            "kernel": np.array(gp.KERNELS.index("squared-exponential")),
        }
    )


def leave_one_unit_out_error(model: GPFA, trials: np.ndarray) -> float:
    """Sum of squared errors of each unit predicted from all the others (Yu et al. 2009, fig. 5)."""
    error = 0.0
    for unit in range(trials.shape[2]):
        seen = trials.copy()
        seen[..., unit] = np.nan
        error += float(((model.predict(seen).mean - trials)[..., unit] ** 2).sum())
    return error


def test_leave_one_unit_out_error_is_not_above_elephants() -> None:
    roots = root_counts()
    fold = np.arange(len(roots)) % 4
    ours, theirs = 0.0, 0.0
    for f in (0, 1):
        train, test = roots[fold != f], roots[fold == f]
        ours += leave_one_unit_out_error(GPFA(LATENTS, BIN_WIDTH).fit(train), test)
        theirs += leave_one_unit_out_error(fit_elephant(train), test)
    assert ours < 1.002 * theirs
