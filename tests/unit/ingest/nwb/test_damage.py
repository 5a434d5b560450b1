"""Damaged and odd files: each is refused in one sentence, or read in spite of it."""

import re
import threading

import h5py
import numpy as np
import pytest
from support import FORCE, SPIKES, TRIALS, quietly

from colatent.config import ContinuousModality
from colatent.errors import InputError
from colatent.ingest import inspect
from colatent.ingest.check import check_source
from colatent.ingest.modalities.pose import keypoints
from colatent.ingest.nwb.file import open_nwb, readable


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


def test_links_in_circles_do_not_stop_inspect_which_lists_columns_of_units(recording):
    with h5py.File(recording, "a") as file:
        file["processing/behavior/circle"] = h5py.SoftLink("/processing/behavior/circle")
    (units,) = [item for item in inspect(recording).items if item.kind == "spikes"]
    assert (units.path, units.channels, units.columns) == ("units", 3, ("quality",))


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
        with pytest.raises(InputError, match=r"force/data: it is compressed with HDF5 filter 32099"):
            refuse(recording, TRIALS, {"force": FORCE})
    (force,) = [item for item in inspect(recording).items if item.path.endswith("force")]
    assert "filter 32099, which is not installed" in force.problem


def test_a_group_that_holds_itself_is_refused_and_ingest_does_not_hang(recording):
    with h5py.File(recording, "a") as file:
        file["processing/behavior/loop"] = file["processing"]
    for refuse in (check_source, quietly):
        with pytest.raises(InputError, match="behavior/loop: this link leads back to processing, so that"):
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


def test_a_name_that_is_not_in_utf8_hides_nothing_else(recording):
    with h5py.File(recording, "a") as file:
        h5py.h5g.create(file["processing/behavior"].id, b"\xff\xfe")
    assert "processing/behavior/force" in {item.path for item in inspect(recording).items}
    cells = ContinuousModality(kind="continuous", source="processing/behavior/cell*")
    assert check_source(recording, TRIALS, {"cells": cells}).n_channels == {"cells": 2}
