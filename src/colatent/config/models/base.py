"""What all sections under ``models`` have in common, and the record of each kind."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

from pydantic import Field, field_validator

from colatent.config.modalities import ModalitySettings, require_known
from colatent.config.settings import Count, Settings
from colatent.data.likelihoods import LIKELIHOODS, likelihoods_of

COUNT_LIKELIHOODS = tuple(
    name for name in likelihoods_of("mm-gpvae") if LIKELIHOODS[name].describes == "counts"
)
Kernel = Literal["squared-exponential", "matern-3/2", "matern-5/2"]


class Size(NamedTuple):
    """Size of a session's store: its arrays in memory (MB), and its bins over all trials."""

    mb: float
    bins: int

    @property
    def channels(self) -> float:
        """Channels of all modalities together; a bin of each is a number and whether it was observed."""
        return self.mb * 1e6 / 9 / max(self.bins, 1)


class LatentGroup(NamedTuple):
    """The modalities that some latents drive together.

    Attributes:
        name: as in the config, such as ``spikes+emg``; for files and tables only.
        modalities: the set itself; latents of one modality are private, of several shared.
    """

    name: str
    modalities: frozenset[str]

    @classmethod
    def of(cls, name: str) -> "LatentGroup":
        """Return the group that a config names."""
        return cls(name, frozenset(name.split("+")))

    @property
    def shared(self) -> bool:
        return len(self.modalities) > 1


@dataclass(frozen=True)
class ModelKind:
    """The record of a kind of model: everything about it besides its settings.

    Attributes:
        title: how reports call it.
        code: ``module:Class`` of the model (`colatent.models.base.Model`), imported when it is first needed.
        methods: ``module:function`` that describes a model in a report's methods, or its one sentence.
        baseline: whether models of other kinds are compared with it.
        has_latents: whether its latents are summarised and exported.
        needs_torch: whether its fits run PyTorch, which then gets the job's threads.
        uses_gpu: whether its fits run on the config's device.
        is_quick: whether a fit takes less time than a job of a cluster takes to start.
    """

    title: str
    code: str
    methods: str
    baseline: bool = False
    has_latents: bool = False
    needs_torch: bool = False
    uses_gpu: bool = False
    is_quick: bool = False


class ModelSettings(Settings):
    """A section under ``models``; each kind is one subclass with one record.

    The keys of any mapping in such a section are modalities, or groups of them.
    """

    kind: str
    record: ClassVar[ModelKind]

    def modalities_among(self, names: Sequence[str]) -> tuple[str, ...]:
        """Return the modalities of a session that the model describes, by default all, in its order."""
        return tuple(names)

    @property
    def can_choose_latents(self) -> bool:
        """Whether `snakemake choose_latents` compares numbers of latents for the model."""
        return False

    @property
    def told_condition(self) -> bool:
        """Whether predictions use the condition of a test trial."""
        return False

    @property
    def latent_groups(self) -> tuple[LatentGroup, ...]:
        """The group of each latent; empty for a model without latents, or whose fit finds them."""
        latents: dict[str, int | str] = getattr(self, "latents", {})
        return tuple(
            LatentGroup.of(name) for name, n in latents.items() if isinstance(n, int) for _ in range(n)
        )

    def fewest_channels(self, modality: str) -> int:
        """Return how many channels of a modality a fit needs."""
        return 1

    def can_lack_channels(self, modality: str) -> bool:
        """Return whether a modality may have fewer channels than were recorded."""
        return True

    @property
    def n_copies(self) -> int:
        """Number of copies of the data that a fit holds, besides those that all fits hold."""
        return 1

    def posterior_mb(self, size: Size) -> float:
        """Return the memory for the posterior of the latents (MB), which grows with the number of bins."""
        return 0.0

    def fit_seconds(self, size: Size) -> float:
        """Return about three times what a fit was measured to take on one core (s)."""
        return size.mb

    def check_modalities(self, where: str, modalities: Mapping[str, ModalitySettings]) -> None:
        """Raise ValueError if the section names an unknown modality, or one that it cannot describe.

        Args:
            where: place of the section in the config.
            modalities: those of the config.
        """
        for key in type(self).model_fields:
            value = getattr(self, key)
            for group in value if isinstance(value, Mapping) else ():
                require_known(f"{where}.{key}.{group}", group, modalities)


class GroupedLatentsSettings(ModelSettings):
    """What models with latents of groups of modalities have in common."""

    latents: dict[str, Count] = Field(
        min_length=1, description="latent group (modalities joined by +): number of latents"
    )

    @field_validator("latents")
    @classmethod
    def _groups_once(cls, value: dict[str, Any]) -> dict[str, Any]:
        if len({LatentGroup.of(group).modalities for group in value}) < len(value):
            raise ValueError(f"{', '.join(value)} name one group twice")
        return value

    @property
    def modalities(self) -> list[str]:
        return list(dict.fromkeys(m for group in self.latents for m in group.split("+")))

    def modalities_among(self, names: Sequence[str]) -> tuple[str, ...]:
        return tuple(name for name in names if name in self.modalities)


def check_likelihoods(
    where: str,
    likelihood: Mapping[str, str],
    modalities: Mapping[str, ModalitySettings],
    of_counts: Collection[str],
    never_of_counts: Collection[str] = (),
) -> None:
    """Raise ValueError if a count likelihood is given for a continuous modality, or the reverse."""
    for name, chosen in likelihood.items():
        counts = modalities[name].record.counts
        if counts and chosen in never_of_counts:
            raise ValueError(
                f"{where}.likelihood.{name} is {chosen}, which does not describe counts; "
                f"use {' or '.join(of_counts)}"
            )
        if not counts and chosen in of_counts:
            raise ValueError(
                f"{where}.likelihood.{name} is {chosen}, which describes counts, but the modality is "
                "continuous; use gaussian"
            )
