"""What jobs ask for grows with data and model, and is more than was measured."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from pydantic import TypeAdapter

from colatent.config import Distributed, Model
from colatent.demand import decoded_mb, fit_mb, fit_minutes, ingest_mb, ingest_minutes
from colatent.store import write_store

# the demo on one shared core: peak memory of scoring MM-GPVAE 726 MiB; 205 epochs in 68 s
DEMO_MB, PEAK_MB, SECONDS_AN_EPOCH = 2.9, 726 * 1.05, 68 / 205


def model(**options) -> Model:
    return TypeAdapter(Model).validate_python(options)


def test_the_size_of_a_store_is_that_of_its_arrays_in_memory(tmp_path: Path) -> None:
    store = tmp_path / "session"
    assert decoded_mb(store) == 0
    zeros = {"value": ("t", np.zeros(250_000)), "observed": ("t", np.ones(250_000, dtype=bool))}
    write_store(store, {"modality/emg": xr.Dataset(zeros)}, {})
    assert decoded_mb(store) == pytest.approx(2.25)


def test_more_is_asked_for_than_the_demo_took() -> None:
    vae = model(kind="mm-gpvae", latents={"spikes": 2}, epochs=100_000)
    assert fit_mb(DEMO_MB) > 2 * PEAK_MB
    assert fit_minutes(DEMO_MB, vae) > 3 * 100_000 * SECONDS_AN_EPOCH / 60


def test_it_grows_with_data_and_epochs() -> None:
    short, long = (model(kind="mm-gpvae", latents={"spikes": 2}, epochs=n) for n in (100, 1000))
    assert fit_minutes(100, long) > 5 * fit_minutes(100, short)
    assert fit_minutes(100, model(kind="condition-mean")) > fit_minutes(1, model(kind="condition-mean"))
    assert fit_mb(1000) > 5 * fit_mb(10)
    assert ingest_mb(10, 64, 4) - ingest_mb(10, 32, 4) == 8 * 32 * 4
    assert ingest_mb(10**6, 32, 4) == ingest_mb(10**5, 32, 4)  # it is read in blocks
    assert ingest_minutes(60_000) > ingest_minutes(60)


def test_processes_on_the_machine_of_the_job_are_paid_for() -> None:
    alone = ingest_mb(20_000, 32, 4)
    here, elsewhere = Distributed(above_gb=10), Distributed(above_gb=10, cluster="slurm")
    assert ingest_mb(20_000, 32, 4, here) >= alone + 4 * 500
    assert ingest_mb(20_000, 32, 4, elsewhere) == alone
    assert ingest_mb(9_000, 32, 4, here) == ingest_mb(9_000, 32, 4)
