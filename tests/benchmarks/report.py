"""How long the start page of many sessions takes from ready scores, as a ratio to reading the scores.

    python tests/benchmarks/report.py    # 50 sessions x 4 models x 5 folds

Goals: at most 60 s; a page of at most 5 MB, which a browser opens without an error (Chromium, if it is here).
"""

import os
import sys
import tempfile
import time
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from colatent.config import Config
from colatent.report import write_start_page
from colatent.scoring.tables import SCORE_COLUMNS
from colatent.store.stores import write_store

sys.path.append(str(Path(__file__).parents[1]))
from support import CHROMIUM, open_page

N_SESSIONS, N_FOLDS = 50, 5
CHANNELS = {"spikes": 100, "emg": 8, "pose": 6}
MODELS: dict[str, dict[str, Any]] = {
    "mmgpvae": {"kind": "mm-gpvae", "latents": {"spikes+emg+pose": 3, "spikes": 2}},
    "gpfa": {"kind": "gpfa", "latents": {"spikes": 4}},
    "smoothed_fa": {"kind": "smoothed-fa", "latents": {"spikes": 4}},
    "condition_mean": {"kind": "condition-mean"},
}
ASKED = {
    "mmgpvae": ["spikes", "emg", "pose", "spikes+emg", "spikes+pose", "emg+pose", "spikes+emg+pose"],
    "gpfa": ["spikes"],
    "smoothed_fa": ["spikes"],
    "condition_mean": ["none"],
}


def score_rows(rng: np.random.Generator) -> pd.DataFrame:
    """Return all scores of one session, of every channel, as `score` writes them."""
    rows = []
    for model, fold in product(MODELS, range(N_FOLDS)):
        for given, (predicted, n) in product(ASKED[model], CHANNELS.items()):
            if given == predicted == "none" or (len(ASKED[model]) == 1 and given not in ("none", predicted)):
                continue
            heldout = "trials" if given == "none" or predicted in given else "modality"
            channels = [*(f"channel {i}" for i in range(n)), "pooled"]
            own = ["bits_per_spike", "psth_r2"] if predicted == "spikes" else ["r2", "nrmse"]
            for metric, channel in product([*own, "log_density", "coverage_50", "coverage_95"], channels):
                rows.append((model, fold, 0, heldout, given, predicted, channel, metric, rng.normal(), 4000))
    return pd.DataFrame(rows, columns=SCORE_COLUMNS[1:])


def main() -> None:
    sessions = [f"monkey_{i:02d}" for i in range(N_SESSIONS)]
    with tempfile.TemporaryDirectory() as place:
        os.chdir(place)
        alignment = {"intervals": "trials", "bin_width": 0.02}
        modalities = {m: {"kind": "continuous", "source": f"processing/behavior/{m}"} for m in CHANNELS}
        modalities["spikes"] = {"kind": "spikes", "source": "units"}
        config = Config.model_validate({
            "sessions": "sessions.tsv", "results": "out", "alignment": alignment, "modalities": modalities,
            "models": MODELS, "heldout": {"folds": N_FOLDS},
        })  # fmt: skip
        one = score_rows(np.random.default_rng(0))
        attrs = {
            "session": "",
            "source": {},
            "bin_width": 0.02,
            "findings": [],
            "simulated": True,
            "modalities": list(CHANNELS),
        }
        for session in sessions:
            write_store(
                Path("out") / session / "session", {"trials": xr.Dataset()}, attrs | {"session": session}
            )
        scores = pd.concat([one.assign(session=session) for session in sessions])[SCORE_COLUMNS]
        scores.to_csv("out/scores.csv", index=False)
        begin = time.perf_counter()
        pd.read_csv("out/scores.csv")
        reading = time.perf_counter() - begin
        begin = time.perf_counter()
        page = Path("out/report/index.html")
        write_start_page(config, sessions, page, Path("out/report/figures"))
        seconds = time.perf_counter() - begin
        size = page.stat().st_size / 2**20
        print(f"{len(scores):,} scores of {N_SESSIONS} sessions x {len(MODELS)} models x {N_FOLDS} folds")
        print(
            f"start page        {seconds:6.1f} s (goal 60), {seconds / reading:.1f} times reading the scores"
        )
        print(f"its size          {size:6.2f} MiB (goal 5)")
        if CHROMIUM:
            begin = time.perf_counter()
            opened = open_page(page)
            print(f"opened            {time.perf_counter() - begin:6.1f} s, start of the browser included")
            print(f"in its console    {len(opened.console):4d}   lines (goal 0)")


if __name__ == "__main__":
    main()
