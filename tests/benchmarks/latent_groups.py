"""Groups of latents found by GPFA(latents="auto"): python tests/benchmarks/latent_groups.py [SEEDS]

Simulations of `multimodal_gpfa.py` and one in which nothing is shared, their training trials alone. A seed
counts as right if the groups and the number of latents of each are the true ones. CPU seconds of one thread
for the search and the fit, and how often longer than a fit to the true groups. The last line is JSON; the
exit status is 1 if a goal is missed. Simulations without a goal are reported only.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import sys
import time
from collections import Counter
from typing import Any

import numpy as np
from multimodal_gpfa import BIN_WIDTH, SIMULATIONS, Simulation, ending, simulate

from colatent import GPFA

NOTHING_SHARED = "nothing shared"
# share of the seeds that must be right
GOALS = {"linear": 0.9, "three modalities": 0.9, "everything shared": 0.9, NOTHING_SHARED: 0.9}
OTHERS = ["weak shared signal", "equal time scales", "20 training trials", "heavy-tailed noise", "network"]
SECONDS = 5.0  # mean over the seeds of a simulation


def run(of: Simulation, seed: int) -> dict[str, Any]:
    """Fit one simulation and return its row."""
    _, names, data = simulate(of, seed)
    test = np.arange(of.trials) % 4 == 0
    training = {modality: values[~test] for modality, values in data.items()}
    seconds = []
    for latents in ("auto", dict(Counter(names))):
        start = time.process_time()
        model = GPFA(latents=latents, bin_width=BIN_WIDTH).fit(training)
        seconds.append(time.process_time() - start)
        if latents == "auto":
            found = dict(Counter(model.latent_groups_))
    return {"found": found, "right": found == dict(Counter(names)), "cpu_s": seconds}


def main() -> int:
    seeds = range(int(sys.argv[1]) if len(sys.argv) > 1 else 10)
    results, failures = {}, []
    print(f"{'simulation':22} {'right':>8} {'CPU-s':>6} {'times':>6}  found otherwise")
    for name in [*GOALS, *OTHERS]:
        of = SIMULATIONS.get(name, Simulation({}, {"spikes": 2, "emg": 2}))
        results[name] = rows = [run(of, seed) for seed in seeds]
        right = sum(row["right"] for row in rows)
        seconds, plain = np.mean([row["cpu_s"] for row in rows], axis=0)
        wrong = [f"{seed}: {row['found']}" for seed, row in zip(seeds, rows, strict=True) if not row["right"]]
        print(
            f"{name:22} {right:4}/{len(rows):<3} {seconds:6.2f} {seconds / plain:6.1f}  {', '.join(wrong)}",
            flush=True,
        )
        if right < GOALS.get(name, 0) * len(rows):
            failures.append(f"{name}: {right} of {len(rows)} seeds right")
        if seconds > SECONDS:
            failures.append(f"{name}: {seconds:.1f} CPU-s")
    shared = [
        s for s, row in zip(seeds, results[NOTHING_SHARED], strict=True) if "spikes+emg" in row["found"]
    ]
    failures += [f"{NOTHING_SHARED}, seed {seed}: a shared latent" for seed in shared]
    return ending(results, failures)


if __name__ == "__main__":
    sys.exit(main())
