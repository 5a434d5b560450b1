"""What `colatent inspect` prints can be pasted: `colatent check` accepts it."""

import shutil
from contextlib import chdir
from datetime import UTC, datetime
from pathlib import Path

import h5py
import numpy as np
import pytest
import yaml
from pynwb import NWBHDF5IO, NWBFile, TimeSeries
from pynwb.epoch import TimeIntervals
from typer.testing import CliRunner

from colatent.cli import app
from colatent.config.file import load_config
from colatent.ingest import ingest_session, inspect


def write(folder: Path, fill) -> Path:
    file = NWBFile("made for a test", "id", datetime(2020, 1, 1, tzinfo=UTC), session_id="s")
    fill(file)
    path = folder / "s.nwb"
    with NWBHDF5IO(path, "w") as io:
        io.write(file)
    return path


def add_units(file: NWBFile, seconds: float = 60.0, n: int = 4) -> None:
    rng = np.random.default_rng(0)
    for _ in range(n):
        file.add_unit(spike_times=np.sort(rng.uniform(0, seconds, int(10 * seconds))))


def add_series(file: NWBFile, name: str, shape: tuple[int, ...], rate: float, unit: str = "V") -> None:
    values = np.random.default_rng(1).normal(size=shape)
    file.add_acquisition(TimeSeries(name=name, data=values, unit=unit, rate=rate))


def add_trials(file: NWBFile, n: int, duration: float, every: float) -> None:
    for k in range(n):
        file.add_trial(start_time=1.0 + every * k, stop_time=1.0 + every * k + duration)


def pasted(nwb: Path, folder: Path) -> dict:
    """Do as the comments of the printed config say, check it, ingest by it, and return it."""
    run = CliRunner().invoke(app, ["inspect", str(nwb)])
    assert run.exit_code == 0, run.output
    text = run.stdout  # the tables are on stderr
    assert text.startswith("# Save as config.yaml") and "NWB 2" in run.stderr
    folder.mkdir()
    (folder / "config.yaml").write_text(text)
    rows = [line.removeprefix("#   ") for line in text.splitlines() if line.startswith("#   ")]
    assert [row.count("\t") for row in rows] == [1, 1]
    (folder / "sessions.tsv").write_text("\n".join(rows) + "\n")
    with chdir(folder):  # where snakemake would run
        check = CliRunner().invoke(app, ["check", "config.yaml"])
    assert check.exit_code == 0 and ": fine." in check.output, check.output
    config = load_config(folder / "config.yaml")
    session = ingest_session(nwb, config.alignment, config.modalities, {}, progress=lambda _: None)
    assert session.trials.n_trials >= config.heldout.folds
    return yaml.safe_load(text)


def test_trials_units_and_series(tmp_path, monkeypatch):
    def fill(file: NWBFile) -> None:
        add_units(file)
        add_series(file, "force", (600, 2), 10.0)
        reaches = TimeIntervals(name="a_reaches", description="before trials in the alphabet")
        for k in range(20):
            reaches.add_row(start_time=2.0 * k, stop_time=2.0 * k + 1)
        file.add_time_intervals(reaches)
        add_trials(file, 12, 2.0, 4.0)

    nwb = write(tmp_path, fill)
    monkeypatch.chdir(tmp_path)
    config = pasted(Path("s.nwb"), tmp_path / "elsewhere")  # the table names the file from anywhere
    assert config["alignment"] == {
        "intervals": "intervals/trials", "start": "start_time", "stop": "stop_time", "bin_width": 0.1,
    }  # fmt: skip
    assert config["modalities"] == {
        "spikes": {"kind": "spikes", "source": "units"},
        "force": {"kind": "continuous", "source": "acquisition/force"},
    }
    assert config["results"] == "results/s" and config["heldout"] == {"folds": 5}
    latents = {"spikes+force": 1, "spikes": 1, "force": 1}
    assert config["models"] == {
        "condition_mean": {"kind": "condition-mean"}, "ridge": {"kind": "ridge-lags"},
        "multimodal_gpfa": {"kind": "gpfa", "latents": latents},
        "mmgpvae": {"kind": "mm-gpvae", "latents": latents},
    }  # fmt: skip
    assert nwb.is_file()


def test_conditions_and_held_out_units_are_proposed(tmp_path):
    def fill(file: NWBFile) -> None:
        add_units(file, n=12)
        for name in ("outcome", "number", "target_id", "comment"):
            file.add_trial_column(name, name)
        for k in range(24):
            file.add_trial(
                start_time=2.0 * k, stop_time=2.0 * k + 1, outcome=["hit", "miss"][k % 2], number=k,
                target_id=float(k % 3) if k > 2 else np.nan, comment="",
            )  # fmt: skip

    nwb = write(tmp_path, fill)
    config = pasted(nwb, tmp_path / "c")
    assert config["alignment"]["condition"] == "target_id"
    assert config["heldout"] == {"folds": 5, "stratify": "condition", "channels": {"spikes": 0.25}}
    assert config["models"]["gpfa"] == {"kind": "gpfa", "latents": {"spikes": 3}}
    names = {"Probe 1 (left).nwb": "Probe_1_left", "7.nwb": "session_7", "logs.nwb": "session_logs"}
    for name, session in names.items():
        shutil.copy(nwb, tmp_path / name)
        assert f"\nresults: results/{session}\n" in inspect(tmp_path / name).config


def test_a_slow_signal_does_not_make_bins_longer_than_trials(tmp_path):
    def fill(file: NWBFile) -> None:
        add_units(file)
        add_series(file, "temperature", (30,), 0.5)
        add_trials(file, 20, 0.5, 2.0)

    assert pasted(write(tmp_path, fill), tmp_path / "c")["alignment"]["bin_width"] == 0.05


@pytest.mark.parametrize("which", ["none", "overlapping", "too few", "without duration", "too short"])
def test_windows_where_no_table_makes_trials(tmp_path, which):
    def fill(file: NWBFile) -> None:
        add_units(file)
        add_series(file, "force", (600, 2), 10.0)
        if which != "none":
            tables = {
                "overlapping": (12, 9.0),
                "too few": (3, 2.0),
                "without duration": (12, 0.0),
                "too short": (12, 1e-5),
            }
            add_trials(file, *tables[which], 4.0)

    nwb = write(tmp_path, fill)
    config = pasted(nwb, tmp_path / "c")
    assert set(config["alignment"]) == {"window", "gap", "bin_width"}
    assert ("# Not used as trials: " in inspect(nwb).config) == (which != "none")


def test_cells_of_their_own_become_one_glob_and_films_are_left_out(tmp_path):
    def fill(file: NWBFile) -> None:
        for k in range(12):
            add_series(file, f"cell_{k}", (600,), 10.0)
        add_series(file, "other_1", (600,), 10.0)
        add_series(file, "other_2", (600,), 10.0, unit="a.u.")  # another unit: not of one modality
        add_series(file, "film", (600, 40, 40), 10.0)

    nwb = write(tmp_path, fill)
    config = pasted(nwb, tmp_path / "c")
    sources = [m["source"] for m in config["modalities"].values()]
    assert sources == ["acquisition/cell_*", "acquisition/other_1", "acquisition/other_2"]
    assert "# Left out: acquisition/film, which has 1600 channels" in inspect(nwb).config
    with h5py.File(nwb, "a") as file:  # what is there under two paths is one thing
        file["acquisition/again"] = h5py.SoftLink("/acquisition/other_1")
        file.copy("acquisition/film", file["acquisition"], "cell_movie")  # the glob would take it, too
    sources = [m["source"] for m in pasted(nwb, tmp_path / "d")["modalities"].values()]
    assert sources[0] == "acquisition/again" and "acquisition/other_1" not in sources
    assert {f"acquisition/cell_{k}" for k in range(12)} < set(sources)


def test_names_that_mean_something_elsewhere(tmp_path):
    names = ["<script>", "[red]*", "..", "a\nb: {", "\x1b[31m", "x" * 300]

    def fill(file: NWBFile) -> None:
        add_series(file, "force", (600, 2), 10.0)

    nwb = write(tmp_path, fill)
    with h5py.File(nwb, "a") as file:
        for name in names:
            file.copy("acquisition/force", file["acquisition"], name)
    config = pasted(nwb, tmp_path / "c")
    sources = {m["source"] for m in config["modalities"].values()}
    assert sources == {f"acquisition/{name}" for name in [*names, "force"]}
    assert "\x1b" not in CliRunner().invoke(app, ["inspect", str(nwb)]).output


def test_a_file_with_nothing_in_it(tmp_path):
    nwb = write(tmp_path, lambda file: None)
    assert inspect(nwb).config == "# nothing in this file can be used as a modality\n"
