"""What ingest refuses, each in one sentence: missing parts, links, questions without an answer."""

import os
import shutil

import h5py
import numpy as np
import pytest
from support import FORCE, SPIKES, TRIALS, quietly

from colatent.config import ContinuousAlignment, ContinuousModality, SpikesModality, TrialAlignment
from colatent.errors import InputError
from colatent.ingest import ingest_session, session
from colatent.ingest.check import check_source


@pytest.mark.parametrize(
    ("alignment", "modality", "sentence"),
    [
        (TRIALS, {"source": "processing/behavior/forc"}, "did you mean processing/behavior/force"),
        (TRIALS, {"source": "acquisition/force"}, "did you mean .*processing/behavior/force"),
        (TRIALS, {"source": "processing/behavior/cel?"}, "no path matches"),
        (TRIALS, {"source": "processing/behavior/force/data"}, "is a dataset, not a series"),
        (TRIALS, {"source": "processing/behavior/Position/cursor/../../../units"}, "no such path"),
        (TrialAlignment(bin_width=0.1, start="go"), {"source": FORCE.source}, "has no column 'go'"),
    ],
)
def test_check_source_names_what_is_wrong(recording, alignment, modality, sentence):
    with pytest.raises(InputError, match=sentence):
        check_source(recording, alignment, {"m": ContinuousModality(kind="continuous", **modality)})


@pytest.mark.parametrize(
    ("where", "sentence"),
    [
        ("id % 2", "is not a condition"),
        ("quality", "is not a condition"),
        ("@pd.options.mode == 1", "holds an @"),
        ("quality ==", "fails"),
        ("quality != 1", "'quality' holds texts; compare texts with texts"),
        ("id >= 0 & quality not in [1, 2]", "'quality' holds texts; compare texts with texts"),
    ],
)
def test_a_query_must_be_a_condition(recording, where, sentence):
    with pytest.raises(InputError, match=sentence):
        check_source(recording, TRIALS, {"spikes": SpikesModality(kind="spikes", where=where)})


def test_numbers_compared_with_texts_do_not_keep_everything(recording):
    for where in ("target != '1'", "start_time > 1 & target not in ['1']", "'1' != target"):
        with pytest.raises(InputError, match="'target' holds numbers; compare texts with texts"):
            check_source(recording, TrialAlignment(bin_width=0.1, where=where), {"force": FORCE})


def test_one_channel_in_two_modalities_is_refused(recording):
    again = ContinuousModality(kind="continuous", source="processing/behavior/force", columns=[1])
    with pytest.raises(InputError, match=r"in two modalities, force and again"):
        check_source(recording, TRIALS, {"force": FORCE, "again": again})
    twice = ContinuousModality(kind="continuous", source="processing/behavior/force", columns=[1, 1])
    with pytest.raises(InputError, match="not all different"):
        check_source(recording, TRIALS, {"force": twice})


def test_a_link_to_a_channel_is_that_channel(recording):
    with h5py.File(recording, "a") as file:
        behavior = file["processing/behavior"]
        behavior["cell_again"] = h5py.SoftLink("/processing/behavior/cell1")
        behavior["other"] = behavior["force"]
    other = ContinuousModality(kind="continuous", source="processing/behavior/other")
    with pytest.raises(InputError, match=r"in two modalities, force and other"):
        check_source(recording, TRIALS, {"force": FORCE, "other": other})
    cells = ContinuousModality(kind="continuous", source="processing/behavior/cell*")
    with pytest.raises(InputError, match=r"in cells twice, by a link"):
        check_source(recording, TRIALS, {"cells": cells})


def test_links_out_of_the_file_are_followed_only_when_allowed(recording):
    with h5py.File(recording.with_name("other.h5"), "w") as other, h5py.File(recording, "a") as file:
        file.copy("processing/behavior/force", other, "elsewhere")
        file["processing/behavior/linked"] = h5py.ExternalLink("other.h5", "/elsewhere")
    linked = {"force": FORCE, "linked": FORCE.model_copy(update={"source": "processing/behavior/linked"})}
    with pytest.raises(InputError, match="a link to another file"):
        check_source(recording, TRIALS, linked)
    got = quietly(recording, TRIALS, linked, {"external-link": "warn"})
    np.testing.assert_array_equal(got.trials.values["linked"], got.trials.values["force"])
    (said,) = (row["message"] for row in got.findings if row["check"] == "external-link")
    assert said.endswith("linked: a link to another file (other.h5), of which a change goes unnoticed")
    with h5py.File(recording, "a") as file:
        file["processing/behavior/dangling"] = h5py.SoftLink("/nowhere")
    dangling = {"m": FORCE.model_copy(update={"source": "processing/behavior/dangling"})}
    with pytest.raises(InputError, match="the link there leads nowhere"):
        check_source(recording, TRIALS, dangling, checks={"external-link": "warn"})


def test_a_file_that_is_replaced_while_it_is_read_is_refused(recording, tmp_path):
    other = shutil.copy(recording, tmp_path / "other.nwb")

    def replace(line: str) -> None:
        if "trials of up to" in line:
            os.replace(other, recording)

    with pytest.raises(InputError, match=r"changed or replaced while it was read; run the same command"):
        ingest_session(recording, TRIALS, {"force": FORCE}, {}, progress=replace)


def test_units_of_one_id_keep_names_of_their_own(recording):
    with h5py.File(recording, "a") as file:
        file["units/id"][:] = [7, 3, 7]
    got = quietly(recording, TRIALS, {"spikes": SPIKES}, {"inspector": "warn"})
    assert got.trials.channels["spikes"] == ("unit_7_row_0", "unit_3", "unit_7_row_2")


def test_times_in_milliseconds_since_1970_are_refused(recording):
    with h5py.File(recording, "a") as file:
        file["processing/behavior/force/starting_time"][()] = 1.7e12
    with pytest.raises(InputError, match=r"a time of 1.7e\+12 s is centuries away"):
        quietly(recording, ContinuousAlignment(window=1, gap=0, bin_width=0.1), {"force": FORCE})


@pytest.mark.parametrize(
    ("path", "row", "min_rate", "place"),
    [
        ("intervals/trials/stop_time", 3, 0.0, "intervals/trials"),
        ("units/obs_intervals", 0, 0.0, "units: obs_intervals"),
        ("units/spike_times", 239, 0.0, "spikes: unit_0"),
        ("units/spike_times", 239, 1.0, "units: spike_times"),
        ("processing/behavior/Position/cursor/timestamps", 119, 0.0, "cursor/timestamps"),
    ],
)
def test_a_time_centuries_away_is_said_with_its_file_and_place(recording, path, row, min_rate, place):
    with h5py.File(recording, "a") as file:
        file[path][row] = [0.0, 1e12] if "obs" in path else 1e12
    modalities = {
        "spikes": SPIKES.model_copy(update={"min_rate": min_rate}),
        "cursor": ContinuousModality(kind="continuous", source="processing/behavior/Position"),
    }
    with pytest.raises(InputError, match=r"a time of 1e\+12 s is centuries away") as error:
        quietly(recording, TRIALS, modalities, {"inspector": "warn"})
    assert str(error.value).startswith(f"{recording}: ") and f"{place}: a time" in str(error.value)


def test_more_values_than_fit_in_memory_are_refused_before_they_are_made(recording, monkeypatch):
    monkeypatch.setattr(session, "_MOST_VALUES", 95)  # 4 trials of 12 bins, 2 channels: 96
    with pytest.raises(InputError, match="4 trials of up to 12 bins and 2 channels are 96 values"):
        quietly(recording, TRIALS, {"force": FORCE})


def replace_data(file, shape, **storage):
    """Give the force data of another shape, none of which is stored."""
    attrs = dict(file["processing/behavior/force/data"].attrs)
    del file["processing/behavior/force/data"]
    file.create_dataset("processing/behavior/force/data", shape, "f8", **storage).attrs.update(attrs)


def test_shapes_that_no_memory_holds_are_refused_at_once(recording):
    with h5py.File(recording, "a") as file:
        replace_data(file, (120, 10**9), chunks=(1, 1000))
    with pytest.raises(InputError, match="force/data: 1000000000 channels are more than fit"):
        check_source(recording, TRIALS, {"force": FORCE})
    with h5py.File(recording, "a") as file:
        units = file["units"]
        attrs = dict(units["spike_times"].attrs)
        del units["spike_times"]
        units.create_dataset("spike_times", (10**12,), "f8", chunks=(1000,)).attrs.update(attrs)
        del units["spike_times_index"]
        units["spike_times_index"] = [240, 300, 10**12]
    with pytest.raises(InputError, match="spike_times: 999999999700 values of one row are more than fit"):
        check_source(recording, TRIALS, {"spikes": SPIKES})
