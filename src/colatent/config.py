"""The one definition of the configuration: Pydantic models of its sections.

The JSON schema and the reference table in ``config/README.md`` are generated from these models.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationInfo,
    field_validator,
    model_validator,
)

Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
# a window or a pad is never longer than a recording: four months
BinWidth = Annotated[float, Field(ge=1e-5, le=1e7)]
Seconds = Annotated[float, Field(ge=-1e7, le=1e7)]
COUNT_LIKELIHOODS = ("poisson", "negative-binomial")
NAME = r"[A-Za-z][A-Za-z0-9_]*"


class Settings(BaseModel):
    """Base of all sections: unknown keys are errors, values do not change once read."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class TrialAlignment(Settings):
    """Trials cut from a table of intervals in the NWB file."""

    intervals: str = Field("trials", description="NWB intervals table: `trials`, or a path in the file")
    start: str = Field("start_time", description="column that holds each trial's time zero (s)")
    stop: str | None = Field(
        "stop_time", description="column with each trial's end (s); not used with `window`"
    )
    window: tuple[Seconds, Seconds] | None = Field(
        None, description="fixed window round `start` (s), instead of `stop`"
    )
    pad: tuple[Seconds, Seconds] = Field(
        (0.0, 0.0), description="time added before `start` and after `stop` (s)"
    )
    bin_width: BinWidth = Field(description="bin width (s)")
    condition: str | None = Field(None, description="column that names each trial's condition")
    where: str | None = Field(None, description="pandas query over the table: trials to keep")

    @model_validator(mode="after")
    def _window_is_ordered(self) -> Self:
        if self.window is not None and self.window[1] <= self.window[0]:
            raise ValueError(f"window {list(self.window)} must be [earlier, later] in seconds")
        if self.window is None and self.stop is None:
            raise ValueError("give `stop` (a column) or `window` ([from, to] in seconds)")
        if self.window is not None and sum(self.pad) + self.window[1] - self.window[0] < self.bin_width:
            raise ValueError(f"window {list(self.window)} holds no bin of {self.bin_width} s")
        return self


class ContinuousAlignment(Settings):
    """A recording without trials, cut into windows with a guard gap between them."""

    window: Positive = Field(le=1e7, description="length of a window (s)")
    gap: float = Field(ge=0, le=1e7, description="time left out between windows (s)")
    bin_width: BinWidth = Field(description="bin width (s)")

    @model_validator(mode="after")
    def _window_holds_bins(self) -> Self:
        if self.window < self.bin_width:
            raise ValueError(f"window {self.window} s holds no bin of {self.bin_width} s")
        return self


# keys that only an alignment to trials has
_TRIAL_KEYS = {"intervals", "start", "stop", "pad", "condition", "where"}


def _alignment_kind(value: Any) -> str:
    if isinstance(value, Mapping):
        return "continuous" if {"window", "gap"} & set(value) and not _TRIAL_KEYS & set(value) else "trials"
    return "trials" if isinstance(value, TrialAlignment) else "continuous"


Alignment = Annotated[
    Annotated[TrialAlignment, Tag("trials")] | Annotated[ContinuousAlignment, Tag("continuous")],
    Discriminator(_alignment_kind),
]


class SpikesModality(Settings):
    """Spike trains of a units table."""

    kind: Literal["spikes"]
    source: str = Field("units", description="path of the units table in the NWB file")
    where: str | None = Field(None, description="pandas query over the units table: units to keep")
    min_rate: float = Field(
        0.0, ge=0, description="lowest mean rate of a unit over the recording, test trials included (Hz)"
    )


class EnvelopeSettings(Settings):
    """Raw EMG to envelope: band-pass, rectify, low-pass."""

    highpass: Positive | None = Field(40.0, description="high-pass corner (Hz)")
    lowpass: Positive = Field(10.0, description="corner of the envelope's low-pass (Hz)")


class ContinuousModality(Settings):
    """A continuous signal: calcium, EMG, force, position, any NWB time series."""

    kind: Literal["continuous"]
    source: str = Field(description="path of the time series in the NWB file, or a glob over paths")
    channels: list[str] | None = Field(
        None, min_length=1, description="names of the channels, if the file has none"
    )
    columns: list[int] | None = Field(None, description="columns to keep, counted from 0")
    max_gap: Positive = Field(3.0, description="longest gap interpolated over, in sampling steps")
    envelope: EnvelopeSettings | None = Field(None, description="turn raw EMG into an envelope")
    clip: tuple[float, float] | None = Field(
        None, description="percentiles of the training trials that values are clipped to"
    )

    @field_validator("clip")
    @classmethod
    def _percentiles(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        if value is not None and not 0 <= value[0] < value[1] <= 100:
            raise ValueError(f"clip {list(value)} must be two percentiles, such as [0.5, 99.5]")
        return value


class PoseModality(Settings):
    """Keypoints of an ndx-pose PoseEstimation."""

    kind: Literal["pose"]
    source: str = Field(description="path of the PoseEstimation in the NWB file")
    min_confidence: float = Field(0.5, ge=0, le=1, description="frames below it count as not observed")
    keypoints: list[str] | None = Field(None, min_length=1, description="keypoints to keep, by name")
    max_gap: Positive = Field(3.0, description="longest gap interpolated over, in sampling steps")
    clip: None = None


Modality = Annotated[SpikesModality | ContinuousModality | PoseModality, Field(discriminator="kind")]
Likelihood = Literal["poisson", "negative-binomial", "gaussian", "bernoulli"]
Kernel = Literal["squared-exponential", "matern-3/2", "matern-5/2"]


class ConditionMean(Settings):
    """Baseline: the mean over the training trials of the same condition (PSTH)."""

    kind: Literal["condition-mean"]


class LatentModel(Settings):
    """What models of one modality's latents have in common."""

    latents: dict[str, Count] = Field(description="modality: number of latents")

    @property
    def modality(self) -> str:
        return next(iter(self.latents))

    @field_validator("latents")
    @classmethod
    def _one_modality(cls, value: dict[str, int]) -> dict[str, int]:
        if len(value) != 1 or "+" in next(iter(value)):
            raise ValueError(
                f"{value} must name one modality, such as {{spikes: 6}}; use mm-gpvae for several"
            )
        return value


class SmoothedFA(LatentModel):
    """Baseline: factor analysis of smoothed (square-rooted) observations."""

    kind: Literal["smoothed-fa"]
    smoothing: Positive = Field(0.05, description="s.d. of the Gaussian smoothing window (s)")


class GPFAModel(LatentModel):
    """Gaussian-process factor analysis (Yu et al. 2009), exact if Gaussian."""

    kind: Literal["gpfa"]
    likelihood: dict[str, Literal["gaussian-sqrt", "gaussian", "poisson", "negative-binomial"]] = Field(
        default_factory=dict,
        description="gaussian-sqrt (square-rooted counts; the default for spikes), gaussian, poisson or "
        "negative-binomial",
    )
    candidates: list[Count] = Field(
        default_factory=lambda: [1, 2, 3, 4, 6, 8, 10, 12],
        description="numbers of latents that `snakemake choose_latents` compares",
    )
    kernel: Kernel = Field("squared-exponential", description="covariance of the latents over time")
    automatic_relevance: float = Field(
        0.0,
        ge=0,
        le=1,
        description="prior that shrinks the loadings, Gaussian likelihoods only: 0 none (maximum "
        "likelihood), 0.5 for few trials, 1 draws latents that the data do not need to zero",
    )

    @field_validator("likelihood")
    @classmethod
    def _of_its_modality(cls, value: dict[str, str], info: ValidationInfo) -> dict[str, str]:
        if unused := set(value) - set(info.data.get("latents", value)):
            raise ValueError(f"likelihood names {sorted(unused)[0]!r}, which has no latents")
        return value

    @field_validator("automatic_relevance")
    @classmethod
    def _gaussian_only(cls, value: float, info: ValidationInfo) -> float:
        if value > 0 and set(COUNT_LIKELIHOODS) & set(info.data.get("likelihood", {}).values()):
            raise ValueError("must be 0 with a likelihood of counts (poisson, negative-binomial)")
        return value


class LagRegression(Settings):
    """Baseline: regression of a modality on the others at several lags."""

    lags: Count = Field(11, description="number of bins looked at, centred (odd)")

    @field_validator("lags")
    @classmethod
    def _odd(cls, value: int) -> int:
        if value % 2 == 0:
            raise ValueError(f"lags {value} must be odd, so that they are centred")
        return value


class RidgeLags(LagRegression):
    """Baseline: ridge regression on lags, its penalty chosen inside the training trials."""

    kind: Literal["ridge-lags"]


class MLPLags(LagRegression):
    """Baseline: a multi-layer perceptron on lags."""

    kind: Literal["mlp-lags"]
    hidden: list[Count] = Field([128, 64], description="units of the hidden layers")
    dropout: float = Field(0.3, ge=0, lt=1)
    epochs: Count = 60


class MMGPVAEModel(Settings):
    """Multi-modal Gaussian-process variational autoencoder (Gondur et al. 2024)."""

    kind: Literal["mm-gpvae"]
    latents: dict[str, Count] = Field(
        min_length=1, description="latent group (modalities joined by +): number of latents"
    )
    likelihood: dict[str, Likelihood] = Field(
        default_factory=dict, description="modality: observation model; poisson for spikes, else gaussian"
    )
    decoder: dict[str, Literal["linear", "mlp", "convolutional"]] = Field(
        default_factory=dict,
        description="modality: decoder; linear for spikes, else mlp; convolutional for images",
    )
    image_shape: dict[str, tuple[Count, Count]] = Field(
        default_factory=dict,
        description="modality with a convolutional decoder: rows and columns of its images",
    )
    kernel: Kernel = Field("squared-exponential", description="covariance of the latents over time")
    posterior: Literal["sites", "mean-field", "averaged", "time-domain", "independent"] = Field(
        "sites",
        description="sites: exact given the encoders. To compare with: mean-field (diagonal over Fourier "
        "coefficients), averaged (so, and shared latents averaged over the encoders: the paper's), "
        "time-domain (diagonal over bins), independent (no prior over time: a plain VAE)",
    )
    time_scale: Positive | None = Field(
        None, description="time scale that learning starts from (s); 5 bins if not given"
    )
    epochs: Count = 200
    learning_rate: Positive = 3e-3
    batch_size: Count = 16
    weight: dict[str, Positive] = Field(
        default_factory=dict,
        description="modality: factor of its log-density in the objective, 1 where not named; less for many "
        "channels whose noise is correlated, such as pixels",
    )
    cross_weight: dict[str, Annotated[float, Field(ge=0)]] = Field(
        default_factory=dict,
        description="modality: weight, in the objective, of predicting it from the other modalities; "
        "the plain ELBO if empty",
    )
    decoder_decay: float = Field(
        0.3,
        ge=0,
        description="decay of the decoders' weights: helps with few trials; 0 for images, which lose detail",
    )
    samples: Count = Field(
        32, multiple_of=2, description="posterior samples of a prediction; few for images, which are large"
    )
    channel_dropout: float = Field(
        0.25, ge=0, lt=1, description="share of channels hidden from the encoder in half of the batches"
    )

    @model_validator(mode="after")
    def _sections_agree(self) -> Self:
        if len({frozenset(group.split("+")) for group in self.latents}) < len(self.latents):
            raise ValueError(f"latents name one group twice: {', '.join(self.latents)}")
        for key in ("likelihood", "decoder", "image_shape", "weight", "cross_weight"):
            if unused := set(getattr(self, key)) - set(self.modalities):
                raise ValueError(f"{key} names {sorted(unused)[0]!r}, which has no latents")
        for name, decoder in self.decoder.items():
            if decoder == "convolutional" and name not in self.image_shape:
                raise ValueError(f"decoder.{name} is convolutional: give image_shape.{name}, [rows, columns]")
        return self

    @property
    def modalities(self) -> list[str]:
        return list(dict.fromkeys(m for group in self.latents for m in group.split("+")))


Model = Annotated[
    ConditionMean | SmoothedFA | GPFAModel | RidgeLags | MLPLags | MMGPVAEModel,
    Field(discriminator="kind"),
]


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


class Truth(Settings):
    """The true latents that a simulated NWB file carries along."""

    source: str = Field(description="path of the time series in the NWB file")
    groups: list[str] = Field(description="latent group of each of its columns")


class Simulation(Settings):
    """The simulated recording that the workflow writes itself."""

    kind: Literal["reach", "digits", "fly", "moth"] = Field(
        "reach",
        description="reach: spikes, EMG and pose of centre-out reaches; and those of the MM-GPVAE's paper: "
        "digits (neurons and a turning digit), fly (calcium and limbs), moth (muscle spikes and a stimulus)",
    )
    seed: Seed = 1
    trials: Count = 80
    units: Count = Field(60, description="neurons, ROIs or muscles")
    missing_frames: float = Field(0.0, ge=0, lt=1, description="of digits: share of frames not recorded")
    occluded_frames: float = Field(
        0.0, ge=0, lt=1, description="of digits: share of the others with a quarter hidden"
    )
    shortest: float = Field(
        1.0, gt=0, le=1, description="of digits: shortest trial, as a share of the longest"
    )

    @model_validator(mode="after")
    def _only_digits_have_gaps(self) -> Self:
        if self.kind != "digits":
            for key in ("missing_frames", "occluded_frames", "shortest"):
                if getattr(self, key) != type(self).model_fields[key].default:
                    raise ValueError(f"{key} is an option of the kind digits, not {self.kind}; leave it out")
        return self


Action = Literal["refuse", "mask", "warn"]


class Config(Settings):
    """The configuration of one analysis."""

    sessions: str = Field(description="table with the columns session and nwb, relative to this file")
    results: str = Field(description="folder for all that is made, one for each config")
    simulate: Simulation | None = Field(
        None, description="write the sessions' NWB files (*.simulated.nwb) by simulation"
    )
    truth: Truth | None = Field(None, description="the known latents of a simulation")
    alignment: Alignment
    modalities: dict[str, Modality] = Field(min_length=1)
    read_mb: Count = Field(
        32, description="samples read at a time by each thread of ingest (MiB); it needs a few times as much"
    )
    checks: dict[str, Action] = Field(
        default_factory=dict,
        description="check at ingest: refuse, mask or warn; defaults where not named. They look at the whole "
        "recording, test trials included",
    )
    models: dict[str, Model] = Field(min_length=1)
    heldout: Heldout = Field(default_factory=lambda: Heldout.model_validate({}))
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
            raise ValueError(f"{value!r} is no name for a folder; give one such as results/my_recording")
        if value.startswith("~"):  # nobody expands it: a folder named ~ would be made
            raise ValueError(f"{value!r} begins with ~; give the whole path, or one relative to here")
        return value

    @model_validator(mode="after")
    def _known_modalities(self) -> Self:
        def check(where: str, name: str) -> None:
            if name not in self.modalities:
                known = ", ".join(self.modalities)
                raise ValueError(f"{where} names the unknown modality {name!r}; known: {known}")

        for name in self.heldout.channels:
            check("heldout.channels", name)
        for group in self.truth.groups if self.truth else []:
            for modality in group.split("+"):
                check("truth.groups", modality)
        for model_name, model in self.models.items():
            for key in ("latents", "likelihood", "decoder", "image_shape", "weight", "cross_weight"):
                for group in getattr(model, key, {}):
                    for modality in group.split("+"):
                        check(f"models.{model_name}.{key}.{group}", modality)
            for name, likelihood in getattr(model, "likelihood", {}).items():
                counts = likelihood in (*COUNT_LIKELIHOODS, "gaussian-sqrt")
                of_counts = isinstance(self.modalities[name], SpikesModality)
                if of_counts and isinstance(model, MMGPVAEModel) and likelihood in ("gaussian", "bernoulli"):
                    raise ValueError(
                        f"models.{model_name}.likelihood.{name} is {likelihood}, which does not describe "
                        "counts; use poisson or negative-binomial"
                    )
                if counts and not isinstance(self.modalities[name], SpikesModality):
                    raise ValueError(
                        f"models.{model_name}.likelihood.{name} is {likelihood}, which describes counts, "
                        "but the modality is continuous; use gaussian"
                    )
            if isinstance(model, LagRegression) and len(self.modalities) < 2:
                raise ValueError(f"models.{model_name} predicts a modality from others; name two or more")
        if self.heldout.stratify and getattr(self.alignment, "condition", None) is None:
            raise ValueError("heldout.stratify is `condition`, but alignment.condition names no column")
        return self
