"""Metadata of an exported NWB file: those of the recording, whatever is written in it."""

import time

import h5py
import pytest

from colatent.report.export import _like

START = "2020-01-01T00:00:00+00:00"


def made(recording, **written):
    with h5py.File(recording, "a") as file:
        for name, value in written.items():
            path = f"general/subject/{name}" if name == "date_of_birth" else name
            if path in file:
                del file[path]
            if value is not None:
                file[path] = value
        return _like(file, recording, "gpfa", "fold-0_seed-0")


@pytest.mark.parametrize("zone", ["UTC", "America/New_York"])
@pytest.mark.parametrize(
    ("written", "start"),
    [
        ("2020-03-04T05:06:07+02:00", "2020-03-04T05:06:07+02:00"),
        ("2020-03-04T05:06:07", "2020-03-04T05:06:07+00:00"),
        ("04-Mar-2020 05:06", START),  # that of the reference time
        (None, START),
    ],
)
def test_a_start_is_the_same_in_any_time_zone(recording, monkeypatch, zone, written, start):
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        file = made(recording, session_start_time=written)
    finally:
        monkeypatch.undo()
        time.tzset()
    assert file.session_start_time.isoformat() == start
    assert ("'04-Mar-2020 05:06', which is no date" in file.notes) == (written == "04-Mar-2020 05:06")


@pytest.mark.parametrize("written", ["", "unknown", "2019-13"])
def test_a_birth_date_that_is_none_is_left_out_and_said(recording, written):
    file = made(recording, date_of_birth=written)
    assert file.subject is None and f"Its date_of_birth is {written!r}, which is no date." in file.notes
    born = made(recording, date_of_birth="2018-05-06").subject.date_of_birth
    assert born.isoformat() == "2018-05-06T00:00:00+00:00"
