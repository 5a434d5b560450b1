"""Files written with pynwb, read here without it."""

import io
import re
from datetime import UTC, datetime

import h5py
import numpy as np
import pytest
from pynwb import NWBHDF5IO, NWBFile
from pynwb.ecephys import ElectricalSeries
from rich.console import Console
from support import FORCE, SPIKES, TRIALS, add_column, quietly

from colatent.config import (
    ContinuousAlignment,
    ContinuousModality,
    PoseModality,
    SpikesModality,
    TrialAlignment,
)
from colatent.errors import InputError
from colatent.ingest import inspect
from colatent.ingest.check import check_source
from colatent.ingest.groups import session_groups
from colatent.store.stores import check_store, group_names, read_group, write_store


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


def test_a_query_computes_with_columns_of_few_bits_as_with_others(recording):
    with h5py.File(recording, "a") as file:
        table = file["intervals/trials"]
        add_column(table, "choice", np.array([0, 1, 2, 255], "u1"))
    for where, starts in (("choice - 1 > 0", [4.5, 7.0]), ("choice + 1 > 100", [7.0])):
        got = quietly(recording, TrialAlignment(bin_width=0.1, where=where), {"force": FORCE})
        assert got.trial_table["start"].tolist() == starts


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


def test_names_given_to_cells_are_in_the_order_of_their_numbers(recording):
    with h5py.File(recording, "a") as file:
        for number in (2, 10):
            file.copy("processing/behavior/cell1", file["processing/behavior"], f"cell{number}")
            file[f"processing/behavior/cell{number}/data"][:] = number
    cells = ContinuousModality(kind="continuous", source="processing/behavior/cell*")
    got = quietly(recording, TRIALS, {"cells": cells}, {"inspector": "warn"})
    assert got.trials.channels["cells"] == ("cell0", "cell1", "cell2", "cell10")
    named = cells.model_copy(update={"channels": ["none", "one", "two", "ten"]})
    got = quietly(recording, TRIALS, {"cells": named}, {"inspector": "warn"}).trials
    assert got.values["cells"][0, 0, [got.channels["cells"].index(n) for n in ("two", "ten")]].tolist() == [
        2,
        10,
    ]


def test_electrodes_have_the_names_of_their_ids_and_one_channel_its_factor(tmp_path):
    file = NWBFile("made for a test", "id", datetime(2020, 1, 1, tzinfo=UTC), session_id="s1")
    device = file.create_device("amplifier")
    group = file.create_electrode_group("muscles", "d", "arm", device)
    for number in (101, 102, 104):
        file.add_electrode(location="arm", group=group, id=number)
    raw = np.random.default_rng(0).normal(size=(200, 2))
    for name, data, rows in (("emg", raw, [2, 0]), ("single", raw[:, 0], [1])):
        region = file.create_electrode_table_region(rows, "of this series")
        factors = np.arange(2.0, 2.0 + len(rows))
        file.add_acquisition(
            ElectricalSeries(name=name, data=data, electrodes=region, rate=10.0, channel_conversion=factors)
        )
    with NWBHDF5IO(tmp_path / "s.nwb", "w") as nwb:
        nwb.write(file)
    modalities = {
        n: ContinuousModality(kind="continuous", source=f"acquisition/{n}") for n in ("emg", "single")
    }
    alignment = ContinuousAlignment(window=2.0, gap=0.0, bin_width=0.2)
    got = quietly(tmp_path / "s.nwb", alignment, modalities, {"inspector": "warn"}).trials
    assert got.channels == {"emg": ("electrode_104", "electrode_101"), "single": ("single",)}
    expected = (raw * [2.0, 3.0]).reshape(100, 2, 2).mean(axis=1)
    np.testing.assert_allclose(got.values["emg"].reshape(-1, 2), expected)
    np.testing.assert_allclose(got.values["single"].ravel(), expected[:, 0])


def test_fixed_windows_round_an_event_and_pad(recording):
    alignment = TrialAlignment(bin_width=0.1, start="stop_time", window=(-0.3, 0.2), where="target == 1")
    got = quietly(recording, alignment, {"force": FORCE})
    np.testing.assert_allclose(got.time, [-0.25, -0.15, -0.05, 0.05, 0.15])
    np.testing.assert_allclose(got.trial_table["start"], [3.2, 7.7])
    padded = quietly(recording, TrialAlignment(bin_width=0.1, pad=(0.1, 0.0)), {"force": FORCE})
    assert padded.time[0] == pytest.approx(-0.05)
    both = quietly(recording, alignment.model_copy(update={"pad": (0.1, 0.0)}), {"force": FORCE})
    np.testing.assert_allclose(both.time, [-0.35, -0.25, -0.15, -0.05, 0.05, 0.15])
    np.testing.assert_allclose(both.trial_table["start"], [3.1, 7.6])
    np.testing.assert_allclose(both.trials.values["force"][:, 1:], got.trials.values["force"])


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


def test_a_path_that_is_there_is_never_a_glob(recording):
    with h5py.File(recording, "a") as file:
        file["processing/behavior/[a]*"] = file["processing/behavior/force"]
    modality = ContinuousModality(kind="continuous", source="processing/behavior/[a]*")
    assert check_source(recording, TRIALS, {"m": modality}).n_channels == {"m": 2}


def test_times_that_stand_for_no_event_are_said_and_left_out(recording):
    with h5py.File(recording, "a") as file:
        trials = file["intervals/trials"]
        add_column(trials, "go", trials["start_time"][:] + 0.4)
        trials["go"][1], trials["go"][3] = -1.0, 999999.0
    alignment = TrialAlignment(bin_width=0.1, start="go", window=(-0.2, 0.2))
    got = quietly(recording, alignment, {"force": FORCE})
    (found,) = [f for f in got.findings if f["check"] == "event-times"]
    assert (
        found["count"] == 2
        and "'go' outside the trial itself, or before zero, first -1 s" in found["message"]
    )
    np.testing.assert_allclose(got.trial_table["start"], [1.2, 4.7])
    warn = {"event-times": "warn", "time-units": "warn"}
    assert quietly(recording, alignment, {"force": FORCE}, warn).trials.n_trials == 4
    with pytest.raises(InputError, match="event-times: warn"):
        quietly(recording, alignment, {"force": FORCE}, {"event-times": "refuse"})
    with h5py.File(recording, "a") as file:
        file["intervals/trials/go"][3] = -1.0
    with pytest.raises(InputError, match=r"2 of them are aligned to -1 s: .* leave them out with `where`"):
        quietly(recording, alignment, {"force": FORCE}, {"event-times": "warn"})


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
    with pytest.raises(InputError, match="the spike times are not in order; to continue anyway"):
        quietly(recording, TRIALS, {"spikes": SPIKES}, {"unsorted-spikes": "refuse"})


def test_names_of_columns_never_become_paths(recording, tmp_path):
    names = ["..", "zarr.json", "a\\b", "<script>", "x" * 300, "trial", "a b", "a_b"]
    with h5py.File(recording, "a") as file:
        trials = file["intervals/trials"]
        for k, name in enumerate(names):
            add_column(trials, name, np.arange(4.0) + k)
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


def change_units(recording, times: list, intervals: bool) -> None:
    """Replace the spike times of the first units; without intervals, those columns go."""
    with h5py.File(recording, "a") as file:
        units = file["units"]
        attrs = {name: dict(units[name].attrs) for name in ("spike_times", "spike_times_index")}
        del units["spike_times"], units["spike_times_index"]
        units["spike_times"], units["spike_times_index"] = (
            np.concatenate(times),
            np.cumsum([*map(len, times)]),
        )
        for name, own in attrs.items():
            units[name].attrs.update({k: v for k, v in own.items() if k != "target"})
        units["spike_times_index"].attrs["target"] = units["spike_times"].ref
        if not intervals:
            del units["obs_intervals"], units["obs_intervals_index"]
            units.attrs["colnames"] = ["quality", "spike_times"]


def test_a_rate_counts_spikes_within_the_intervals_of_observation(recording):
    # observed for 11 s (0 to 5, 6 to 12): 110, 55 and 55 spikes within, 0, 1000 and 55 outside
    inside = np.concatenate([np.linspace(0.01, 4.99, 50), np.linspace(6.01, 11.99, 60)])
    outside = [np.linspace(5.01, 5.99, 1000), np.linspace(12.5, 99.0, 55)]
    times = [inside, np.sort(np.append(inside[::2], outside[0])), np.append(inside[::2], outside[1])]
    change_units(recording, times, intervals=True)
    for least, units in ((10.0, (0,)), (5.0, (0, 1, 2)), (5.1, (0,))):
        got = quietly(recording, TRIALS, {"spikes": SPIKES.model_copy(update={"min_rate": least})})
        assert got.trials.channels["spikes"] == tuple(f"unit_{u}" for u in units), least


def test_bins_before_zero_are_not_observed_where_spikes_before_zero_are_dropped(recording):
    rng = np.random.default_rng(2)
    change_units(recording, [np.sort(rng.uniform(low, 12, 200)) for low in (-3, 0, -3)], intervals=False)
    alignment = ContinuousAlignment(window=1, gap=0, bin_width=0.1)
    got = quietly(recording, alignment, {"spikes": SPIKES}, {"inspector": "warn"})
    starts = got.trial_table["start"].to_numpy()[:, None] + got.time - 0.05
    assert (starts < -1e-9).any() and got.trials.values["spikes"][starts < -1e-9].sum() == 0
    for unit, is_dropped in enumerate((True, False, True)):
        expected = (starts > -1e-9) if is_dropped else np.ones_like(starts, dtype=bool)
        np.testing.assert_array_equal(got.trials.observed["spikes"][..., unit], expected)
    kept = quietly(recording, alignment, {"spikes": SPIKES}, {"inspector": "warn", "spike-times": "warn"})
    assert kept.trials.observed["spikes"].all() and kept.trials.values["spikes"][starts < -1e-9].sum() > 50


def test_a_unit_that_is_never_observed_in_a_trial_is_said(recording):
    with h5py.File(recording, "a") as file:
        file["units/obs_intervals"][2:4] = [[20.0, 30.0], [40.0, 50.0]]
    got = quietly(recording, TRIALS, {"spikes": SPIKES}, {"inspector": "warn"})
    assert not got.trials.observed["spikes"][..., 1].any()
    assert [f["channel"] for f in got.findings if f["check"] == "missing-channel"] == ["unit_1"]


def test_a_spike_time_that_stands_for_none_does_not_make_the_recording_longer(recording):
    rng = np.random.default_rng(1)
    real = [np.sort(rng.uniform(0, 12, n)) for n in (240, 60, 600)]
    change_units(
        recording, [np.append(real[0], [999999.0] * 2), real[1], np.append(real[2], 888888.0)], False
    )
    alignment = ContinuousAlignment(window=1, gap=0, bin_width=0.1)
    got = quietly(recording, alignment, {"spikes": SPIKES.model_copy(update={"min_rate": 10.0})})
    assert got.trials.n_trials == 11 and got.trials.channels["spikes"] == ("unit_0", "unit_2")
    (found,) = [f for f in got.findings if f["check"] == "spike-times"]
    assert (
        "spikes at 888888 s and elsewhere are far from all others, which lie between 0 and 12 s"
        in (found["message"])
    )
    with pytest.raises(InputError, match="are far from all others"):
        quietly(recording, alignment, {"spikes": SPIKES}, {"spike-times": "refuse"})


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["pooled", "x"], ("pooled_", "x")),
        (["pooled_", "pooled"], ("pooled_", "pooled__")),
        (["pooled_", "pooled__"], ("pooled_", "pooled__")),
    ],
)
def test_no_channel_has_the_name_of_the_row_that_pools_them(recording, names, expected):
    modality = FORCE.model_copy(update={"channels": names})
    assert quietly(recording, TRIALS, {"force": modality}).trials.channels["force"] == expected
