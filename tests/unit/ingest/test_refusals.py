"""What ingest refuses, each in one sentence: damage, odd layouts, links, questions without an answer."""

import re
import threading
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
from support import FORCE, SPIKES, TRIALS, quietly

from colatent.config import (
    ContinuousAlignment,
    ContinuousModality,
    SpikesModality,
    TrialAlignment,
)
from colatent.errors import InputError
from colatent.ingest import inspect, session
from colatent.ingest.check import check_source
from colatent.ingest.nwb import open_nwb, readable
from colatent.ingest.series import keypoints


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


@pytest.mark.parametrize(
    ("where", "sentence"),
    [
        ("id % 2", "is no condition"),
        ("quality", "is no condition"),
        ("@pd.options.mode == 1", "holds an @"),
        ("quality ==", "fails"),
        ("quality != 1", "'quality' holds texts and is compared to none"),
        ("id >= 0 & quality not in [1, 2]", "'quality' holds texts and is compared to none"),
    ],
)
def test_a_query_must_be_a_condition(recording, where, sentence):
    with pytest.raises(InputError, match=sentence):
        check_source(recording, TRIALS, {"spikes": SpikesModality(kind="spikes", where=where)})


def test_numbers_compared_with_texts_do_not_keep_everything(recording):
    for where in ("target != '1'", "start_time > 1 & target not in ['1']", "'1' != target"):
        with pytest.raises(InputError, match="'target' holds numbers and is compared to none"):
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
    got = quietly(recording, TRIALS, linked, {"external-link": "warn"}).trials
    np.testing.assert_array_equal(got.values["linked"], got.values["force"])
    with h5py.File(recording, "a") as file:
        file["processing/behavior/dangling"] = h5py.SoftLink("/nowhere")
    dangling = {"m": FORCE.model_copy(update={"source": "processing/behavior/dangling"})}
    with pytest.raises(InputError, match="the link there leads nowhere"):
        check_source(recording, TRIALS, dangling, checks={"external-link": "warn"})


def odd_electrodes(file):
    file["processing/behavior/force"].create_group("electrodes")


def odd_start(file):
    attrs = dict(file["processing/behavior/force/starting_time"].attrs)
    del file["processing/behavior/force/starting_time"]
    file["processing/behavior/force/starting_time"] = ["noon", "midnight"]
    file["processing/behavior/force/starting_time"].attrs.update(attrs)


def odd_factor(file):
    file["processing/behavior/force/data"].attrs["conversion"] = [1.0, 2.0]


def zero_factor(file):
    file["processing/behavior/force/data"].attrs["conversion"] = 0.0


def nan_offset(file):
    file["processing/behavior/force/data"].attrs["offset"] = np.nan


def nan_factor(file):
    file["processing/behavior/force/channel_conversion"] = [1.0, np.nan]


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (odd_electrodes, "force: its electrodes is a group where NWB 2 has a dataset"),
        (odd_start, r"starting_time: its value is \[.*\], not a number"),
        (odd_factor, r"force/data: its conversion is \[1. 2.\], not a number"),
        (zero_factor, "force/data: its conversion is 0 and its offset 1"),
        (nan_offset, "force/data: its conversion is 2 and its offset nan"),
        (nan_factor, "force: a factor in its channel_conversion is 0 or not finite"),
    ],
)
def test_an_odd_layout_is_a_sentence_too(recording, damage, sentence):
    with h5py.File(recording, "a") as file:
        damage(file)
    with pytest.raises(InputError, match=sentence) as error:
        quietly(recording, TRIALS, {"force": FORCE}, {"inspector": "warn"})
    assert str(recording) in str(error.value) and "\n" not in str(error.value)


def test_what_cannot_be_masked_is_not_masked(recording):
    with pytest.raises(InputError, match=r"checks.trial-overlap: there is nothing to mask"):
        check_source(recording, TRIALS, {"force": FORCE}, checks={"trial-overlap": "mask"})


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


@pytest.mark.parametrize(
    ("name", "shape"), [("obs_intervals", (6,)), ("obs_intervals", (6, 3)), ("spike_times", (900, 2))]
)
def test_columns_of_another_shape_are_not_read_as_if_they_had_the_right_one(recording, name, shape):
    with h5py.File(recording, "a") as file:
        attrs = dict(file[f"units/{name}"].attrs)
        del file[f"units/{name}"]
        file[f"units/{name}"] = np.arange(np.prod(shape), dtype=float).reshape(shape) / np.prod(shape)
        file[f"units/{name}"].attrs.update(attrs)
    with pytest.raises(
        InputError, match=f"units/{name}: its values have the shape {re.escape(str(shape[1:]))}"
    ):
        quietly(recording, TRIALS, {"spikes": SPIKES}, {"inspector": "warn"})


def test_what_h5py_cannot_read_is_a_sentence_and_our_own_mistake_is_none(recording):
    odd = pytest.raises(InputError, match="laid out as NWB 2 does not allow")
    with h5py.File(recording) as file, odd, readable(recording):
        file["nowhere"]
    for error in (ValueError, KeyError, MemoryError):
        with pytest.raises(error), readable(recording):
            raise error("ours")


def test_confidence_that_is_text_is_named(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        point = file.create_group("pose/nose")
        point["data"], point["timestamps"], point["confidence"] = np.ones((3, 2)), np.arange(3.0), ["a"] * 3
        with pytest.raises(InputError, match="pose/nose/confidence: it holds object, not numbers"):
            keypoints(file["pose"], None)


def test_units_of_one_id_keep_names_of_their_own(recording):
    with h5py.File(recording, "a") as file:
        file["units/id"][:] = [7, 3, 7]
    got = quietly(recording, TRIALS, {"spikes": SPIKES}, {"inspector": "warn"})
    assert got.trials.channels["spikes"] == ("unit_7_row_0", "unit_3", "unit_7_row_2")


def test_undecodable_bytes_stay_different_conditions(recording):
    with h5py.File(recording, "a") as file:
        attrs = dict(file["intervals/trials/target"].attrs)
        del file["intervals/trials/target"]
        texts = h5py.string_dtype("utf-8")
        column = file["intervals/trials"].create_dataset("target", (4,), texts)
        column[:] = np.array([b"\xff", b"\xfe", b"\xff", b"a"], object)
        column.attrs.update(attrs)
    got = quietly(recording, TRIALS, {"force": FORCE}, {"inspector": "warn"})
    assert got.trials.condition.tolist() == [r"\xff", r"\xfe", r"\xff", "a"]


def test_times_in_milliseconds_since_1970_are_refused(recording):
    with h5py.File(recording, "a") as file:
        file["processing/behavior/force/starting_time"][()] = 1.7e12
    with pytest.raises(InputError, match=r"a time of 1.7e\+12 s lies centuries away"):
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
    with pytest.raises(InputError, match=r"a time of 1e\+12 s lies centuries away") as error:
        quietly(recording, TRIALS, modalities, {"inspector": "warn"})
    assert str(error.value).startswith(f"{recording}: ") and f"{place}: a time" in str(error.value)


def test_more_values_than_fit_in_memory_are_refused_before_they_are_made(recording, monkeypatch):
    monkeypatch.setattr(session, "_MOST_VALUES", 95)  # 4 trials of 12 bins, 2 channels: 96
    with pytest.raises(InputError, match="4 trials of up to 12 bins and 2 channels are 96 values"):
        quietly(recording, TRIALS, {"force": FORCE})


def test_links_in_circles_do_not_stop_inspect_which_lists_columns_of_units(recording):
    with h5py.File(recording, "a") as file:
        file["processing/behavior/circle"] = h5py.SoftLink("/processing/behavior/circle")
    contents = inspect(recording)
    assert contents.units == {"units": (3, ("quality",))}


def replace_data(file, shape, **storage):
    """Give the force data of another shape, none of which is stored."""
    attrs = dict(file["processing/behavior/force/data"].attrs)
    del file["processing/behavior/force/data"]
    file.create_dataset("processing/behavior/force/data", shape, "f8", **storage).attrs.update(attrs)


def test_a_compression_that_is_not_installed_is_named_not_called_damage(recording):
    with h5py.File(recording, "a") as file:
        attrs = dict(file["processing/behavior/force/data"].attrs)
        del file["processing/behavior/force/data"]
        packed = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        packed.set_chunk((120, 2))
        packed.set_filter(32_099, h5py.h5z.FLAG_OPTIONAL)
        space, group = h5py.h5s.create_simple((120, 2)), file["processing/behavior/force"]
        data = h5py.h5d.create(group.id, b"data", h5py.h5t.IEEE_F64LE, space, packed)
        data.write_direct_chunk((0, 0), b"packed")
        group["data"].attrs.update(attrs)
    for refuse in (check_source, quietly):
        with pytest.raises(InputError, match=r"force/data: it is packed with HDF5's filter 32099"):
            refuse(recording, TRIALS, {"force": FORCE})
    (force,) = [item for item in inspect(recording).items if item.path.endswith("force")]
    assert "filter 32099, which is not installed" in force.problem


def test_a_group_that_holds_itself_is_refused_and_ingest_does_not_hang(recording):
    with h5py.File(recording, "a") as file:
        file["processing/behavior/loop"] = file["processing"]
    for refuse in (check_source, quietly):
        with pytest.raises(InputError, match="behavior/loop: this is processing again, so that its groups"):
            refuse(recording, TRIALS, {"force": FORCE})
    # pynwb, which would leave h5py's lock taken, has not come near it: another thread can read
    reader = threading.Thread(target=lambda: h5py.File(recording).close(), daemon=True)
    reader.start()
    reader.join(timeout=20)
    assert not reader.is_alive()


def test_a_group_with_two_names_is_no_loop(recording):
    with h5py.File(recording, "a") as file:
        file["processing/again"] = file["processing/behavior"]
    check_source(recording, TRIALS, {"force": FORCE})


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


def test_a_name_that_is_not_in_utf8_hides_nothing_else(recording):
    with h5py.File(recording, "a") as file:
        h5py.h5g.create(file["processing/behavior"].id, b"\xff\xfe")
    assert "processing/behavior/force" in {item.path for item in inspect(recording).items}
    cells = ContinuousModality(kind="continuous", source="processing/behavior/cell*")
    assert check_source(recording, TRIALS, {"cells": cells}).n_channels == {"cells": 2}
