"""Files written with pynwb, read here without it."""

import io
import re
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
from pynwb import NWBHDF5IO, NWBFile, TimeSeries
from pynwb.behavior import Position, SpatialSeries
from pynwb.image import ImageSeries
from rich.console import Console

from colatent.config import (
    ContinuousAlignment,
    ContinuousModality,
    PoseModality,
    SpikesModality,
    TrialAlignment,
)
from colatent.errors import InputError
from colatent.ingest import ingest_session, inspect
from colatent.ingest.check import check_source
from colatent.ingest.nwb import open_nwb
from colatent.session import session_groups
from colatent.store import check_store, group_names, read_group, write_store

TRIALS = TrialAlignment(bin_width=0.1, condition="target")
SPIKES = SpikesModality(kind="spikes")
FORCE = ContinuousModality(kind="continuous", source="processing/behavior/force")


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """Twelve seconds: three units, force at 10 Hz, a cell series each, ragged trials, pictures."""
    rng = np.random.default_rng(0)
    file = NWBFile("made for a test", "id", datetime(2020, 1, 1, tzinfo=UTC), session_id="s1")
    file.add_unit_column("quality", "by eye")
    for rate, quality in ((20, "good"), (5, "good"), (50, "mua")):
        file.add_unit(
            spike_times=np.sort(rng.uniform(0, 12, 12 * rate)),
            obs_intervals=[[0.0, 5.0], [6.0, 12.0]],
            quality=quality,
        )
    file.add_trial_column("target", "which")
    for k, stop in enumerate((2.0, 3.5, 5.5, 8.0)):
        file.add_trial(start_time=stop - 1.0 - 0.25 * (k == 1), stop_time=stop, target=float(k % 2))
    behavior = file.create_processing_module("behavior", "b")
    force = np.stack([np.arange(120.0), np.sin(np.arange(120))], axis=1)
    behavior.add(
        TimeSeries(
            name="force", data=force, unit="N", rate=10.0, starting_time=0.05, conversion=2.0, offset=1.0
        )
    )
    cursor = SpatialSeries(
        name="cursor", data=force, timestamps=np.arange(120) * 0.1, reference_frame="screen"
    )
    behavior.add(Position(spatial_series=cursor))
    for i in range(2):
        behavior.add(TimeSeries(name=f"cell{i}", data=force[:, 1] * i, unit="a.u.", rate=10.0))
    file.add_acquisition(
        ImageSeries(name="film", data=np.zeros((120, 2, 3)), unit="n.a.", rate=10.0, format="raw")
    )
    path = tmp_path / "session.nwb"
    with NWBHDF5IO(path, "w") as nwb:
        nwb.write(file)
    return path


def quietly(path, alignment, modalities, checks=None, **more):
    return ingest_session(path, alignment, modalities, checks or {}, progress=lambda _: None, **more)


def test_counts_and_means_equal_those_of_pynwb(recording):
    got = quietly(recording, TRIALS, {"spikes": SPIKES, "force": FORCE})
    with NWBHDF5IO(recording, "r") as nwb:
        file = nwb.read()
        trials, units = file.trials.to_dataframe(), file.units.to_dataframe()
        force = file.processing["behavior"]["force"].get_data_in_units()
    counts, observed = got.trials.values["spikes"], got.trials.observed["spikes"]
    assert counts.shape == (4, 12, 3) and got.trials.condition.tolist() == ["0", "1", "0", "1"]
    for j, (start, stop) in enumerate(zip(trials.start_time, trials.stop_time, strict=True)):
        edges = start + 0.1 * np.arange(int(round((stop - start) * 1e9) // 10**8) + 1)
        for u, times in enumerate(units.spike_times):
            seen = observed[j, :, u]
            expected = np.histogram(times, edges)[0]
            inside = (edges[1:] <= 5.0 + 1e-9) | (edges[:-1] >= 6.0 - 1e-9)
            np.testing.assert_array_equal(seen[: len(expected)], inside)
            assert not seen[len(expected) :].any()
            np.testing.assert_array_equal(counts[j, : len(expected), u][inside], expected[inside])
    centres = trials.start_time.to_numpy()[:, None] + got.time
    for c in range(2):
        expected = np.interp(centres, 0.05 + np.arange(120) / 10, force[:, c])
        seen = got.trials.observed["force"][..., c]
        np.testing.assert_allclose(got.trials.values["force"][..., c][seen], expected[seen], rtol=1e-7)
    assert got.units_of == {"spikes": "spikes/bin", "force": "N"}
    assert got.source["session_id"] == "s1" and len(got.source["sha256"]) == 64
    assert list(got.trial_table.columns[:3]) == ["start", "stop", "condition"]


def test_units_are_selected_by_query_and_rate(recording):
    modality = SpikesModality(kind="spikes", where="quality == 'good'", min_rate=10.0)
    got = quietly(recording, TRIALS, {"spikes": modality})
    assert got.trials.channels["spikes"] == ("unit_0",)
    assert got.attrs["spikes"]["units_below_min_rate"] == 1


def test_globs_positions_images_and_truth(recording):
    modalities = {
        "cells": ContinuousModality(kind="continuous", source="processing/behavior/cell*"),
        "cursor": ContinuousModality(kind="continuous", source="processing/behavior/Position"),
        "film": ContinuousModality(kind="continuous", source="acquisition/film", columns=[0, 5]),
    }
    alignment = ContinuousAlignment(window=3.0, gap=0.5, bin_width=0.2)
    got = quietly(recording, alignment, modalities, truth="processing/behavior/force")
    assert got.trials.channels == {
        "cells": ("cell0", "cell1"),
        "cursor": ("cursor_x", "cursor_y"),
        "film": ("film_0_0", "film_1_2"),
    }
    assert got.trials.n_trials == 3 and got.trials.n_bins == 15
    assert got.truth.values.shape == (3, 15, 2) and got.truth.names == ("force_0", "force_1")
    starts = got.trial_table["start"].to_numpy()
    np.testing.assert_allclose(np.diff(starts), 3.5)
    constant = [f["channel"] for f in got.findings if f["check"] == "constant-channel"]
    assert constant == ["cell0", "film_0_0", "film_1_2"]


def test_fixed_windows_round_an_event_and_pad(recording):
    alignment = TrialAlignment(bin_width=0.1, start="stop_time", window=(-0.3, 0.2), where="target == 1")
    got = quietly(recording, alignment, {"force": FORCE})
    np.testing.assert_allclose(got.time, [-0.25, -0.15, -0.05, 0.05, 0.15])
    np.testing.assert_allclose(got.trial_table["start"], [3.2, 7.7])
    padded = quietly(recording, TrialAlignment(bin_width=0.1, pad=(0.1, 0.0)), {"force": FORCE})
    assert padded.time[0] == pytest.approx(-0.05)


def test_overlapping_trials_are_refused_unless_allowed(recording):
    alignment = TrialAlignment(bin_width=0.1, pad=(1.0, 1.0))
    with pytest.raises(InputError, match="begin before an earlier one ends"):
        quietly(recording, alignment, {"force": FORCE})
    got = quietly(recording, alignment, {"force": FORCE}, {"trial-overlap": "warn"})
    assert any(f["check"] == "trial-overlap" and f["count"] == 3 for f in got.findings)


def test_trials_outside_the_recording_are_masked(recording):
    with h5py.File(recording, "a") as file:
        file["intervals/trials/start_time"][3] = 100.0
        file["intervals/trials/stop_time"][3] = 101.0
    got = quietly(recording, TRIALS, {"spikes": SPIKES, "force": FORCE})
    assert not got.trials.observed["spikes"][3].any() and not got.trials.observed["force"][3].any()
    assert {f["modality"] for f in got.findings if f["check"] == "outside-recording"} == {"spikes", "force"}
    with pytest.raises(InputError, match="outside its recording"):
        quietly(recording, TRIALS, {"force": FORCE}, {"outside-recording": "refuse"})


def test_artefacts_and_saturation_are_masked_when_asked(recording):
    with h5py.File(recording, "a") as file:
        file["processing/behavior/force/data"][15, 1] = 1e6
        file["processing/behavior/force/data"][25:80, 0] = 500.0
    checks = {"artefact": "mask", "saturated-channel": "mask"}
    plain = quietly(recording, TRIALS, {"force": FORCE}).trials.observed["force"]
    masked = quietly(recording, TRIALS, {"force": FORCE}, checks).trials.observed["force"]
    assert plain[..., 1].sum() - masked[..., 1].sum() in (1, 2)
    assert plain[..., 0].sum() - masked[..., 0].sum() > 10


def damage_index(file):
    index = file["units/spike_times_index"]
    values, attrs = index[:].astype("u4"), dict(index.attrs)
    del file["units/spike_times_index"]
    file["units/spike_times_index"] = np.append(values[:-1], 987_786)
    file["units/spike_times_index"].attrs.update(attrs)


def damage_clock(file):
    del file["processing/behavior/force/starting_time"]


def damage_times(file):
    file["processing/behavior/Position/cursor/timestamps"][50] = 0.0


def damage_lengths(file):
    series = file["processing/behavior/Position/cursor"]
    del series["timestamps"]
    series["timestamps"] = np.arange(7.0)


def link_outside(file):
    file["processing/behavior/elsewhere"] = h5py.ExternalLink("/etc/passwd", "/")


def store_outside(file):
    file.create_dataset("scratch_data", (10,), "u1", external=[("/etc/passwd", 0, 10)])


def old_version(file):
    file.attrs["nwb_version"] = "NWB-1.0.6"


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (damage_index, "spike_times_index: the ragged index runs to 987786 but spike_times holds 900"),
        (damage_clock, "force: there are neither timestamps nor a starting_time"),
        (damage_times, "cursor/timestamps: times do not increase near sample 50"),
        (damage_lengths, "cursor: 7 timestamps for 120 samples"),
        (link_outside, r"elsewhere: a link to another file \(/etc/passwd\)"),
        (store_outside, "scratch_data: its values lie in another file"),
        (old_version, "this is NWB 1.0.6 and only NWB 2 is read"),
    ],
)
def test_damaged_files_are_refused_in_a_sentence(recording, damage, sentence):
    with h5py.File(recording, "a") as file:
        damage(file)
    cursor = ContinuousModality(kind="continuous", source="processing/behavior/Position/cursor")
    with pytest.raises(InputError, match=sentence) as error:
        quietly(recording, TRIALS, {"spikes": SPIKES, "force": FORCE, "cursor": cursor})
    assert str(recording) in str(error.value) and "\n" not in str(error.value)


def test_truncated_missing_and_foreign_files_are_refused(recording, tmp_path):
    whole = recording.read_bytes()
    short = tmp_path / "short.nwb"
    short.write_bytes(whole[: len(whole) // 2])
    text = tmp_path / "text.nwb"
    text.write_text("not a recording")
    for path, sentence in (
        (short, "truncated"),
        (text, "not an HDF5"),
        (tmp_path / "none.nwb", "no such file"),
    ):
        with pytest.raises(InputError, match=sentence), open_nwb(path):
            pass


def test_a_chunk_that_does_not_unpack_is_named(recording):
    with h5py.File(recording, "a") as file:
        force = file["processing/behavior/force"]
        values, attrs = force["data"][:], dict(force["data"].attrs)
        del force["data"]
        data = force.create_dataset("data", data=values, chunks=(120, 2), compression="gzip")
        data.attrs.update(attrs)
        chunk = data.id.get_chunk_info(0)
    with recording.open("r+b") as file:
        file.seek(chunk.byte_offset + chunk.size // 2)
        file.write(b"damaged")
    with pytest.raises(InputError, match="a part of it cannot be read") as error:
        quietly(recording, TRIALS, {"force": FORCE}, {"inspector": "warn"})
    assert str(recording) in str(error.value) and "\n" not in str(error.value)


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
        check_source(recording, alignment, {"m": SimpleNamespace(kind="continuous", **modality)})


def test_pose_below_confidence_is_missing(recording):
    with h5py.File(recording, "a") as file:
        pose = file.create_group("processing/behavior/pose")
        for name in ("nose", "tail"):
            file.copy(file["processing/behavior/Position/cursor"], pose, name)
            pose[name]["confidence"] = np.where(np.arange(120) < 60, 0.9, 0.1)
    modality = PoseModality(kind="pose", source="processing/behavior/pose", keypoints=["tail"])
    got = quietly(recording, ContinuousAlignment(window=2, gap=0, bin_width=0.1), {"pose": modality}, {
        "inspector": "warn"})  # fmt: skip
    assert got.trials.channels["pose"] == ("tail_x", "tail_y")
    time = got.trial_table["start"].to_numpy()[:, None] + got.time
    np.testing.assert_array_equal(got.trials.observed["pose"][..., 0], time < 5.9)


def test_inspect_lists_what_is_inside_and_escapes_it(recording):
    with h5py.File(recording, "a") as file:
        file.copy(file["processing/behavior/force"], file["processing/behavior"], "[red]\x1b[31mforce")
    contents = inspect(recording)
    assert contents.tables == {"intervals/trials": (4, ("start_time", "stop_time", "target"))}
    paths = {item.path: item for item in contents.items}
    assert paths["units"].shape == "3 units, 900 spikes"
    assert paths["processing/behavior/force"].rate == 10.0
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(contents)
    shown = console.export_text()
    assert "[red]\\x1b[31mforce" in shown and "\x1b" not in shown


@pytest.mark.parametrize(
    ("where", "sentence"),
    [
        ("id % 2", "is no condition"),
        ("quality", "is no condition"),
        ("@pd.options.mode == 1", "holds an @"),
        ("quality ==", "fails"),
    ],
)
def test_a_query_must_be_a_condition(recording, where, sentence):
    with pytest.raises(InputError, match=sentence):
        check_source(recording, TRIALS, {"spikes": SpikesModality(kind="spikes", where=where)})


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
    got = quietly(recording, TRIALS, linked, {"external-link": "warn"}).trials
    np.testing.assert_array_equal(got.values["linked"], got.values["force"])
    with h5py.File(recording, "a") as file:
        file["processing/behavior/dangling"] = h5py.SoftLink("/nowhere")
    dangling = {"m": FORCE.model_copy(update={"source": "processing/behavior/dangling"})}
    with pytest.raises(InputError, match="the link there leads nowhere"):
        check_source(recording, TRIALS, dangling, checks={"external-link": "warn"})


def test_a_path_that_is_there_is_never_a_glob(recording):
    with h5py.File(recording, "a") as file:
        file["processing/behavior/[a]*"] = file["processing/behavior/force"]
    modality = ContinuousModality(kind="continuous", source="processing/behavior/[a]*")
    assert check_source(recording, TRIALS, {"m": modality}).n_channels == {"m": 2}


def test_times_that_stand_for_no_event_are_said_and_left_out_when_asked(recording):
    with h5py.File(recording, "a") as file:
        trials = file["intervals/trials"]
        trials["go"] = trials["start_time"][:] + 0.4
        trials["go"].attrs.update(trials["start_time"].attrs)
        trials["go"][1], trials["go"][3] = -1.0, 999999.0
    alignment = TrialAlignment(bin_width=0.1, start="go", window=(-0.2, 0.2))
    got = quietly(recording, alignment, {"force": FORCE})
    (found,) = [f for f in got.findings if f["check"] == "event-times"]
    assert (
        found["count"] == 2 and "'go' before zero or outside the trial itself, first -1 s" in found["message"]
    )
    assert got.trials.n_trials == 4
    got = quietly(recording, alignment, {"force": FORCE}, {"event-times": "mask"})
    np.testing.assert_allclose(got.trial_table["start"], [1.2, 4.7])
    with pytest.raises(InputError, match="event-times: warn"):
        quietly(recording, alignment, {"force": FORCE}, {"event-times": "refuse"})
    with h5py.File(recording, "a") as file:
        file["intervals/trials/go"][3] = -1.0
    with pytest.raises(InputError, match=r"2 of them are aligned to -1 s: .*event-times: mask"):
        quietly(recording, alignment, {"force": FORCE})


def test_a_last_time_far_off_is_no_longer_recording(recording):
    with h5py.File(recording, "a") as file:
        file["processing/behavior/Position/cursor/timestamps"][-1] = 1e9
    cursor = ContinuousModality(kind="continuous", source="processing/behavior/Position")
    with pytest.raises(InputError, match=r"windows of 10 bins between 0 and 1e\+09 s; correct"):
        quietly(recording, ContinuousAlignment(window=1, gap=0, bin_width=0.1), {"cursor": cursor})


def test_what_a_check_of_our_own_decides_nwbinspector_does_not_stop(recording):
    with h5py.File(recording, "a") as file:
        times = file["units/spike_times"]
        times[3], times[4] = times[4], times[3]
    got = quietly(recording, TRIALS, {"spikes": SPIKES})
    assert {f["check"] for f in got.findings} >= {"unsorted-spikes", "best-practice"}
    with pytest.raises(InputError, match="the spike times are not in order; to go on"):
        quietly(recording, TRIALS, {"spikes": SPIKES}, {"unsorted-spikes": "refuse"})


def test_names_of_columns_never_become_paths(recording, tmp_path):
    names = ["..", "zarr.json", "a\\b", "<script>", "x" * 300, "trial", "a b", "a_b"]
    with h5py.File(recording, "a") as file:
        trials = file["intervals/trials"]
        for k, name in enumerate(names):
            trials[name] = np.arange(4.0) + k
            trials[name].attrs.update(trials["start_time"].attrs)
    groups = session_groups(quietly(recording, TRIALS, {"force": FORCE}), [])
    folder = tmp_path / "results" / "session"
    write_store(folder, groups, {})
    check_store(folder)
    assert group_names(folder) == ["modality/force", "trials"]
    assert [p.name for p in folder.parent.iterdir()] == ["session"]
    stored = read_group(folder, "trials")
    for k, name in enumerate(names):
        (variable,) = [v for key, v in stored.items() if v.attrs.get("name", key) == name]
        np.testing.assert_array_equal(variable, np.arange(4.0) + k)
    assert all(re.fullmatch(r"\w{1,100}", str(name)) for name in stored)


def odd_electrodes(file):
    file["processing/behavior/force"].create_group("electrodes")


def odd_start(file):
    attrs = dict(file["processing/behavior/force/starting_time"].attrs)
    del file["processing/behavior/force/starting_time"]
    file["processing/behavior/force/starting_time"] = ["noon", "midnight"]
    file["processing/behavior/force/starting_time"].attrs.update(attrs)


@pytest.mark.parametrize("damage", [odd_electrodes, odd_start])
def test_an_odd_layout_is_a_sentence_too(recording, damage):
    with h5py.File(recording, "a") as file:
        damage(file)
    with pytest.raises(InputError, match="laid out as NWB 2 does not allow") as error:
        quietly(recording, TRIALS, {"force": FORCE}, {"inspector": "warn"})
    assert str(recording) in str(error.value) and "\n" not in str(error.value)


def test_what_cannot_be_masked_is_not_masked(recording):
    with pytest.raises(InputError, match=r"checks.trial-overlap: there is nothing to mask"):
        check_source(recording, TRIALS, {"force": FORCE}, checks={"trial-overlap": "mask"})


def test_trials_without_a_condition_are_left_out_and_said(recording):
    with h5py.File(recording, "a") as file:
        file["intervals/trials/target"][2] = np.nan
    got = quietly(recording, TRIALS, {"force": FORCE})
    assert got.trials.condition.tolist() == ["0", "1", "1"]
    assert [f["count"] for f in got.findings if f["check"] == "no-condition"] == [1]


def test_samples_missing_within_trials_are_said(recording):
    with h5py.File(recording, "a") as file:
        file["processing/behavior/force/data"][40:50, 1] = np.inf
    got = quietly(recording, TRIALS, {"force": FORCE})
    (found,) = [f for f in got.findings if f["check"] == "missing-samples"]
    assert "force_1" in found["message"]
    assert not got.trials.observed["force"][..., 1].all()


@pytest.mark.parametrize("factors", [[1.0], [1.0, 2.0, 3.0], []])
def test_factors_for_other_channels_are_refused(recording, factors):
    with h5py.File(recording, "a") as file:
        file["processing/behavior/force/channel_conversion"] = np.array(factors)
    with pytest.raises(InputError, match=r"force: .* factors in channel_conversion for 2 channels"):
        quietly(recording, TRIALS, {"force": FORCE}, {"inspector": "warn"})


@pytest.mark.parametrize("interval", [(0.0, np.nan), (0.0, np.inf), (5.0, 1.0)])
def test_intervals_of_observation_that_are_none_are_refused(recording, interval):
    with h5py.File(recording, "a") as file:
        file["units/obs_intervals"][2] = interval
    with pytest.raises(InputError, match="units: the obs_intervals of row 1 are not finite, or end before"):
        quietly(recording, TRIALS, {"spikes": SPIKES})


def test_what_h5py_makes_of_odd_attributes_is_said_in_a_sentence(recording):
    with h5py.File(recording, "a") as file:
        file["processing/behavior/force/data"].attrs["conversion"] = [1.0, 2.0]
    with pytest.raises(InputError, match="laid out as NWB 2 does not allow"):
        quietly(recording, TRIALS, {"force": FORCE}, {"inspector": "warn"})


def test_times_in_milliseconds_since_1970_are_refused(recording):
    with h5py.File(recording, "a") as file:
        file["processing/behavior/force/starting_time"][()] = 1.7e12
    with pytest.raises(InputError, match=r"a time of 1.7e\+12 s lies centuries away"):
        quietly(recording, ContinuousAlignment(window=1, gap=0, bin_width=0.1), {"force": FORCE})
