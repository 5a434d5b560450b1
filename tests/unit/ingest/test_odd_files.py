"""What files hold that is allowed, or common, and easily taken for something else."""

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pynwb import NWBHDF5IO, TimeSeries
from pynwb.epoch import TimeIntervals
from pynwb.misc import IntervalSeries
from pynwb.ophys import Fluorescence, ImageSegmentation, OpticalChannel
from support import FORCE, SPIKES, TRIALS, add_column, new_nwb, quietly, written

from colatent.config import (
    ContinuousAlignment,
    ContinuousModality,
    PoseModality,
    SpikesModality,
    TrialAlignment,
)
from colatent.errors import InputError
from colatent.ingest import ingest_session, inspect
from colatent.ingest.signals.resample import held_means

NS = 10**9
PLAIN = TrialAlignment(bin_width=0.1)


def checks_of(got) -> dict[str, str]:
    return {f["check"]: f["message"] for f in got.findings}


# times that are not to be analysed


def test_times_not_to_be_analysed_are_masked_in_all_modalities(recording):
    with NWBHDF5IO(recording, "a") as nwb:
        file = nwb.read()
        table = TimeIntervals(name="invalid_times", description="stimulation artefacts")
        for start, stop in ((1.15, 1.4), (4.5, 5.5), (1.3, 1.5), (20.0, 30.0)):
            table.add_interval(start_time=start, stop_time=stop)
        file.invalid_times = table
        nwb.write(file)
    both = {"spikes": SpikesModality(kind="spikes", where="quality == 'good'"), "force": FORCE}
    got = quietly(recording, PLAIN, both)
    free = quietly(recording, PLAIN, both, {"invalid-times": "warn"})
    assert "14 bins of 2 trials lie in intervals/invalid_times" in checks_of(got)["invalid-times"]
    for name in both:
        before, now = free.trials.observed[name], got.trials.observed[name]
        assert not now[0, 1:5].any() and not now[2].any()
        others = np.ones(now.shape, dtype=bool)
        others[0, 1:5], others[2] = False, False
        np.testing.assert_array_equal(now[others], before[others])
        assert not got.trials.values[name][~now].any()
    with pytest.raises(InputError, match=r"checks: \{invalid-times: warn\}"):
        quietly(recording, PLAIN, both, {"invalid-times": "refuse"})
    assert "invalid_times" not in inspect(recording).config


def test_times_not_to_be_analysed_are_never_proposed_as_trials(tmp_path):
    file = new_nwb()
    file.add_acquisition(TimeSeries(name="v", data=np.arange(600.0), unit="V", rate=20.0))
    for k in range(8):
        file.add_invalid_time_interval(start_time=3.0 * k, stop_time=3.0 * k + 1)
    assert "invalid_times" not in inspect(written(file, tmp_path / "a.nwb")).config


def test_what_was_found_is_told_at_ingest(recording):
    with h5py.File(recording, "a") as file:
        file["processing/behavior/force/data"][30:40] = np.nan
        file["units/spike_times"][:3] = np.nan
    lines = []
    ingest_session(recording, TRIALS, {"spikes": SPIKES, "force": FORCE}, {}, progress=lines.append)
    told = [line for line in lines if line.startswith(("missing-samples", "spike-times"))]
    assert told[0] == "spike-times (mask): spikes: unit_0: 3 spike times are not finite: dropped"
    assert told[1].startswith("missing-samples (mask): force: 2 channels lack some of the") and len(told) == 2
    assert not any("best-practice" in line for line in lines)


# nothing observed


def test_a_modality_without_one_observed_bin_is_refused(recording):
    with h5py.File(recording, "a") as file:
        file["processing/behavior/force/data"][:] = np.nan
    with pytest.raises(InputError, match="force: no bin of any trial is observed"):
        quietly(recording, TRIALS, {"spikes": SPIKES, "force": FORCE})


@pytest.mark.parametrize("least", [0.0, 0.5])
def test_a_missing_confidence_is_not_a_low_one(recording, least):
    with h5py.File(recording, "a") as file:
        pose = file["processing/behavior/Position"]
        pose.attrs["neurodata_type"] = "PoseEstimation"
        pose["cursor/confidence"] = np.where(np.arange(120) % 3, np.nan, 0.2)
    pose = PoseModality(kind="pose", source="processing/behavior/Position", min_confidence=least)
    windows = ContinuousAlignment(window=2, gap=0, bin_width=0.1)
    observed = quietly(recording, windows, {"pose": pose}, {"inspector": "warn"}).trials.observed["pose"]
    assert observed.mean() > 0.95 if least == 0 else 0.2 < observed.mean() < 0.8


# bins in which everything fires


def test_bins_in_which_nearly_all_units_fire_are_masked(tmp_path):
    rng = np.random.default_rng(0)
    bursts = np.array([3.05, 3.15, 40.25])
    file = new_nwb()
    for k in range(30):
        file.add_trial(start_time=2.0 * k, stop_time=2.0 * k + 1.5)
    for _ in range(40):
        own = rng.uniform(0, 60, rng.integers(60, 300))
        file.add_unit(spike_times=np.sort(np.concatenate([own, bursts + rng.uniform(0, 0.02, 3)])))
    path = written(file, tmp_path / "a.nwb")
    got = quietly(path, PLAIN, {"spikes": SPIKES})
    assert "in 3 bins at least 90% of the units fire" in checks_of(got)["synchronous-spikes"]
    hidden = ~got.trials.observed["spikes"]
    assert np.argwhere(hidden.any(axis=2)).tolist() == [[1, 10], [1, 11], [20, 2]]
    assert hidden.sum() == 3 * 40 and not got.trials.values["spikes"][hidden].any()
    warned = quietly(path, PLAIN, {"spikes": SPIKES}, {"synchronous-spikes": "warn"})
    assert warned.trials.observed["spikes"].all()
    # where most fire in most bins, all in one is nothing unusual
    wide = quietly(path, TrialAlignment(bin_width=1.5), {"spikes": SPIKES})
    assert "synchronous-spikes" not in checks_of(wide) and wide.trials.observed["spikes"].all()


# labels


def test_texts_that_mean_no_label_are_no_condition(tmp_path):
    file = new_nwb()
    file.add_trial_column("side", "which")
    for k, side in enumerate(["left", "", "right", "nan", "none", "left", "right ", "NaN"]):
        file.add_trial(start_time=2.0 * k, stop_time=2.0 * k + 1, side=side)
    file.add_unit(spike_times=np.linspace(0, 16, 300))
    path = written(file, tmp_path / "a.nwb")
    got = quietly(path, TrialAlignment(bin_width=0.1, condition="side"), {"spikes": SPIKES})
    assert got.trials.condition.tolist() == ["left", "right", "none", "left", "right"]
    assert "3 of 8 trials have no 'side'" in checks_of(got)["no-condition"]


def test_numbers_that_differ_by_rounding_are_one_condition(recording):
    with h5py.File(recording, "a") as file:
        file["intervals/trials/target"][:] = [0.1 + 0.2, 0.3, float(np.float32(0.3)), 45.0 + 1e-9]
    assert quietly(recording, TRIALS, {"force": FORCE}).trials.condition.tolist() == [
        "0.3",
        "0.3",
        "0.3",
        "45",
    ]


# signals of steps


@given(
    steps=st.lists(st.integers(1, 40), min_size=2, max_size=12),
    values=st.lists(st.sampled_from([0.0, 1.0, -2.5, np.nan]), min_size=12, max_size=12),
    first=st.integers(-20, 80),
    width=st.integers(1, 30),
    marks=st.booleans(),
)
@settings(deadline=None, max_examples=200)
def test_a_held_signal_is_averaged_over_time(steps, values, first, width, marks):
    times = np.cumsum([0, *steps[:-1]])
    value = np.array(values[: len(times)])
    if marks:
        value[-1] = 0.0  # the last interval has ended
    starts = first + width * np.arange(4)
    moment = np.arange(first, first + 4 * width)
    at = np.searchsorted(times, moment, side="right") - 1
    known = at >= 0 if marks else (at >= 0) & (moment < times[-1] + 7)
    outside = 0.0 if marks else np.nan
    held = np.where(known, value[at], outside).reshape(4, width)
    enough = 2 * np.isfinite(held).sum(axis=1) >= width
    expected = [x[np.isfinite(x)].mean() if e else np.nan for x, e in zip(held, enough, strict=True)]
    got = held_means(times, value[:, None], starts, width, 7, outside)[:, 0]
    np.testing.assert_allclose(got, expected, atol=1e-9)


def test_states_and_intervals_are_held_not_interpolated(tmp_path):
    file = new_nwb()
    times = np.arange(40) * 0.5
    file.add_acquisition(
        TimeSeries(name="state", data=times % 2, timestamps=times, unit="n.a.", continuity="step")
    )
    begin = 2.0 * np.arange(1, 9)
    file.add_acquisition(
        IntervalSeries(
            name="licks",
            data=np.array([1, -1] * 8, dtype=np.int8),
            timestamps=np.sort(np.concatenate([begin, begin + 0.25])),
        )
    )
    file.add_acquisition(
        TimeSeries(name="rewards", data=np.ones(8), timestamps=begin, unit="ml", continuity="instantaneous")
    )
    for k in range(10):
        file.add_trial(start_time=2.0 * k, stop_time=2.0 * k + 1)
    path = written(file, tmp_path / "a.nwb")
    modalities = {
        name: ContinuousModality(kind="continuous", source=f"acquisition/{name}")
        for name in ("state", "licks")
    }
    got = quietly(path, PLAIN, modalities)
    np.testing.assert_array_equal(got.trials.values["state"][1, :, 0], [0.0] * 5 + [0.5] * 5)
    in_bout = got.trials.values["licks"][..., 0]
    np.testing.assert_allclose(in_bout[1:9], np.tile([1, 1, 0.5] + [0] * 7, (8, 1)))
    assert not in_bout[[0, 9]].any() and got.trials.observed["licks"].all()
    with pytest.raises(InputError, match="its values are instantaneous"):
        rewards = ContinuousModality(kind="continuous", source="acquisition/rewards")
        quietly(path, PLAIN, {"rewards": rewards})


@pytest.mark.parametrize("bad", [np.nan, 0.0], ids=["nan", "again"])
def test_samples_without_a_time_of_their_own_are_dropped_on_request(recording, bad):
    cursor = {"cursor": ContinuousModality(kind="continuous", source="processing/behavior/Position")}
    windows = ContinuousAlignment(window=2, gap=0, bin_width=0.1)
    whole = quietly(recording, windows, cursor).trials
    with h5py.File(recording, "a") as file:
        node = file["processing/behavior/Position/cursor"]
        data, times = np.insert(node["data"][:], 40, 1e6, axis=0), node["timestamps"][:]
        times = np.insert(times, 40, times[39] if bad == 0 else bad)
        for name, values in (("data", data), ("timestamps", times)):
            attrs = dict(node[name].attrs)
            del node[name]
            node[name] = values
            node[name].attrs.update(attrs)
    with pytest.raises(InputError, match=r"checks: \{timestamps: mask\}` to drop"):
        quietly(recording, windows, cursor)
    got = quietly(recording, windows, cursor, {"timestamps": "mask"})
    assert checks_of(got)["timestamps"].startswith("1 samples have a time that is not finite or not later")
    np.testing.assert_array_equal(got.trials.values["cursor"], whole.values["cursor"])
    np.testing.assert_array_equal(got.trials.observed["cursor"], whole.observed["cursor"])


# what is selected


def test_units_are_selected_by_the_area_of_their_electrodes(tmp_path):
    file = new_nwb()
    device = file.create_device("probe")
    groups = [file.create_electrode_group(a, description=a, location=a, device=device) for a in ("M1", "PMd")]
    for i in range(4):
        file.add_electrode(group=groups[i // 2], location=groups[i // 2].name)
    for on in ([0], [1, 0], [2], [1, 2], []):
        first = groups[(on or [0])[0] // 2]
        file.add_unit(spike_times=np.linspace(0, 20, 100), electrodes=on, electrode_group=first)
    for k in range(10):
        file.add_trial(start_time=2.0 * k, stop_time=2.0 * k + 1)
    path = written(file, tmp_path / "a.nwb")

    def kept(where: str) -> tuple[str, ...]:
        spikes = SpikesModality(kind="spikes", where=where)
        return quietly(path, PLAIN, {"spikes": spikes}).trials.channels["spikes"]

    assert kept("location == 'M1'") == ("unit_0", "unit_1")  # not the one that lies in both
    assert kept("electrode_group == 'PMd'") == ("unit_2",)
    assert "location" in " ".join(inspect(path).items[0].columns)
    with pytest.raises(InputError, match=r"its columns are: .*electrode_group.*location"):
        kept("area == 'M1'")


def test_cells_are_selected_by_a_column_of_their_rois(tmp_path):
    file = new_nwb()
    optical = OpticalChannel(name="o", description="d", emission_lambda=500.0)
    plane = file.create_imaging_plane(
        name="p", optical_channel=optical, description="d", device=file.create_device("m"),
        excitation_lambda=600.0, indicator="G", location="V1",
    )  # fmt: skip
    module, segmentation = file.create_processing_module("ophys", "d"), ImageSegmentation()
    module.add(segmentation)
    cells = segmentation.create_plane_segmentation(name="s", description="d", imaging_plane=plane)
    cells.add_column("iscell", "by hand")
    for i in range(6):
        cells.add_roi(id=10 + i, pixel_mask=[(i, i, 1.0)], iscell=int(i % 2))
    fluorescence = Fluorescence()
    module.add(fluorescence)
    region = cells.create_roi_table_region(region=[5, 4, 3, 2, 1], description="r")
    data = np.random.default_rng(0).standard_normal((300, 5))
    fluorescence.create_roi_response_series(name="f", data=data, rois=region, unit="a.u.", rate=10.0)
    path = written(file, tmp_path / "a.nwb")
    windows = ContinuousAlignment(window=2, gap=0, bin_width=0.1)

    def kept(**options) -> tuple[str, ...]:
        f = ContinuousModality(kind="continuous", source="processing/ophys/Fluorescence/f", **options)
        got = quietly(path, windows, {"f": f})
        return got.trials.channels["f"], got.trials.values["f"][0, 0]

    names, values = kept(where="iscell == 1")
    assert names == ("roi_15", "roi_13", "roi_11")
    np.testing.assert_allclose(values, data[:2, [0, 2, 4]].mean(axis=0))
    assert kept(where="iscell == 1", columns=[1, 2, 3])[0] == ("roi_13",)
    assert "iscell" in next(i for i in inspect(path).items if i.path.endswith("/f")).columns
    with pytest.raises(InputError, match="keeps none of 5 rows"):
        kept(where="iscell == 2")
    force = ContinuousModality(kind="continuous", source="processing/ophys/Fluorescence/f", where="snr > 1")
    with pytest.raises(InputError, match="its columns are: iscell"):
        quietly(path, windows, {"f": force})


@pytest.mark.parametrize("dtype", ["u8", ">i4", ">f8", "<u2"])
def test_queries_compute_alike_whatever_the_type_of_a_column(recording, dtype):
    with h5py.File(recording, "a") as file:
        add_column(file["intervals/trials"], "number", np.arange(4).astype(dtype))
    got = quietly(recording, TrialAlignment(bin_width=0.1, where="number - 2 > 0"), {"force": FORCE})
    assert got.trials.n_trials == 1


def test_columns_of_an_enumeration_hold_its_texts(recording):
    with NWBHDF5IO(recording, "a") as nwb:
        file = nwb.read()
        sides, codes = np.array(["left", "right"]), np.array([0, 1, 1, 0], dtype=np.uint8)
        file.trials.add_column(name="side", description="d", data=codes, enum=sides)
        nwb.write(file)
    got = quietly(
        recording, TrialAlignment(bin_width=0.1, where="side == 'right'", condition="side"), {"force": FORCE}
    )
    assert got.trials.condition.tolist() == ["right", "right"]
    assert "side_elements" not in got.trial_table and "side_elements" not in str(inspect(recording).tables)


# odd but not used


def test_an_odd_column_matters_only_where_it_is_used(recording):
    with h5py.File(recording, "a") as file:
        add_column(file["intervals/trials"], "odd", np.arange(3.0))
    assert quietly(recording, TRIALS, {"force": FORCE}).trials.n_trials == 4
    assert inspect(recording).tables["intervals/trials"][0] == 4
    for alignment in (
        TrialAlignment(bin_width=0.1, where="odd > 1"),
        TrialAlignment(bin_width=0.1, start="odd"),
        TrialAlignment(bin_width=0.1, condition="odd"),
    ):
        with pytest.raises(InputError, match="intervals/trials/odd: 3 values for 4 rows"):
            quietly(recording, alignment, {"force": FORCE})


def test_what_nwbinspector_finds_in_parts_that_are_not_used_stops_nothing(tmp_path):
    file = new_nwb()
    data = np.random.default_rng(0).standard_normal((3, 400))
    file.add_acquisition(TimeSeries(name="wide", data=data, unit="V", rate=20.0))
    file.add_acquisition(TimeSeries(name="good", data=data.T, unit="V", rate=20.0))
    path = written(file, tmp_path / "a.nwb")
    windows = ContinuousAlignment(window=2, gap=0, bin_width=0.1)

    def read(name: str, **options) -> np.ndarray:
        v = ContinuousModality(kind="continuous", source=f"acquisition/{name}", **options)
        return quietly(path, windows, {"v": v}).trials.values["v"]

    with pytest.raises(
        InputError, match="its data are 3 x 400, as if channels came before time; set `transpose"
    ):
        read("wide")
    np.testing.assert_array_equal(read("wide", transpose=True), read("good"))
    np.testing.assert_array_equal(read("wide", transpose=True, columns=[2]), read("good", columns=[2]))
    long = ContinuousModality(kind="continuous", source="acquisition/wide", transpose=False)
    with pytest.raises(InputError, match=r"longer than the 0\.150 s"):
        quietly(path, windows, {"v": long})
