"""`colatent compare`: what counts as a difference, since which stage, and what the exit code says."""

from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from typer.testing import CliRunner, Result

from colatent.cli import app
from colatent.store.stores import identity, read_attrs, read_group, read_tensors, write_store

FITS = {m: f"rat1/fit/{m}/fold-0_seed-0" for m in ("gpfa", "ridge")}


def write_tree(folder: Path) -> Path:
    """Write the results of one session and two models, as the workflow lays them out."""
    rng = np.random.default_rng(0)
    value = rng.normal(size=(4, 5, 3))
    value[0, 0, 0] = np.nan
    emg = xr.Dataset(
        {"value": (("trial", "time", "channel"), value), "count": ("trial", np.arange(4))},
        coords={"time": np.arange(5) * 0.02, "channel": ["a", "b", "c"]},
        attrs={"kind": "continuous"},
    )
    write_store(folder / "rat1/session", {"modality/emg": emg}, origin("ingest", {"modalities": {"emg": {}}}))
    split = xr.Dataset({"role": (("fold", "trial"), np.array([[0, 0, 1, 1]], np.int8))})
    inputs = {"session": identity(folder / "rat1/session")}
    write_store(folder / "rat1/split", {"split": split}, origin("split", {"folds": 1}, inputs))
    for model, fit in FITS.items():
        state = {"loading": rng.normal(size=(3, 2)), "kernel": np.array(1)}
        attrs = origin("fit", {"model": {"latents": 2}}, inputs)
        write_store(folder / fit, {}, attrs, {"state": state})
        latents = xr.Dataset({"mean": ("trial", rng.normal(size=4).astype(np.float32))})
        attrs = origin("score", {"clip": {}}, {"fits": [identity(folder / fit)]})
        write_store(folder / f"rat1/score/{model}", {"latents": latents}, attrs)
        scores(model).to_csv(folder / f"rat1/score/{model}.csv", index=False)
    pd.concat(map(scores, FITS)).to_csv(folder / "scores.csv", index=False)
    return folder


def origin(stage: str, settings: dict, inputs: dict | None = None) -> dict:
    own = {"stage": stage, "settings": settings, "inputs": inputs or {}, "code": "c0de", "device": "cpu"}
    return own | {"versions": {"numpy": "2.4.5"}, "volatile": {"written": "today"}, "session": "rat1"}


def scores(model: str) -> pd.DataFrame:
    head = {"session": "rat1", "model": model, "fold": 0, "seed": 0, "heldout": "trials"}
    rows = [
        ("01", "r2", 0.5),
        ("02", "r2", 0.25),
        ("01", "log_density", -4000.0),
        ("02", "log_density", np.nan),
    ]
    return pd.DataFrame([head | dict(zip(("channel", "metric", "value"), r, strict=True)) for r in rows])


def rewrite(store: Path, group: str, change, **attrs) -> None:
    """Replace a store by one with a changed group and other attributes."""
    write_store(store, {group: change(read_group(store, group))}, read_attrs(store) | attrs)


def rewrite_fit(store: Path, change=lambda state: None, **attrs) -> None:
    """Replace a fit by one with changed parameters and other attributes."""
    state = read_tensors(store, "state")
    change(state)
    write_store(store, {}, read_attrs(store) | attrs, {"state": state})


def set_parameter(name: str, place: tuple, value: float):
    def change(state: dict[str, np.ndarray]) -> None:
        state[name][place] = value

    return change


def set_value(name: str, place: tuple, value: float):
    def change(dataset: xr.Dataset) -> xr.Dataset:
        dataset[name].values[place] = value
        return dataset

    return change


@pytest.fixture
def trees(tmp_path: Path) -> tuple[Path, Path]:
    return write_tree(tmp_path / "a"), write_tree(tmp_path / "b")


def compare(a: Path, b: Path, *options: str) -> Result:
    return CliRunner().invoke(app, ["compare", str(a), str(b), *options])


def test_trees_of_the_same_content_are_identical_wherever_they_lie(trees):
    result = compare(*trees)
    assert result.exit_code == 0, result.output
    assert result.output.startswith("identical: all 9 stores and files that are compared\n")
    assert "rat1: identical" in result.output
    assert "Differences" not in result.output


def test_what_varies_between_runs_is_no_difference(trees):
    rewrite(trees[1] / "rat1/split", "split", lambda d: d, volatile={"written": "tomorrow", "host": "other"})
    (trees[1] / ".checkpoints").mkdir()
    (trees[1] / ".checkpoints/state.csv").write_text("a\n1\n")
    (trees[1] / "rat1/.split.making-7/data.zarr").mkdir(parents=True)
    for tree in trees:
        (tree / "index.html").write_text(f"<html>{tree}")
    for name in ("logs/fits.json", "recording.simulated.log", "rat1/latent_choice/gpfa.png"):
        (trees[1] / name).parent.mkdir(exist_ok=True)
        (trees[1] / name).touch()
    result = compare(*trees)
    assert result.exit_code == 0
    assert all(f"  1 {ending}\n" in result.output for ending in (".html", ".json", ".log", ".png"))


def test_one_flipped_value_is_found_with_its_size(trees):
    old = float(read_tensors(trees[0] / FITS["gpfa"], "state")["loading"][1, 1])
    rewrite_fit(trees[1] / FITS["gpfa"], set_parameter("loading", (1, 1), old + 0.125))
    result = compare(*trees)
    assert result.exit_code == 1
    assert result.output.startswith("different: 1 of 9 stores and files differ")
    assert f"{FITS['gpfa']}  state.safetensors:loading 1 of 6 values, by at most 0.125 (" in result.output


def test_the_last_bit_and_the_sign_of_zero_count(trees):
    for tree, zero in zip(trees, (0.0, -0.0), strict=True):
        rewrite_fit(tree / FITS["gpfa"], set_parameter("loading", (0, 0), zero))
    result = compare(*trees)
    assert result.exit_code == 1
    assert "1 of 6 values, by at most 0 (0 of the largest value)" in result.output


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda s: s.update(loading=s["loading"].astype(np.float32)),
            "state.safetensors:loading dtype: float64 -> float32",
        ),
        (lambda s: s.update(loading=s["loading"][:2]), "state.safetensors:loading shape: (3, 2) -> (2, 2)"),
        (lambda s: s.update(kernel=np.array(2)), "state.safetensors:kernel 1 of 1 integers, by at most 1 "),
        (lambda s: s.update(more=s.pop("kernel")), "state.safetensors:kernel only in A"),
    ],
    ids=["dtype", "shape", "scalar", "another name"],
)
def test_parameters_are_compared_name_by_name(trees, change, said):
    rewrite_fit(trees[1] / FITS["gpfa"], change)
    result = compare(*trees, "--tolerance", "0.1")
    assert result.exit_code == 1
    assert said in result.output


def test_nan_is_nan_whatever_its_bits(trees):
    other = np.copysign(np.nan, -1.0)
    rewrite(trees[1] / "rat1/session", "modality/emg", set_value("value", (0, 0, 0), other))
    assert np.signbit(read_group(trees[1] / "rat1/session", "modality/emg")["value"][0, 0, 0])
    assert compare(*trees).exit_code == 0


def test_a_number_where_the_other_has_nan_is_within_no_tolerance(trees):
    rewrite(trees[1] / "rat1/session", "modality/emg", set_value("value", (0, 0, 0), 0.0))
    result = compare(*trees, "--tolerance", "0.9")
    assert result.exit_code == 1
    assert (
        "modality/emg:value 1 of 60 values, by at most 0 (0 of the largest value), NaN in only one at 1"
        in result.output
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: d.assign(value=d["value"].astype(np.float32)), "value dtype: float64 -> float32"),
        (lambda d: d.isel(time=slice(4)), "value shape: (4, 5, 3) -> (4, 4, 3)"),
        (lambda d: d.assign_coords(channel=["a", "B", "c"]), "channel 1 of 3 labels, first: b -> B"),
        (lambda d: d.drop_vars("count"), "count only in A"),
        (
            lambda d: d.rename(time="bin"),
            "value dims trial, time",
        ),
        (
            lambda d: d.assign_attrs(kind="spikes"),
            'kind "continuous" -> "spikes"',
        ),
    ],
    ids=["dtype", "shape", "label", "variable", "dims", "attribute"],
)
def test_what_is_no_number_is_within_no_tolerance(trees, change, said):
    rewrite(trees[1] / "rat1/session", "modality/emg", change)
    result = compare(*trees, "--tolerance", "0.5")
    assert result.exit_code == 1
    assert said in result.output


def test_tolerance_is_a_share_of_the_largest_value_in_the_array(trees):
    for tree, small in zip(trees, (0.0, 1e-4), strict=True):
        rewrite_fit(tree / FITS["gpfa"], set_parameter("loading", (0, 0), 100.0))
        rewrite_fit(tree / FITS["gpfa"], set_parameter("loading", (0, 1), small))
    assert compare(*trees).exit_code == 1
    inside = compare(*trees, "--tolerance", "2e-6")
    assert inside.exit_code == 0
    assert inside.output.startswith("equal within 2e-06: 1 of 9 stores and files differ, by at most 1e-06")
    assert compare(*trees, "--tolerance", "5e-7").exit_code == 1


def test_scores_are_compared_within_their_metric(trees):
    table = trees[1] / "scores.csv"
    table.write_text(
        table.read_text().replace("0.25", "0.26")
    )  # a small share of a log density, not of an R²
    result = compare(*trees, "--tolerance", "1e-3")
    assert result.exit_code == 1
    assert (
        "scores.csv  value of r2 2 of 4 values, by at most 0.01 (0.02 of the largest value)" in result.output
    )
    assert compare(*trees, "--tolerance", "0.03").exit_code == 0


def test_an_empty_cell_is_no_number(trees):
    table = trees[1] / "scores.csv"
    table.write_text(table.read_text().replace("-4000.0", ""))
    assert "NaN in only one at 2" in compare(*trees).output


def test_integers_are_within_no_tolerance(trees):
    for tree, n in zip(trees, (100_000, 100_001), strict=True):
        table = pd.read_csv(tree / "scores.csv", dtype=str, keep_default_na=False)
        table.assign(n=n).to_csv(tree / "scores.csv", index=False)
    result = compare(*trees, "--tolerance", "1e-4")
    assert result.exit_code == 1
    assert "scores.csv  n of r2 4 of 4 integers, by at most 1 (1e-05 of" in result.output


@pytest.mark.parametrize("copies", [1, 2], ids=["each row once", "rows that cannot be told apart"])
def test_names_in_tables_are_text(trees, copies):
    for tree, name in zip(trees, ("01", "1"), strict=True):
        head, *rows = (tree / "scores.csv").read_text().replace(",01,", f",{name},").splitlines()
        (tree / "scores.csv").write_text("\n".join([head, *rows * copies]))
    assert compare(*trees, "--tolerance", "0.5").exit_code == 1


def test_an_extra_column_and_a_missing_row_are_differences_and_the_rest_is_compared(trees):
    table = pd.read_csv(trees[1] / "scores.csv", dtype=str, keep_default_na=False)
    table.iloc[1:].assign(extra=1).to_csv(trees[1] / "scores.csv", index=False)
    result = compare(*trees)
    assert result.exit_code == 1
    assert "column extra only in B" in result.output
    assert "rows 1 only in A" in result.output
    assert "scores.csv  value" not in result.output


def test_a_store_or_table_of_one_tree_only_is_a_difference(trees):
    trees[1].joinpath(FITS["ridge"]).rename(trees[1].parent / "elsewhere")
    trees[0].joinpath("scores.csv").unlink()
    result = compare(*trees, "--tolerance", "0.5")
    assert result.exit_code == 1
    assert f"{FITS['ridge']}  only in A" in result.output
    assert "scores.csv  only in B" in result.output
    assert "rat1 / ridge: since fit (only in A)" in result.output


@pytest.mark.parametrize("name", ["report/index.html", "provenance.json", "rat1/latents/gpfa.nwb", "notes"])
def test_any_other_file_of_one_tree_only_is_a_difference(trees, name):
    (trees[0] / name).parent.mkdir(exist_ok=True)
    (trees[0] / name).touch()
    result = compare(*trees, "--tolerance", "0.5")
    assert result.exit_code == 1
    assert result.output.startswith("different: 1 of 10 stores and files differ\n")
    assert f"{name}  only in A" in result.output


def export(tree: Path, **changes) -> Path:
    """Write what stands for the latents of a model as an NWB file."""
    content = {"mean": 100.0, "unit": "s.d.", "identifier": "one", "schema": "{}"} | changes
    file = tree / "rat1/latents/gpfa.nwb"
    file.parent.mkdir(exist_ok=True)
    with h5py.File(file, "w") as nwb:
        nwb["processing/latents/mean"] = np.full((3, 2), content["mean"])
        nwb["processing/latents/mean"].attrs["unit"] = content["unit"]
        nwb["identifier"] = content["identifier"]
        nwb["specifications/core"] = content["schema"]
    return file


@pytest.mark.parametrize(
    ("change", "within", "said"),
    [
        ({"mean": 100.01}, True, "processing/latents/mean 6 of 6 values, by at most 0.01 (0.0001 of"),
        ({"mean": 101.0}, False, "processing/latents/mean 6 of 6 values, by at most 1 ("),
        ({"unit": "V"}, False, "processing/latents/mean@unit s.d. -> V"),
        ({"identifier": "two"}, False, "identifier b'one' -> b'two'"),
    ],
    ids=["a little", "much", "attribute", "text"],
)
def test_exports_are_compared_by_content(trees, change, within, said):
    export(trees[0])
    export(trees[1], schema="of another version of pynwb")
    assert compare(*trees).output.startswith("identical: all 10 stores and files")
    export(trees[1], **change)
    result = compare(*trees)
    assert result.exit_code == 1
    assert f"rat1/latents/gpfa.nwb  {said}" in result.output
    assert "rat1 / gpfa: since export" in result.output
    assert compare(*trees, "--tolerance", "1e-3").exit_code == (0 if within else 1)


@pytest.mark.parametrize("text", ["garbage", ""])
def test_an_export_that_is_no_nwb_cannot_be_compared(trees, text):
    export(trees[0])
    export(trees[1]).write_text(text)
    result = compare(*trees)
    assert result.exit_code == 2 and result.output.count("\n") == 1
    assert "rat1/latents/gpfa.nwb: cannot be read as NWB (" in result.output


def test_other_settings_are_named_by_key_and_change_no_verdict(trees):
    settings = {"model": {"latents": 3, "kernel": "matern"}}
    rewrite_fit(trees[1] / FITS["gpfa"], settings=settings)
    result = compare(*trees)
    assert result.exit_code == 0
    assert "made with other settings\n" in result.output
    assert "settings.model.latents 2 -> 3" in result.output
    assert "settings.model.kernel only in B" in result.output


def test_it_says_since_which_stage_each_model_differs_and_why(trees):
    rewrite_fit(trees[1] / FITS["gpfa"], set_parameter("loading", (0, 0), 9.0), code="0ther")
    for model in FITS:
        rewrite(trees[1] / f"rat1/score/{model}", "latents", set_value("mean", (0,), 9.0))
    result = compare(*trees)
    assert "rat1 / gpfa: since fit (code)" in result.output
    assert "rat1 / ridge: since score (same provenance" in result.output
    rewrite(trees[1] / "rat1/split", "split", set_value("role", (0, 0), 1), versions={"numpy": "2.5.0"})
    result = compare(*trees)
    assert "rat1: since split (versions)" in result.output
    assert "rat1 / gpfa" not in result.output
    assert 'rat1/split  versions.numpy "2.4.5" -> "2.5.0"' in result.output


def test_within_a_tolerance_the_first_stage_beyond_it_counts(trees):
    old = float(read_tensors(trees[0] / FITS["gpfa"], "state")["loading"][0, 0])
    rewrite_fit(trees[1] / FITS["gpfa"], set_parameter("loading", (0, 0), old * (1 + 1e-12)))
    rewrite(trees[1] / "rat1/score/gpfa", "latents", set_value("mean", (0,), 9.0))
    assert "rat1 / gpfa: since fit" in compare(*trees).output
    assert "rat1 / gpfa: since score" in compare(*trees, "--tolerance", "1e-9").output


def test_details_are_bounded(trees):
    many = xr.Dataset({f"x{i}": ("d", np.zeros(2)) for i in range(50)})
    rewrite(trees[0] / "rat1/split", "split", lambda d: many)
    rewrite(trees[1] / "rat1/split", "split", lambda d: many + 1)
    result = compare(*trees)
    assert result.output.count("split:x") == 20
    assert "and 30 more" in result.output


def test_text_of_stores_does_not_steer_the_terminal(trees):
    rewrite(trees[1] / "rat1/session", "modality/emg", lambda d: d.assign_attrs(kind="\x1b[2J[bold]x\u202e"))
    result = compare(*trees)
    assert "\x1b" not in result.output and "\u202e" not in result.output
    assert "[bold]x" in result.output


def damage(tree: Path) -> None:
    (tree / "rat1/split/data.zarr/split/zarr.json").write_text("{}")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (damage, "rat1/split: data.zarr/split/zarr.json is not as it was written"),
        (lambda tree: (tree / "rat1/split/complete.json").unlink(), "rat1/split: not a complete store"),
        (lambda tree: (tree / "scores.csv").write_text(""), "scores.csv: cannot be read as a table"),
        (
            lambda tree: (tree / "scores.csv").write_text("a,b\n1,2,3\n"),
            "scores.csv: cannot be read as a table",
        ),
    ],
    ids=["damaged", "incomplete", "empty table", "ragged table"],
)
def test_what_is_damaged_cannot_be_compared(trees, spoil, said):
    spoil(trees[1])
    result = compare(*trees)
    assert result.exit_code == 2
    assert said in result.output
    assert result.output.count("\n") == 1


@pytest.mark.parametrize(
    ("place", "said"),
    [("nowhere", "No such file"), ("empty", "no folder of"), ("a/rat1/split", "no folder of stores")],
)
def test_what_is_no_result_tree_cannot_be_compared(trees, tmp_path, place, said):
    (tmp_path / "empty").mkdir()
    result = compare(trees[0], tmp_path / place)
    assert result.exit_code == 2
    assert said in result.output
