"""Sections on the baselines."""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

from pydantic import Field, field_validator

from colatent.config.modalities import ModalitySettings
from colatent.config.models.base import ModelKind, ModelSettings, Size
from colatent.config.settings import Count, Odd, Positive


class ConditionMeanSettings(ModelSettings):
    """Baseline: the mean over the training trials of the same condition (PSTH)."""

    kind: Literal["condition-mean"]
    record: ClassVar = ModelKind(
        title="baseline: condition mean (PSTH)",
        code="colatent.models.baselines.condition_mean:ConditionMean",
        methods="colatent.models.baselines.methods:condition_mean",
        baseline=True,
        is_quick=True,
    )


class OneModalitySettings(ModelSettings):
    """What latent models of a single modality have in common."""

    latents: dict[str, Count] = Field(description="modality: number of latents")

    @property
    def modality(self) -> str:
        return next(iter(self.latents))

    def modalities_among(self, names: Sequence[str]) -> tuple[str, ...]:
        return (self.modality,)

    def fewest_channels(self, modality: str) -> int:
        return self.latents.get(modality, 1)

    @field_validator("latents")
    @classmethod
    def _one_modality(cls, value: dict[str, int]) -> dict[str, int]:
        if len(value) != 1 or "+" in next(iter(value)):
            raise ValueError(
                f"{value} must name one modality, such as {{spikes: 6}}; use gpfa or mm-gpvae for several"
            )
        return value


class SmoothedFASettings(OneModalitySettings):
    """Baseline: factor analysis of smoothed (square-rooted) observations."""

    kind: Literal["smoothed-fa"]
    smoothing: Positive = Field(0.05, description="s.d. of the Gaussian smoothing window (s)")
    record: ClassVar = ModelKind(
        title="baseline: smoothed factor analysis",
        code="colatent.models.baselines.smoothed_fa:SmoothedFA",
        methods="colatent.models.baselines.methods:smoothed_fa",
        baseline=True,
        has_latents=True,
        is_quick=True,
    )


LAGS = (5, 11, 21)  # that ridge regression chooses from


class LagRegressionSettings(ModelSettings):
    """Baseline: regression of a modality on the others at several lags."""

    lags: Odd | None = Field(11, description="number of bins used as predictors, centred (odd)")

    def check_modalities(self, where: str, modalities: Mapping[str, ModalitySettings]) -> None:
        super().check_modalities(where, modalities)
        if len(modalities) < 2:
            raise ValueError(f"{where} predicts a modality from others; name two or more")

    @property
    def n_copies(self) -> int:
        return self.lags or LAGS[-1]


class RidgeLagsSettings(LagRegressionSettings):
    """Baseline: ridge regression on lags, with lags and penalty chosen inside the training trials."""

    kind: Literal["ridge-lags"]
    lags: Odd | None = Field(
        None,
        description="number of bins used as predictors, centred (odd); chosen from "
        f"{', '.join(map(str, LAGS))} if not given",
    )
    record: ClassVar = ModelKind(
        title="baseline: ridge regression on lags",
        code="colatent.models.baselines.ridge_lags:RidgeLags",
        methods="colatent.models.baselines.methods:lag_regression",
        baseline=True,
        is_quick=True,
    )

    def fit_seconds(self, size: Size) -> float:
        return 1e-4 * size.mb * size.channels * self.n_copies**2  # the predictors' covariance


class MLPLagsSettings(LagRegressionSettings):
    """Baseline: a multi-layer perceptron on lags."""

    kind: Literal["mlp-lags"]
    lags: Odd = Field(11, description="number of bins used as predictors, centred (odd)")
    hidden: list[Count] = Field([128, 64], description="units of the hidden layers")
    dropout: float = Field(0.3, ge=0, lt=1)
    epochs: Count = 60
    record: ClassVar = ModelKind(
        title="baseline: multi-layer perceptron on lags",
        code="colatent.models.baselines.mlp_lags:MLPLags",
        methods="colatent.models.baselines.methods:lag_regression",
        baseline=True,
        needs_torch=True,
    )

    def fit_seconds(self, size: Size) -> float:
        return 0.03 * size.mb * self.n_copies * self.epochs


class GRUSettings(ModelSettings):
    """Baseline: one bidirectional recurrent network (GRU) for all questions."""

    kind: Literal["gru"]
    units: Count = Field(64, description="gated recurrent units in each direction")
    epochs: Count = Field(200, description="at most; training ends when held-out trials gain no more")
    record: ClassVar = ModelKind(
        title="baseline: bidirectional GRU",
        code="colatent.models.baselines.gru:GRU",
        methods="colatent.models.baselines.methods:gru",
        baseline=True,
        needs_torch=True,
    )

    def fit_seconds(self, size: Size) -> float:
        return self.epochs * (4e-5 * size.bins * self.units / 64 + 0.01 * size.mb)
