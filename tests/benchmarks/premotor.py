"""GPFA and elephant's on a real recording, same trials and units: python tests/benchmarks/premotor.py

Reads premotor_gpfa_sample.nwb from COLATENT_REAL_DATA (default ../shared/data) and says so if it is
not there. Four folds of trials, 20 ms bins, eight latents. Of each fold's test trials: the squared
error of each unit's square-rooted counts predicted from all other units (Yu et al. 2009, fig. 5),
and co-smoothing of a quarter of the units in bits/spike, read out by the same Poisson regression.
elephant's parameters are put into our inference, which the tests check against dense algebra.

Eight latents are too many for 42 trials, so that loadings are shrunk: the strength of that prior is
chosen by the leave-one-unit-out error in cross-validation inside each fold's training trials. The
unshrunk fit (maximum likelihood) is printed beside it; the times are those of one fit. The last line
is JSON; the exit status is 1 if a goal is missed.
"""

import json
import os
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import gpfa as benchmark  # the benchmark beside this one; it also sets one thread
import numpy as np

FOLDER = Path(os.environ.get("COLATENT_REAL_DATA", Path(__file__).parents[3] / "shared" / "data"))
RECORDING = FOLDER / "premotor_gpfa_sample.nwb"
BIN_WIDTH, LATENTS, FOLDS = 0.02, 8, 4
STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)  # of automatic relevance
GOALS = {
    "leave-one-unit-out error over elephant's": ("at most", 1.0),
    "co-smoothing bits/spike less elephant's": ("at least", 0.0),
}


def read_counts() -> np.ndarray:
    """Counts (trial, time, unit) of the units that fire in more than a fifth of the trials."""
    import h5py

    with h5py.File(RECORDING) as file:
        starts = file["intervals/trials/start_time"][:]
        ends = file["units/spike_times_index"][:]
        spikes = np.split(file["units/spike_times"][:], ends[:-1])
    edges = starts[:, None] + BIN_WIDTH * np.arange(21)
    counts = np.stack([np.diff(np.searchsorted(s, edges - 1e-6), axis=1) for s in spikes], axis=-1)
    return counts[:, :, (counts.sum(axis=1) > 0).mean(axis=0) > 0.2].astype(float)


def fit_ours(roots: np.ndarray, strength: float = 0.0) -> Any:
    from colatent.models.gpfa.gaussian import GPFA

    return GPFA(LATENTS, BIN_WIDTH, automatic_relevance=strength).fit(roots)


def choose_strength(roots: np.ndarray) -> float:
    """The strength with the smallest leave-one-unit-out error in folds of these training trials."""
    held_out = np.arange(len(roots)) % FOLDS == np.arange(FOLDS)[:, None]

    def error(strength: float) -> float:
        return sum(leave_one_unit_out_error(fit_ours(roots[~h], strength), roots[h]) for h in held_out)

    return min(STRENGTHS, key=error)


def fit_elephant(roots: np.ndarray, max_iterations: int = 500) -> Any:
    """elephant's parameters, in our class."""
    from elephant.gpfa import gpfa_core

    from colatent.models import gp
    from colatent.models.gpfa.gaussian import GPFA

    np.random.seed(0)  # noqa: NPY002 (elephant cuts its training pieces with the global generator)
    sequences = benchmark.Elephant.sequences(roots)
    parameters, _ = gpfa_core.fit(
        sequences, x_dim=LATENTS, bin_width=1000 * BIN_WIDTH, em_max_iters=max_iterations
    )
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


def leave_one_unit_out_error(model: Any, roots: np.ndarray) -> float:
    error = 0.0
    for unit in range(roots.shape[2]):
        seen = roots.copy()
        seen[..., unit] = np.nan
        error += float(((model.predict(seen).mean - roots)[..., unit] ** 2).sum())
    return error


def co_smoothing(model: Any, train: np.ndarray, test: np.ndarray, hidden: np.ndarray) -> float:
    latents = []
    for counts in (train, test):
        seen = np.sqrt(counts)
        seen[:, :, hidden] = np.nan
        latents.append(model.posterior(seen).mean.reshape(-1, LATENTS))
    return benchmark.co_smoothing(latents[0], train[..., hidden], latents[1], test[..., hidden])


def run_fold(counts: np.ndarray, fold: int) -> dict[str, Any]:
    held_out = np.arange(len(counts)) % FOLDS == fold
    train, test = counts[~held_out], counts[held_out]
    hidden = np.random.default_rng(fold).permutation(counts.shape[2]) % 4 == 0
    strength = choose_strength(np.sqrt(train))
    row: dict[str, Any] = {"strength": strength}
    fits = {"ours": lambda y: fit_ours(y, strength), "unshrunk": fit_ours, "elephant": fit_elephant}
    for name, fit in fits.items():
        start = time.process_time()
        model = fit(np.sqrt(train))
        row[name] = {
            "fit_s": time.process_time() - start,
            "error": leave_one_unit_out_error(model, np.sqrt(test)),
            "bits": co_smoothing(model, train, test, hidden),
        }
    return row


def main() -> int:
    warnings.filterwarnings("ignore")
    if not RECORDING.exists():
        print(f"skipped: no {RECORDING}; set COLATENT_REAL_DATA")
        print(json.dumps({"skipped": True}))
        return 0
    counts = read_counts()
    fit_ours(np.sqrt(counts[:10]))  # libraries load parts of themselves at first use
    rows = []
    for fold in range(FOLDS):
        rows.append(row := run_fold(counts, fold))
        error, bits, fit_s = (
            " -> ".join(f"{row[name][key]:.{digits}f}" for name in ("elephant", "unshrunk", "ours"))
            for key, digits in (("error", 2), ("bits", 4), ("fit_s", 3))
        )
        print(
            f"fold {fold} (elephant -> unshrunk -> strength {row['strength']}): leave-one-unit-out error "
            f"{error}; co-smoothing {bits} bits/spike; fit {fit_s} CPU-s",
            flush=True,
        )
    errors, bits_of = (
        {name: float(np.mean([row[name][key] for row in rows])) for name in ("ours", "elephant")}
        for key in ("error", "bits")
    )
    values = dict(
        zip(GOALS, (errors["ours"] / errors["elephant"], bits_of["ours"] - bits_of["elephant"]), strict=True)
    )
    missed = []
    for goal, (sense, limit) in GOALS.items():
        met = values[goal] >= limit if sense == "at least" else values[goal] <= limit
        print(f"{'met   ' if met else 'MISSED'} {goal}: {values[goal]:.5f} ({sense} {limit:g})")
        missed += [] if met else [goal]
    print(json.dumps({"goals": values, "missed": missed, "folds": rows}))
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
