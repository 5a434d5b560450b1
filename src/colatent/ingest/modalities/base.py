"""How modalities are read, whatever their kind: in a file, selected from it, and on common bins."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import h5py
import numpy as np
from numpy.typing import NDArray

from colatent.config import ModalitySettings

if TYPE_CHECKING:  # checking a file before any job starts needs neither dask nor SciPy
    from colatent.ingest.alignment import Windows
    from colatent.ingest.findings import Findings
    from colatent.ingest.signals.resample import Reading

ChannelInFile = tuple[h5py.Group, int]  # its group, and its column or row in it


@dataclass(frozen=True)
class BinnedModality:
    """One modality of one session on the common bins.

    Attributes:
        values: (trial, time, channel); meaningless zeros where not observed.
        observed: boolean, the same shape.
        channels: names of the channels.
        unit: physical unit of the values.
        attrs: how it was processed, JSON-compatible.
    """

    values: NDArray[np.float64]
    observed: NDArray[np.bool_]
    channels: tuple[str, ...]
    unit: str
    attrs: dict[str, Any] = field(default_factory=dict)


class ModalitySource(Protocol):
    """A modality in its file, before it is put on bins."""

    @property
    def extent(self) -> tuple[int, int]:
        """First time and end of what was recorded (ns)."""
        ...

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of its channels."""
        ...

    def observe(self, windows: "Windows", findings: "Findings") -> BinnedModality:
        """Put the modality on bins, adding anything doubtful to the findings."""
        ...


@dataclass(frozen=True)
class Candidate:
    """Part of a file that could be a modality.

    Attributes:
        settings: the section of the config that would read it.
        shape: its size, in words.
        channels: number of channels.
        rate: sampling rate (Hz), NaN for events.
        unit: physical unit.
        gaps: number of gaps in its clock.
        missing: share of missing values, in words.
        problem: why it cannot be read, or nothing.
        extent: begin and end (ns) if known, as opening thousands of series again takes long.
        columns: table columns that `where` can query.
        joins: whether a glob may join it with others of its kind.
    """

    settings: ModalitySettings
    shape: str = ""
    channels: int = 0
    rate: float = np.nan
    unit: str = ""
    gaps: int = 0
    missing: str = ""
    problem: str = ""
    extent: tuple[int, int] | None = None
    columns: tuple[str, ...] = ()
    joins: bool = False

    @property
    def kind(self) -> str:
        return self.settings.kind

    @property
    def path(self) -> str:
        return self.settings.source


class FileGroups(NamedTuple):
    """The groups of a file: path -> group, and path -> NWB type, or an empty string."""

    groups: Mapping[str, h5py.Group]
    types: Mapping[str, str]

    def of_type(self, wanted: str) -> list[tuple[str, h5py.Group]]:
        """Return path and group of each object of an NWB type."""
        return [(path, self.groups[path]) for path, found in self.types.items() if found == wanted]


def _none(_: FileGroups) -> Iterable[Candidate]:
    return ()


class Reader(NamedTuple):
    """How ingest reads modalities of one kind; the kind's record in the config names it.

    Attributes:
        select: (file, settings) -> the channels that the settings select, without reading samples.
        open: (file, name of the modality, settings, findings, reading) -> the modality in its file.
        candidates: what a file holds that could be such a modality, for `colatent inspect`.

    The first two raise InputError where the file does not hold what the settings ask for.
    """

    select: Callable[[h5py.File, Any], list[ChannelInFile]]
    open: Callable[[h5py.File, str, Any, "Findings", "Reading"], ModalitySource]
    candidates: Callable[[FileGroups], Iterable[Candidate]] = _none


def reader_of(settings: ModalitySettings | type[ModalitySettings]) -> Reader:
    """Return the reader that the record of a kind of modality names."""
    reader: Reader = resolve_name(settings.record.reader)
    return reader
