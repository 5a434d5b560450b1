"""Fit one model to the training trials of one fold and keep the fit."""

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import xarray as xr
from pydantic import TypeAdapter

from colatent.config import Model
from colatent.data.trials import Trials
from colatent.jobs.device import device_name, reserved_device
from colatent.models.registry import model_class_and_options
from colatent.store.provenance import code_fingerprint, provenance
from colatent.store.session import Fold
from colatent.store.stores import write_store


def fit_fold(
    fold: Fold,
    model: dict[str, Any],
    *,
    time_locked: bool,
    seed: int,
    device: str,
    threads: int,
    inputs: dict[str, Any],
    checkpoint: str | Path,
    output: str | Path,
    progress: Callable[[str], None],
) -> None:
    """Fit a model (a section under ``models``) and write the store of the fit.

    Args:
        fold: only its training trials are looked at.
        time_locked: False for windows of a continuous recording.
        inputs: what identifies the data, for the provenance.
        checkpoint: folder in which a long fit leaves its state, to go on after an interruption.
        output: the store: the tensors ``state``, and for most models a group ``history``.
    """
    settings = TypeAdapter(Model).validate_python(model)
    with fitting_device(settings, device, threads, progress) as used:
        keeps = settings.kind == "mm-gpvae"
        kept = {"checkpoint": _checkpoint(checkpoint, model, seed, inputs, used)} if keeps else {}
        started = time.monotonic()
        fitted = fit_model(settings, fold.training, time_locked, seed, used, progress, **kept)
        attrs = provenance("fit", {"model": model, "seed": seed}, inputs, device=device_name(used))
        attrs["volatile"]["duration_s"] = round(time.monotonic() - started, 2)
        tensors = {"state": fitted.state()}
    groups = {}
    if fitted.history:
        history = pd.DataFrame(fitted.history).rename_axis("step")
        groups["history"] = xr.Dataset.from_dataframe(history)
    write_store(output, groups, attrs, tensors)
    shutil.rmtree(checkpoint, ignore_errors=True)  # it has served


@contextmanager
def fitting_device(
    settings: Model, device: str, threads: int, progress: Callable[[str], None]
) -> Iterator[str]:
    """Prepare the process for fits of a model, with this many threads; yield "cuda" or "cpu"."""
    if settings.kind in ("mm-gpvae", "gpfa", "mlp-lags"):
        import torch

        torch.set_num_threads(threads)
    with reserved_device(device if settings.kind == "mm-gpvae" else "cpu", progress) as used:
        yield used


def fit_model(
    settings: Model,
    training: Trials,
    time_locked: bool,
    seed: int,
    device: str,
    progress: Callable[[str], None],
    **kept: Any,
) -> Any:
    """Return a model fitted to these trials; ``device`` is that of `fitting_device`."""
    cls, options = model_class_and_options(settings, training, time_locked, device)
    return cls(**options).fit(training, seed=seed, progress=progress, **kept)


def _checkpoint(
    folder: str | Path, model: dict[str, Any], seed: int, inputs: dict[str, Any], device: str
) -> Any:
    import torch

    from colatent.jobs.checkpoint import Checkpoint

    identity = {
        "config": json.dumps([model, seed], sort_keys=True),
        "data": json.dumps(inputs, sort_keys=True),
        "code": f"{code_fingerprint('fit')}, torch {torch.__version__}",
        "device": device,
    }
    return Checkpoint(Path(folder), identity)
