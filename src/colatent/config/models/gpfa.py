"""The section on GPFA, and what it shares with other models of a single modality."""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator

from colatent.config.modalities import ModalitySettings
from colatent.config.models.base import (
    COUNT_LIKELIHOODS,
    Kernel,
    ModelKind,
    ModelSettings,
    Size,
    check_likelihoods,
)
from colatent.config.settings import Count
from colatent.data.likelihoods import likelihoods_of


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
                f"{value} must name one modality, such as {{spikes: 6}}; use mm-gpvae for several"
            )
        return value


class GPFASettings(OneModalitySettings):
    """Gaussian-process factor analysis (Yu et al. 2009), exact if Gaussian."""

    kind: Literal["gpfa"]
    record: ClassVar = ModelKind(
        title="Gaussian-process factor analysis",
        code="colatent.models.gpfa.model:GPFAModel",
        methods="colatent.models.gpfa.methods:gpfa",
        has_latents=True,
        needs_torch=True,
    )
    likelihood: dict[str, Literal[likelihoods_of("gpfa")]] = Field(  # type: ignore[valid-type]
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

    def likelihood_of(self, kind: str) -> str:
        """Return the likelihood of the modality, which is of a kind such as spikes."""
        return self.likelihood.get(self.modality, "gaussian-sqrt" if kind == "spikes" else "gaussian")

    @property
    def _counts(self) -> bool:
        return not set(COUNT_LIKELIHOODS).isdisjoint(self.likelihood.values())

    def posterior_mb(self, size: Size) -> float:
        # every count has its own Gaussian site
        return 0.06 * size.bins + 40 * size.mb if self._counts else 0.03 * size.bins

    def fit_seconds(self, size: Size) -> float:
        return 4e-3 * size.bins + 5 * size.mb if self._counts else 3 * size.mb

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

    def check_modalities(self, where: str, modalities: Mapping[str, ModalitySettings]) -> None:
        super().check_modalities(where, modalities)
        check_likelihoods(where, self.likelihood, modalities, (*COUNT_LIKELIHOODS, "gaussian-sqrt"))
