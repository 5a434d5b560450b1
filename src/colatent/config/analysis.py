"""The configuration as a whole: what is held out, what is simulated, and what must fit together."""

import re
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from colatent.config.alignment import Alignment
from colatent.config.checks import Action, refuse_unknown
from colatent.config.modalities import Modality, require_known
from colatent.config.models import Model
from colatent.config.settings import NAME, Count, Positive, Seed, Settings


class Heldout(Settings):
    """What is kept from the models, and how often."""

    folds: int = Field(5, ge=2, description="number of folds the trials are split into")
    stratify: Literal["condition"] | None = Field(None, description="spread each condition over the folds")
    channels: dict[str, Annotated[float, Field(gt=0, lt=1)]] = Field(
        default_factory=dict, description="modality: share of its channels predicted from the rest"
    )
    time: float | None = Field(
        None, gt=0, lt=1, description="share at the end of each test trial predicted from what came before it"
    )
    seeds: list[Seed] = Field([0], min_length=1, description="one fit for each seed")
    guard: int = Field(
        1, ge=0, description="windows left out beside a held-out block of a continuous recording"
    )

    @field_validator("seeds")
    @classmethod
    def _different(cls, value: list[int]) -> list[int]:
        if len(set(value)) < len(value):
            raise ValueError(f"seeds {value} must differ, or runs would count twice")
        return value


def _increasing(shares: list[float]) -> list[float]:
    if any(later <= earlier for earlier, later in pairwise(shares)):
        raise ValueError(f"{shares} must increase, as in [0.25, 0.5, 1.0]")
    return shares


Shares = Annotated[
    list[Annotated[float, Field(gt=0, le=1)]], Field(min_length=1), AfterValidator(_increasing)
]


QUARTER_HALF_ALL = [0.25, 0.5, 1.0]


class LearningCurve(Settings):
    """The smaller training sets of `snakemake learning_curves`; no other result depends on them."""

    trials: Shares = Field(QUARTER_HALF_ALL, description="shares of the training trials, increasing")
    channels: dict[str, Shares] | None = Field(
        None,
        description="modality: shares of its held-in channels, increasing; if not given, a quarter, half and "
        "all of the channels of each modality in heldout.channels",
    )
    folds: Count | None = Field(
        None, description="how many of heldout.folds, from the first; all if not given"
    )

    def shares_of_channels(self, hidden: Iterable[str]) -> dict[str, list[float]]:
        """Return the shares of each modality's channels; ``hidden`` are the keys of heldout.channels."""
        return dict.fromkeys(hidden, QUARTER_HALF_ALL) if self.channels is None else self.channels


class TruthSettings(Settings):
    """The true latents that a simulated NWB file carries along."""

    source: str = Field(description="path of the time series in the NWB file")
    groups: list[str] = Field(description="latent group of each of its columns")


class Simulation(Settings):
    """The simulated recording that the workflow writes itself."""

    kind: Literal["reach", "digits", "fly", "moth"] = Field(
        "reach",
        description="reach: spikes, EMG and pose of centre-out reaches; or a data set of the MM-GPVAE paper: "
        "digits (neurons and a turning digit), fly (calcium and limbs), moth (muscle spikes and a stimulus)",
    )
    seed: Seed = 1
    trials: Count = 80
    units: Count = Field(60, description="neurons, ROIs or muscles")
    missing_frames: float = Field(0.0, ge=0, lt=1, description="digits: share of frames not recorded")
    occluded_frames: float = Field(
        0.0, ge=0, lt=1, description="digits: share of the recorded frames with a quarter of the image hidden"
    )
    shortest: float = Field(1.0, gt=0, le=1, description="digits: shortest trial, as a share of the longest")

    @model_validator(mode="after")
    def _only_digits_have_gaps(self) -> Self:
        if self.kind != "digits":
            for key in ("missing_frames", "occluded_frames", "shortest"):
                if getattr(self, key) != type(self).model_fields[key].default:
                    raise ValueError(f"{key} is an option of the kind digits, not {self.kind}; leave it out")
        return self


class Distributed(Settings):
    """Processes of dask.distributed that read a large recording together."""

    above_gb: Positive = Field(description="size from which several processes read a recording (GB)")
    cluster: Literal["local", "slurm"] = Field(
        "local",
        description="local: on the job's machine, one per thread; slurm: as SLURM jobs through "
        "dask-jobqueue, which takes partition and account from ~/.config/dask/jobqueue.yaml",
    )
    workers: Count = Field(4, description="number of SLURM jobs")

    def reads(self, recording_gb: float) -> bool:
        """Return whether several processes read a recording of this size."""
        return recording_gb >= self.above_gb


class Config(Settings):
    """The configuration of one analysis."""

    sessions: str = Field(
        description="table with the columns session and nwb; path relative to where snakemake runs"
    )
    results: str = Field(description="folder for all results, a different one for each config")
    simulate: Simulation | None = Field(
        None, description="write the sessions' NWB files (*.simulated.nwb) by simulation"
    )
    truth: TruthSettings | None = Field(None, description="the known latents of a simulation")
    alignment: Alignment
    modalities: dict[str, Modality] = Field(min_length=1)
    read_mb: Count = Field(
        32,
        description="samples that each ingest thread reads at a time (MiB); memory is a few times that",
    )
    distributed: Distributed | None = Field(
        None, description="read large recordings in several processes, with the same results"
    )
    checks: Annotated[dict[str, Action], AfterValidator(refuse_unknown)] = Field(
        default_factory=dict,
        description="check at ingest: refuse, mask or warn, if not the default. Checks look at the whole "
        "recording, test trials included",
    )
    models: dict[str, Model] = Field(min_length=1)
    heldout: Heldout = Field(default_factory=lambda: Heldout.model_validate({}))
    learning_curve: LearningCurve = Field(
        default_factory=lambda: LearningCurve.model_validate({}),
        description="training sets of `snakemake learning_curves`",
    )
    device: Literal["cpu", "cuda", "auto"] = Field("cpu", description="where the models are fitted")

    @field_validator("modalities", "models")
    @classmethod
    def _names(cls, value: dict[str, Any]) -> dict[str, Any]:
        for name in value:
            if not re.fullmatch(NAME, name):
                raise ValueError(f"the name {name!r} must be letters, digits and underscores")
        return value

    @field_validator("results")
    @classmethod
    def _folder(cls, value: str) -> str:
        if not value.strip() or set(value) & set("{}*?\n"):
            raise ValueError(f"{value!r} is not the name of a folder; give one such as results/my_recording")
        if value.startswith("~"):  # it is not expanded: a folder named ~ would be made
            raise ValueError(f"{value!r} begins with ~; give the whole path, or one relative to here")
        return str(Path(value))  # for Snakemake, ./out and out/ are different from out

    @model_validator(mode="after")
    def _known_modalities(self) -> Self:
        for name in self.heldout.channels:
            require_known("heldout.channels", name, self.modalities)
        for name in self.learning_curve.channels or {}:
            require_known("learning_curve.channels", name, self.modalities)
        for group in self.truth.groups if self.truth else []:
            require_known("truth.groups", group, self.modalities)
        for name, model in self.models.items():
            model.check_modalities(f"models.{name}", self.modalities)
            if model.told_condition and self.alignment.condition is None:
                raise ValueError(
                    f"models.{name}.mean is `condition`, but alignment.condition names no column"
                )
        if self.heldout.stratify and self.alignment.condition is None:
            raise ValueError("heldout.stratify is `condition`, but alignment.condition names no column")
        return self

    @model_validator(mode="after")
    def _curves_can_be_drawn(self) -> Self:
        folds = self.learning_curve.folds
        if folds is not None and folds > self.heldout.folds:
            raise ValueError(f"learning_curve.folds is {folds}, but heldout.folds only {self.heldout.folds}")
        for name in self.learning_curve.channels or {}:
            if name not in self.heldout.channels and len(self.modalities) == 1:
                raise ValueError(
                    f"learning_curve.channels.{name}: without other modalities or held-out channels of it, "
                    f"no prediction can be compared between shares; give heldout.channels.{name}"
                )
        return self
