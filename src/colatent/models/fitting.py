"""Fit one model to the training trials of one fold and store the fit."""

import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from colatent.config.models import ModelSettings
from colatent.data.trials import Trials
from colatent.errors import InputError
from colatent.jobs.device import device_name, reserved_device
from colatent.models.base import FitRun, LatentModel, Model
from colatent.models.readout.decoding import Decoder
from colatent.store.provenance import code_fingerprint, provenance
from colatent.store.session import Fold
from colatent.store.stores import write_store

if TYPE_CHECKING:
    from colatent.jobs.checkpoint import Checkpoint


class FittedModel(NamedTuple):
    """A fitted model and, if it has latents, the read-outs of its latents."""

    model: Model
    decoder: Decoder | None = None

    def tensors(self) -> dict[str, Mapping[str, NDArray[Any]]]:
        """Return everything that was fitted, as the tensors ``state`` and ``decoding`` of a store."""
        decoding = self.decoder.state() if self.decoder else {}
        return {"state": self.model.state()} | ({"decoding": decoding} if decoding else {})


@dataclass(frozen=True)
class FitJob:
    """A fit as a job of the workflow.

    Attributes:
        settings: the model's section of the config.
        seed: random seed.
        device: "cpu", "cuda" or "auto".
        threads: number of PyTorch threads.
        inputs: identity of the data, for the provenance.
        checkpoint: folder where a long fit saves its state, to resume after an interruption.
        output: store for `FittedModel.tensors` and, for most models, a group ``history``.
        progress: called with lines of text.
    """

    settings: ModelSettings
    seed: int
    device: str
    threads: int
    inputs: Mapping[str, Any]
    checkpoint: Path
    output: Path
    progress: Callable[[str], None]

    @property
    def described(self) -> dict[str, Any]:
        """The part of the config that determines the fit."""
        return {"model": self.settings.model_dump(mode="json"), "seed": self.seed}


def fit_fold(cls: type[LatentModel] | type[Model], fold: Fold, job: FitJob) -> None:
    """Fit a model and write the store of the fit.

    Args:
        cls: the model's class, imported before waiting for a GPU, so that the code that runs is the code
            that the job started with.
        fold: only its training trials and the pattern of what is withheld are used.
        job: settings, inputs and output of the fit.
    """
    with fitting_device(job.settings, job.device, job.threads, job.progress) as used:
        started = time.monotonic()
        run = FitRun(job.seed, fold.withheld, used, job.progress, _checkpoint(job, used))
        fitted = fit_model(cls, job.settings, fold.training, run)
        attrs = provenance("fit", job.described, dict(job.inputs), device=device_name(used))
        attrs["volatile"]["duration_s"] = round(time.monotonic() - started, 2)
        tensors = fitted.tensors()
    groups = {}
    if fitted.model.history:
        history = pd.DataFrame(fitted.model.history).rename_axis("step")
        groups["history"] = xr.Dataset.from_dataframe(history)
    write_store(job.output, groups, attrs, tensors)
    shutil.rmtree(job.checkpoint, ignore_errors=True)


def fit_model(
    cls: type[LatentModel] | type[Model], settings: ModelSettings, training: Trials, run: FitRun
) -> FittedModel:
    """Return a model of class ``cls`` fitted to the training trials, with read-outs of its latents.

    Raises:
        InputError: there is nothing that the model can predict.
    """
    unfitted = cls(settings, training.layout, run.device)
    if not unfitted.tasks(run.withheld):
        raise InputError(
            f"a model of kind {settings.kind} has nothing to predict of {' and '.join(training.values)}; "
            "name another modality or, for models that predict hidden channels, heldout.channels"
        )
    model = unfitted.fit(training, run)
    if not settings.record.has_latents:
        return FittedModel(model)
    # read-outs must see latents as in scoring: from the stored fit, on the CPU
    kept: Any = cls.from_state(settings, training.layout, model.state())
    return FittedModel(model, Decoder.fit(kept, training))


@contextmanager
def fitting_device(
    settings: ModelSettings, device: str, threads: int, progress: Callable[[str], None]
) -> Iterator[str]:
    """Set the number of threads and reserve a device for fits of a model; yield "cuda" or "cpu"."""
    if settings.record.needs_torch:
        import torch

        torch.set_num_threads(threads)
    with reserved_device(device if settings.record.uses_gpu else "cpu", progress) as used:
        yield used


def _checkpoint(job: FitJob, device: str) -> "Checkpoint | None":
    """Return the checkpoint of a fit that uses PyTorch; other fits are too short to need one."""
    if not job.settings.record.needs_torch:
        return None
    import torch

    from colatent.jobs.checkpoint import Checkpoint

    identity = {
        "config": json.dumps(job.described, sort_keys=True),
        "data": json.dumps(job.inputs, sort_keys=True),
        "code": f"{code_fingerprint('fit')}, torch {torch.__version__}",
        "device": device,
    }
    return Checkpoint(job.checkpoint, identity)
