"""A kind of modality is one settings class with its record and one reader; nothing else knows of it."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np
import pytest
from pydantic import Field
from pynwb import NWBHDF5IO, NWBFile, TimeSeries

import colatent.config.file
import colatent.ingest.contents
from colatent.config import Config, ContinuousModality, Modality, ModalitySettings, TrialAlignment
from colatent.config.file import parse_config
from colatent.config.modalities import ModalityKind
from colatent.errors import InputError
from colatent.ingest import ingest_session, inspect
from colatent.ingest.check import check_source
from colatent.ingest.counts import count_spikes
from colatent.ingest.modalities.base import BinnedModality, Candidate, Reader
from colatent.ingest.nwb.file import dataset, find
from colatent.ingest.signals.clocks import to_ns


class EventsModality(ModalitySettings):
    """Events such as licks, of which a series holds the times."""

    record: ClassVar = ModalityKind(reader=f"{__name__}:READER", counts=True)
    kind: Literal["events"]
    source: str = Field(description="path of the series in the NWB file")


@dataclass
class EventSource:
    times: np.ndarray
    channels: tuple[str, ...]

    @property
    def extent(self):
        return int(self.times[0]), int(self.times[-1]) + 1

    def observe(self, windows, findings):
        values = count_spikes([self.times], 1, windows).astype(float)
        return BinnedModality(values, np.ones(values.shape, bool), self.channels, "events/bin")


READER = Reader(
    select=lambda file, settings: [(find(file, settings.source), 0)],
    open=lambda file, name, settings, findings, reading: EventSource(
        to_ns(dataset(find(file, settings.source), "timestamps")[:]), (name,)
    ),
    candidates=lambda contents: [
        Candidate(EventsModality(kind="events", source=path), channels=1)
        for path, group in contents.groups.items()
        if "timestamps" in group and path.endswith("licks")
    ],
)
AnyModality = Annotated[Modality.__origin__ | EventsModality, Field(discriminator="kind")]
LICKS = np.array([1.05, 1.25, 1.27, 2.15, 2.95])


@pytest.fixture
def licks(tmp_path: Path) -> Path:
    file = NWBFile("made for a test", "id", datetime(2020, 1, 1, tzinfo=UTC))
    lick = TimeSeries(name="licks", data=np.ones(5), unit="1", timestamps=LICKS)
    force = TimeSeries(name="force", data=np.arange(40.0), unit="N", rate=10.0)
    file.add_acquisition(lick)
    file.add_acquisition(force)
    for start in (1.0, 2.0):
        file.add_trial(start_time=start, stop_time=start + 1)
    with NWBHDF5IO(tmp_path / "licks.nwb", "w") as io:
        io.write(file)
    return tmp_path / "licks.nwb"


@pytest.fixture
def entered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The entry in the union of modalities, made after the fact."""

    class WithEvents(Config):
        modalities: dict[str, AnyModality]

    monkeypatch.setattr(colatent.config.file, "Config", WithEvents)
    monkeypatch.setattr(colatent.ingest.contents, "Modality", AnyModality)


def test_a_new_kind_is_configured_checked_ingested_and_suggested(licks, entered):
    content = {
        "sessions": "s.tsv",
        "results": "r",
        "alignment": {"bin_width": 0.1},
        "modalities": {
            "licks": {"kind": "events", "source": "acquisition/licks"},
            "force": {"kind": "continuous", "source": "acquisition/force"},
        },
        "models": {"g": {"kind": "gpfa", "latents": {"licks": 1}, "likelihood": {"licks": "poisson"}}},
    }
    config = parse_config(content, "c.yaml")
    assert check_source(licks, config.alignment, config.modalities).n_channels == {"licks": 1, "force": 1}
    trials = ingest_session(
        licks, config.alignment, config.modalities, {"inspector": "warn"}, progress=lambda _: None
    ).trials
    expected = [np.histogram(LICKS, start + np.arange(11) / 10)[0] for start in (1.0, 2.0)]
    np.testing.assert_array_equal(trials.values["licks"][..., 0], expected)
    assert trials.kinds == {"licks": "spikes", "force": "continuous"}  # as models see them
    assert ("events", "acquisition/licks") in {(item.kind, item.path) for item in inspect(licks).items}


def test_its_mistakes_are_named_like_those_of_other_kinds(entered):
    modality = {"kind": "events", "source": "x", "sauce": "y"}
    with pytest.raises(InputError, match=r"unknown key 'modalities.m.sauce'; did you mean 'source'\?"):
        parse_config({"modalities": {"m": modality}}, "c.yaml")


def test_a_channel_of_two_kinds_is_refused(licks):
    both = {
        "licks": EventsModality(kind="events", source="acquisition/licks"),
        "series": ContinuousModality(kind="continuous", source="acquisition/licks"),
    }
    with pytest.raises(InputError, match="in two modalities, licks and series"):
        check_source(licks, TrialAlignment(bin_width=0.1), both)
