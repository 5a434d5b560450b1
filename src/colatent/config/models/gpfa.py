"""The section on GPFA."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from colatent.config.modalities import ModalitySettings
from colatent.config.models.base import (
    COUNT_LIKELIHOODS,
    GroupedLatentsSettings,
    Kernel,
    ModelKind,
    Size,
    check_likelihoods,
)
from colatent.config.settings import Count
from colatent.data.likelihoods import likelihoods_of


def _auto_or_number(value: Any) -> Any:
    """Refuse what is neither, in one error instead of one for each type of a union."""
    if value == "auto" or (isinstance(value, int) and not isinstance(value, bool) and value >= 1):
        return value
    raise PydanticCustomError("number", "input should be auto or a whole number, at least 1")


NumberOfLatents = Annotated[Count | Literal["auto"], BeforeValidator(_auto_or_number)]


class GPFASettings(GroupedLatentsSettings):
    """Gaussian-process factor analysis (Yu et al. 2009) of one or several modalities, exact if Gaussian."""

    kind: Literal["gpfa"]
    record: ClassVar = ModelKind(
        title="Gaussian-process factor analysis",
        code="colatent.models.gpfa.model:GPFAModel",
        methods="colatent.models.gpfa.methods:gpfa",
        has_latents=True,
        needs_torch=True,
    )
    latents: dict[str, NumberOfLatents] = Field(  # type: ignore[assignment]
        min_length=1,
        description="latent group (modalities joined by +): number of latents; or all modalities: auto, for "
        "groups and numbers that each fit finds",
    )
    likelihood: dict[str, Literal[likelihoods_of("gpfa")]] = Field(  # type: ignore[valid-type]
        default_factory=dict,
        description="modality: gaussian (the default for all but spikes), gaussian-sqrt (square-rooted "
        f"counts), {' or '.join(m for m in likelihoods_of('gpfa') if m in COUNT_LIKELIHOODS)}; by default "
        "spikes are poisson if units have less than 0.75 spikes per bin on average in the training trials, "
        "else gaussian-sqrt",
    )
    mean: Literal["constant", "time", "condition"] | None = Field(
        None,
        description="mean of each channel besides the latents' part: a constant or, for trials aligned in "
        "time, also its mean time course over training trials, weighted by how it predicts left-out ones: "
        "that of all (time), or that of the trial's condition, which the model is then told (condition). By "
        "default time where trials are aligned, else constant",
    )
    delays: bool = Field(
        False,
        description="whether to learn by how much the modalities of a shared group follow the one of them "
        "that `latents` names first, one delay for each latent and modality",
    )
    candidates: list[Count] = Field(
        default_factory=lambda: [1, 2, 3, 4, 6, 8, 10, 12],
        description="numbers of latents that `snakemake choose_latents` compares, for one modality",
    )
    kernel: Kernel = Field("squared-exponential", description="covariance of the latents over time")
    intervals: bool = Field(
        False,
        description="whether to compute 95 % confidence intervals of the time scales and delays of a "
        "Gaussian model, which can take longer than the fit; the figures show them",
    )
    automatic_relevance: float = Field(
        0.0,
        ge=0,
        le=1,
        description="prior that shrinks the loadings, for one Gaussian modality: 0 none (maximum "
        "likelihood), 0.5 for few trials, 1 draws latents that the data do not need to zero",
    )

    def likelihood_of(self, modality: str, kind: str) -> str | None:
        """Return the likelihood of a modality of a kind such as spikes; None if it is chosen in the fit."""
        if kind != "spikes":
            return self.likelihood.get(modality, "gaussian")
        return self.likelihood.get(modality, "gaussian-sqrt" if self.automatic_relevance else None)

    def mean_of(self, time_locked: bool) -> Literal["constant", "time", "condition"]:
        """Return the mean for trials that are aligned in time, or for windows that are not."""
        return self.mean or ("time" if time_locked else "constant")

    def fewest_channels(self, modality: str) -> int:
        return self.numbers.get(modality, 1) if len(self.latents) == 1 else 1

    @property
    def told_condition(self) -> bool:
        return self.mean == "condition"

    @property
    def can_choose_latents(self) -> bool:
        return len(self.modalities) == 1 and not self.finds_groups

    @property
    def finds_groups(self) -> bool:
        """Whether fits find the latent groups among the modalities, which the config names together."""
        return "auto" in self.latents.values()

    @property
    def numbers(self) -> dict[str, int]:
        """Numbers of latents by group; empty if fits find the groups."""
        return {group: n for group, n in self.latents.items() if isinstance(n, int)}

    @property
    def _counts(self) -> bool:
        """Whether a likelihood of counts is named."""
        return not set(COUNT_LIKELIHOODS).isdisjoint(self.likelihood.values())

    @property
    def _may_have_counts(self) -> bool:
        return self._counts or len(self.likelihood) < len(self.modalities)

    def posterior_mb(self, size: Size) -> float:
        # every count has its own Gaussian site
        return 0.06 * size.bins + 40 * size.mb if self._may_have_counts else 0.03 * size.bins

    def fit_seconds(self, size: Size) -> float:
        return 4e-3 * size.bins + 5 * size.mb if self._may_have_counts else 3 * size.mb

    @model_validator(mode="after")
    def _sections_agree(self) -> Self:
        if unused := set(self.likelihood) - set(self.modalities):
            raise ValueError(f"likelihood names {sorted(unused)[0]!r}, which has no latents")
        several = len(self.modalities) > 1
        if self.finds_groups and len(self.latents) > 1:
            raise ValueError("latents: auto must stand alone, for all modalities: spikes+emg: auto")
        if self.finds_groups and self.automatic_relevance > 0:
            raise ValueError("automatic_relevance must be 0 with latents: auto")
        if self.automatic_relevance > 0 and (self._counts or several):
            raise ValueError("automatic_relevance must be 0 unless the model is Gaussian and of one modality")
        if self.intervals and self._counts:
            raise ValueError("intervals need a Gaussian model; use likelihood: gaussian-sqrt for spikes")
        if self.delays and not several:
            raise ValueError("delays need a group of several modalities in latents, such as spikes+emg")
        return self

    def check_modalities(self, where: str, modalities: Mapping[str, ModalitySettings]) -> None:
        super().check_modalities(where, modalities)
        check_likelihoods(where, self.likelihood, modalities, (*COUNT_LIKELIHOODS, "gaussian-sqrt"))
