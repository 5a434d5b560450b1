"""What all sections under ``modalities`` have in common, and the record of each kind."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from colatent.config.settings import Settings


@dataclass(frozen=True)
class ModalityKind:
    """The record of a kind of modality: everything about it besides its settings.

    Attributes:
        reader: ``module:NAME`` of its `colatent.ingest.modalities.base.Reader`, imported when first needed.
        counts: whether its values are counts of events per bin, as of spikes; otherwise they are continuous.
    """

    reader: str
    counts: bool = False

    @property
    def values(self) -> Literal["spikes", "continuous"]:
        """The kind of its values once binned, which models see as `Trials.kinds`."""
        return "spikes" if self.counts else "continuous"


class ModalitySettings(Settings):
    """A section under ``modalities``; each kind is one subclass with one record."""

    kind: str
    record: ClassVar[ModalityKind]
    source: str


def require_known(where: str, group: str, modalities: Mapping[str, Any]) -> None:
    """Raise ValueError unless a modality, or each one of a group such as ``spikes+emg``, is in the config."""
    for name in group.split("+"):
        if name not in modalities:
            raise ValueError(f"{where} names the unknown modality {name!r}; known: {', '.join(modalities)}")
