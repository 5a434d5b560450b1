"""Files as other tools write them: links, events, directions, videos, null values, odd dimensions."""

import h5py
import numpy as np
import pytest
from hdmf.common import DynamicTable, DynamicTableRegion
from pynwb import TimeSeries
from pynwb.base import Images
from pynwb.behavior import BehavioralEvents, CompassDirection, SpatialSeries
from pynwb.image import GrayscaleImage, IndexSeries
from pynwb.misc import IntervalSeries
from support import FORCE, SPIKES, TRIALS, add_column, new_nwb, quietly, written

from colatent.config import ContinuousAlignment, ContinuousModality, PoseModality, TrialAlignment
from colatent.errors import InputError
from colatent.ingest import inspect

PLAIN = TrialAlignment(bin_width=0.1)
WINDOWS = ContinuousAlignment(window=2, gap=0, bin_width=0.1)


def series(source: str, **options) -> ContinuousModality:
    return ContinuousModality(kind="continuous", source=source, **options)


def with_trials(n: int = 10):
    file = new_nwb()
    for k in range(n):
        file.add_trial(start_time=2.0 * k, stop_time=2.0 * k + 1)
    return file


def problem_of(path, source: str) -> str:
    return next(i.problem for i in inspect(path).items if i.path == source)


def test_series_that_link_the_same_data_are_one(tmp_path):
    file = with_trials()
    first = TimeSeries(name="first", data=np.arange(400.0), unit="V", rate=20.0)
    file.add_acquisition(first)
    file.add_acquisition(TimeSeries(name="second", data=first, unit="V", rate=20.0))
    path = written(file, tmp_path / "a.nwb")
    both = {name: series(f"acquisition/{name}") for name in ("first", "second")}
    with pytest.raises(InputError, match="a channel is in two modalities, first and second"):
        quietly(path, PLAIN, both)
    assert inspect(path).config.count("source: acquisition/") == 1


@pytest.mark.parametrize(("unit", "turn"), [("degrees", 360.0), ("radians", 2 * np.pi)])
def test_directions_become_cosine_and_sine(tmp_path, unit, turn):
    file = with_trials()
    for name, rate in (("fast", 100.0), ("slow", 10.0)):
        angle = turn * 0.3 * np.arange(int(20 * rate)) / rate % turn
        own = SpatialSeries(name=name, data=angle, reference_frame="north", unit=unit, rate=rate)
        file.add_acquisition(CompassDirection(name=f"of_{name}", spatial_series=own))
    path = written(file, tmp_path / "a.nwb")
    got = quietly(path, PLAIN, {n: series(f"acquisition/of_{n}") for n in ("fast", "slow")})
    phase = 2 * np.pi * 0.3 * (got.trial_table["start"].to_numpy()[:, None] + got.time)
    for name in ("fast", "slow"):
        assert got.trials.channels[name] == (f"{name}_cos", f"{name}_sin")
        expected = np.stack([np.cos(phase), np.sin(phase)], axis=-1)
        np.testing.assert_allclose(got.trials.values[name], expected, atol=0.02)
    assert got.attrs["fast"]["series"][0]["angles"] == f"cosine and sine of angles in {unit}"


def test_events_are_no_signals_whatever_holds_them(tmp_path):
    file = with_trials()
    moments = np.linspace(0.5, 19, 12)
    reward = TimeSeries(name="reward", data=np.ones(12), timestamps=moments, unit="ml")
    file.add_acquisition(BehavioralEvents(name="BehavioralEvents", time_series=reward))
    pictures = Images(name="pictures", images=[GrayscaleImage(name=n, data=np.zeros((2, 2))) for n in "ab"])
    file.add_stimulus_template(pictures)
    shown = IndexSeries(
        name="shown", data=np.arange(12, dtype=np.uint32) % 2, indexed_images=pictures,
        timestamps=moments, unit="N/A",
    )  # fmt: skip
    file.add_stimulus(shown)
    path = written(file, tmp_path / "a.nwb")
    for source, said in (
        ("acquisition/BehavioralEvents/reward", "its values are instantaneous"),
        ("stimulus/presentation/shown", "it is a IndexSeries, numbers of pictures"),
    ):
        with pytest.raises(InputError, match=said):
            quietly(path, PLAIN, {"v": series(source)})
        assert said in problem_of(path, source)
    with h5py.File(path, "a") as h5:
        for kind in ("LabeledEvents", "TTLs", "SpikeEventSeries"):
            h5["stimulus/presentation/shown"].attrs["neurodata_type"] = kind
            h5.flush()
            assert f"it is a {kind}, " in problem_of_open(h5, "stimulus/presentation/shown")
    assert "source: stimulus" not in inspect(path).config


def problem_of_open(file: h5py.File, source: str) -> str:
    from colatent.ingest.signals.series import require_series

    with pytest.raises(InputError) as error:
        require_series(file[source])
    return str(error.value)


def test_intervals_of_several_kinds_end_each_on_its_own(tmp_path):
    file = with_trials()
    marks, times = np.array([1, 2, -1, -2] * 9, dtype=np.int8), []
    for k in range(9):
        times += [2.0 * k + t for t in (0.1, 0.3, 0.5, 0.9)]
    file.add_acquisition(IntervalSeries(name="cues", data=marks, timestamps=np.array(times)))
    path = written(file, tmp_path / "a.nwb")
    got = quietly(path, PLAIN, {"cues": series("acquisition/cues")})
    np.testing.assert_allclose(got.trials.values["cues"][2, :, 0], [0, 1, 1, 2, 2, 2, 2, 2, 2, 0], atol=1e-9)
    with pytest.raises(InputError, match="intervals do not say when the recording began and ended"):
        quietly(path, WINDOWS, {"cues": series("acquisition/cues")})
    with h5py.File(path, "a") as h5:
        node = h5["acquisition/cues"]
        attrs = dict(node["data"].attrs)
        del node["data"]
        node["data"] = marks.astype(np.uint8)
        node["data"].attrs.update(attrs)
    with pytest.raises(InputError, match="it holds uint8, but ends of intervals are negative"):
        quietly(path, PLAIN, {"cues": series("acquisition/cues")}, {"inspector": "warn"})


def test_a_video_beside_keypoints_is_none_of_them(recording):
    with h5py.File(recording, "a") as file:
        pose = file["processing/behavior/Position"]
        pose.attrs["neurodata_type"] = "PoseEstimation"
        pose["source_video"] = h5py.SoftLink("/acquisition/film")
    pose = PoseModality(kind="pose", source="processing/behavior/Position")
    got = quietly(recording, WINDOWS, {"pose": pose}, {"inspector": "warn"})
    assert got.trials.channels["pose"] == ("cursor_x", "cursor_y")


def test_what_rois_or_times_say_of_the_order_of_dimensions_counts(recording):
    with h5py.File(recording, "a") as file:
        force = file["processing/behavior/force"]
        data, attrs = force["data"][:], dict(force["data"].attrs)
        wide = np.tile(data.T, (100, 1))[:150]  # more channels than samples
        del force["data"]
        force["data"] = wide
        force["data"].attrs.update(attrs)
        force["timestamps"] = 0.05 + np.arange(120) / 10
        del force["starting_time"]
    with pytest.raises(InputError, match="its data are 150 x 120, as if channels came before time"):
        quietly(recording, WINDOWS, {"force": FORCE}, {"inspector": "warn"})
    turned = FORCE.model_copy(update={"transpose": True})
    got = quietly(recording, WINDOWS, {"force": turned}, {"inspector": "warn"})
    assert got.trials.values["force"].shape[2] == 150


def test_null_values_are_as_absent(recording):
    with h5py.File(recording, "a") as file:
        force = file["processing/behavior/force"]
        force["channel_conversion"] = h5py.Empty("f8")
        force["data"].attrs["conversion"] = h5py.Empty("f8")
        force["data"].attrs["unit"] = h5py.Empty("S1")
        index = file["units/obs_intervals"].attrs
        attrs = dict(index)
        del file["units/obs_intervals"]
        file["units/obs_intervals"] = h5py.Empty("f8")
        file["units/obs_intervals"].attrs.update(attrs)
    got = quietly(recording, TRIALS, {"spikes": SPIKES, "force": FORCE}, {"inspector": "warn"})
    assert got.units_of["force"] == "" and not got.attrs["spikes"]["obs_intervals"]
    assert {i.path for i in inspect(recording).items} >= {"units", "processing/behavior/force"}


def test_a_table_that_cannot_be_read_does_not_hide_the_rest(recording):
    with h5py.File(recording, "a") as file:
        odd = file["intervals"].create_group("odd")
        for name in ("id", "start_time", "stop_time"):
            odd[name] = 1.0  # MatNWB writes one row as scalars
    found = inspect(recording)
    assert "intervals/odd" not in found.tables and "intervals/trials" in found.tables
    assert any(i.path == "units" for i in found.items)


def test_columns_of_one_or_two_numbers_per_row_are_columns(recording):
    with h5py.File(recording, "a") as file:
        trials = file["intervals/trials"]
        add_column(trials, "number", np.arange(4.0)[:, None])
        add_column(trials, "iscell", np.stack([np.arange(4) % 2, np.linspace(0, 1, 4)], axis=1))
        for name in ("start_time", "stop_time"):
            values, attrs = trials[name][:][:, None], dict(trials[name].attrs)
            del trials[name]
            trials[name] = values
            trials[name].attrs.update(attrs)
    for where, kept in (("number > 2", 1), ("iscell_0 == 1", 2), ("iscell_1 > 0.9", 1)):
        alignment = TrialAlignment(bin_width=0.1, where=where)
        assert quietly(recording, alignment, {"force": FORCE}, {"inspector": "warn"}).trials.n_trials == kept


def test_conditions_that_lie_in_another_table_or_in_an_enumeration_are_texts(tmp_path):
    file = new_nwb()
    kinds = DynamicTable(name="kinds", description="of trials")
    kinds.add_column("kind", "text")
    for kind in ("go", "stop"):
        kinds.add_row(kind=kind)
    file.add_acquisition(kinds)
    for k in range(6):
        file.add_trial(start_time=2.0 * k, stop_time=2.0 * k + 1)
    region = DynamicTableRegion(name="which", description="d", data=[0, 1, 1, 0, 1, 0], table=kinds)
    file.trials.add_column(
        name="which", description="d", col_cls=DynamicTableRegion, data=region.data, table=kinds
    )
    file.add_unit(spike_times=np.linspace(0, 12, 200))
    path = written(file, tmp_path / "a.nwb")
    got = quietly(path, TrialAlignment(bin_width=0.1, condition="kind"), {"spikes": SPIKES})
    assert got.trials.condition.tolist() == ["go", "stop", "stop", "go", "stop", "go"]
    assert (
        quietly(path, TrialAlignment(bin_width=0.1, where="kind == 'go'"), {"spikes": SPIKES}).trials.n_trials
        == 3
    )
    with h5py.File(path, "a") as h5:
        side = np.array([0, 1, 1, 1, 0, 0], dtype=h5py.enum_dtype({"left": 0, "right": 1}, "u1"))
        add_column(h5["intervals/trials"], "side", side)
    right = TrialAlignment(bin_width=0.1, where="side == 'right'", condition="side")
    assert quietly(path, right, {"spikes": SPIKES}).trials.condition.tolist() == ["right"] * 3


def test_texts_are_compared_without_the_blanks_that_pad_them(recording):
    with h5py.File(recording, "a") as file:
        sides = np.array(["left ", "right", "left", "right "], dtype=h5py.string_dtype())
        add_column(file["intervals/trials"], "side", sides)
    got = quietly(
        recording, TrialAlignment(bin_width=0.1, where="side == 'left'", condition="side"), {"force": FORCE}
    )
    assert got.trials.condition.tolist() == ["left", "left"]


def test_sweeps_one_after_the_other_are_not_joined_and_slow_signals_make_no_endless_bins(tmp_path):
    file = new_nwb()
    for k in range(4):
        file.add_acquisition(
            TimeSeries(name=f"sweep_{k}", data=np.arange(300.0), unit="V", rate=100.0, starting_time=4.0 * k)
        )
    slow = TimeSeries(name="weight", data=np.arange(20.0), unit="g", rate=0.05)
    file.add_acquisition(slow)
    config = inspect(written(file, tmp_path / "a.nwb")).config
    assert "sweep_*" not in config and "source: acquisition/sweep_3" in config
    assert "bin_width: 1.0\n" in config
