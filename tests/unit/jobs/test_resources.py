"""What jobs ask for grows with data and model, and is more than was measured."""

import re
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from pydantic import TypeAdapter
from support import QUICK_MODELS

from colatent.config import Distributed, Model
from colatent.jobs.resources import (
    Size,
    fit_mb,
    fit_minutes,
    ingest_mb,
    ingest_minutes,
    reading_mb,
    score_mb,
    score_minutes,
    session_size,
)
from colatent.store.stores import write_store

ROOT = Path(__file__).parents[3]

# the demo on one shared core: peak memory of scoring MM-GPVAE 726 MiB; 205 epochs in 68 s
DEMO, PEAK_MB, SECONDS_AN_EPOCH = Size(2.9, 80 * 50), 726 * 1.05, 68 / 205


def size(n_trials: int, n_bins: int, n_channels: int) -> Size:
    return Size(n_trials * n_bins * n_channels * 9 / 1e6, n_trials * n_bins)


def model(kind: str, **options) -> Model:
    latents = {"mm-gpvae": {"spikes+emg": 3, "spikes": 2, "emg": 1}, "gpfa": {"spikes": 6}}
    latents["smoothed-fa"] = latents["gpfa"]
    own = {"latents": latents[kind]} if kind in latents else {}
    return TypeAdapter(Model).validate_python({"kind": kind, **own, **options})


def test_the_size_of_a_store_is_that_of_its_arrays_in_memory(tmp_path: Path) -> None:
    store = tmp_path / "session"
    assert session_size(store) == (0, 0)
    dims = ("trial", "time", "channel")
    zeros = {"value": (dims, np.zeros((50, 100, 50))), "observed": (dims, np.ones((50, 100, 50), dtype=bool))}
    write_store(store, {"modality/emg": xr.Dataset(zeros)}, {})
    found = session_size(store)
    assert found.mb == pytest.approx(2.25) and found.bins == 5000 and found.channels == pytest.approx(50)


def test_more_is_asked_for_than_the_demo_took() -> None:
    vae = model("mm-gpvae", epochs=100_000, restarts=1)
    assert fit_mb(DEMO, vae) > 2 * PEAK_MB and score_mb(DEMO, vae) > 2 * PEAK_MB
    assert fit_minutes(DEMO, vae) > 1.5 * 100_000 * SECONDS_AN_EPOCH / 60


COUNTS = model("gpfa", likelihood={"spikes": "poisson"})
ROOTS = model("gpfa", likelihood={"spikes": "gaussian-sqrt"})

MEASURED = [
    # what tests/benchmarks/demand.py printed: trials, bins, units; peak (MB) and time (s) of one core
    ((200, 50, 100), model("condition-mean"), (245, 2), (245, 2)),
    ((1000, 50, 200), model("condition-mean"), (749, 21), (686, 7)),
    ((200, 50, 100), model("smoothed-fa"), (282, 2), (295, 5)),
    ((1000, 50, 200), model("smoothed-fa"), (948, 8), (978, 59)),
    ((200, 50, 100), model("ridge-lags"), (588, 4), (246, 2)),
    ((1000, 50, 200), model("ridge-lags"), (3583, 90), (698, 8)),
    ((200, 50, 100), model("mlp-lags", epochs=5), (697, 5), (401, 3)),
    ((1000, 50, 200), model("mlp-lags", epochs=5), (2469, 48), (989, 16)),
    ((200, 50, 100), ROOTS, (467, 3), (503, 8)),
    ((500, 50, 200), ROOTS, (624, 3), None),
    ((200, 50, 100), COUNTS, (718, 5), (885, 13)),
    ((500, 50, 200), COUNTS, (2133, 13), (2711, 43)),
    ((500, 50, 10), COUNTS, (1192, 30), None),
    ((100, 250, 10), COUNTS, (1265, 36), None),
    ((200, 50, 100), model("mm-gpvae", epochs=22, restarts=1), (666, 19), (937, 14)),
    ((500, 50, 200), model("mm-gpvae", epochs=2, restarts=1), (1229, 50), None),
]


@pytest.mark.parametrize(("shape", "of", "fit", "score"), MEASURED)
def test_about_three_times_what_was_measured_is_asked_for(
    shape: tuple[int, int, int], of: Model, fit: tuple[float, float], score: tuple[float, float] | None
) -> None:
    n_trials, n_bins, n_units = shape
    asked = size(n_trials, n_bins, n_units + 16)
    assert 2 * fit[0] < fit_mb(asked, of) < 2000 + 5 * fit[0]
    assert 2 * fit[1] / 60 < fit_minutes(asked, of) < 60 + 60 * fit[1] / 60
    if score:
        assert 2 * score[0] < score_mb(asked, of) < 2000 + 5 * score[0]
        assert 2 * score[1] / 60 < score_minutes(asked, 1) < 60 + 60 * score[1] / 60


def test_cheap_models_ask_for_little_also_on_large_data() -> None:
    large = size(1000, 50, 507)  # 228 MB; peaks were 1179 MB, and 2413 MB when scored
    assert 2 * 1179 < fit_mb(large, model("condition-mean")) < 5 * 1179
    assert fit_minutes(large, model("condition-mean")) < 60
    assert 2 * 2413 < score_mb(large, model("condition-mean")) < 5 * 2413
    assert 2 * 1646 < fit_mb(large, model("mm-gpvae")) < 5 * 1646


def test_it_grows_with_data_and_model() -> None:
    small, large = size(200, 50, 100), size(2000, 50, 1000)
    for kind in QUICK_MODELS:
        assert fit_mb(large, model(kind)) > 3 * fit_mb(small, model(kind))
        assert fit_minutes(large, model(kind)) > fit_minutes(small, model(kind))
        assert score_mb(large, model(kind)) > 5 * score_mb(small, model(kind))
    assert reading_mb(large) > 5 * reading_mb(small)
    assert score_minutes(large, 5) > score_minutes(large, 1) > score_minutes(small, 1)
    time = {name: fit_minutes(large, of) for name, of in SLOW_AND_FAST.items()}
    assert time["epochs"] > 4 * time["few epochs"] and time["restarts"] > 1.3 * time["epochs"]
    assert time["counts"] > time["gpfa"] > time["mean"]
    assert fit_mb(large, model("gpfa")) == fit_mb(large, COUNTS)  # the likelihood is chosen in the fit
    for kind in ("ridge-lags", "mlp-lags"):
        short, long = (model(kind, lags=n) for n in (5, 21))
        assert fit_mb(large, long) > 3 * fit_mb(large, short)
        assert fit_minutes(large, long) > 3 * fit_minutes(large, short)
    # a latent costs what it costs, however few the channels
    few = size(2000, 50, 10)
    assert fit_minutes(few, SLOW_AND_FAST["epochs"]) > 0.05 * time["epochs"]


SLOW_AND_FAST = {
    "epochs": model("mm-gpvae", epochs=1000, restarts=1),
    "few epochs": model("mm-gpvae", epochs=100, restarts=1),
    "restarts": model("mm-gpvae", epochs=1000, restarts=3, posterior="averaged"),
    "gpfa": ROOTS,
    "counts": COUNTS,
    "mean": model("condition-mean"),
}


def test_ingest_grows_with_the_recording() -> None:
    assert ingest_mb(10, 64, 4) - ingest_mb(10, 32, 4) == 8 * 32 * 4
    assert ingest_mb(10**6, 32, 4) == ingest_mb(10**5, 32, 4)  # it is read in blocks
    assert ingest_minutes(60_000) > ingest_minutes(60)


def test_processes_on_the_machine_of_the_job_are_paid_for() -> None:
    alone = ingest_mb(20_000, 32, 4)
    here, elsewhere = Distributed(above_gb=10), Distributed(above_gb=10, cluster="slurm")
    assert ingest_mb(20_000, 32, 4, here) >= alone + 4 * 500
    assert ingest_mb(20_000, 32, 4, elsewhere) == alone
    assert ingest_mb(9_000, 32, 4, here) == ingest_mb(9_000, 32, 4)


def test_what_every_rule_asks_for_grows_with_the_attempt() -> None:
    rules = "".join(file.read_text() for file in (ROOT / "workflow/rules").glob("*.smk"))
    requests = re.findall(r"^ {8}(?:mem_mb|runtime)=(.*)$", rules, re.MULTILINE)
    assert len(requests) > 20
    assert all(re.match(r"growing\(|lambda wildcards, (threads, )?attempt: attempt", r) for r in requests)
