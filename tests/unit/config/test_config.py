"""The config: what is right is read, what is wrong is said in a sentence."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from colatent.config import MMGPVAESettings
from colatent.config.file import check_keys, load_config, parse_config, read_yaml
from colatent.config.reference import json_schema, with_reference
from colatent.config.session_table import load_sessions
from colatent.errors import InputError

ROOT = Path(__file__).parents[3]
CONFIGS = [ROOT / "config/config.yaml", *sorted((ROOT / "config/examples").rglob("*.yaml"))]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_every_config_of_the_project_is_valid(path):
    config = load_config(path)
    assert config.modalities
    assert parse_config(config.model_dump(mode="json"), "again") == config


def test_the_schema_and_the_table_of_keys_are_up_to_date():
    hint = "run `make reference`"
    assert (ROOT / "workflow/schemas/config.schema.json").read_text() == json_schema(), hint
    manual = (ROOT / "config/README.md").read_text()
    assert manual == with_reference(manual), hint


DEMO = yaml.safe_load((ROOT / "config/config.yaml").read_text())


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"modalitys": {}}, "unknown key 'modalitys'; did you mean 'modalities'?"),
        ({"alignment": {"window": 1e9, "gap": 1.0, "bin_width": 0.1}}, "alignment.window = 1000000000.0"),
        ({"device": "tpu"}, "device = 'tpu': input should be 'cpu', 'cuda' or 'auto'"),
        ({"alignment": {"window": 10.0, "bin_width": 0.1}}, "the key 'alignment.gap' is missing"),
        ({"alignment": {"bin_widht": 0.1, "intervals": "t", "bin_width": 0.1}}, "did you mean 'bin_width'"),
        ({"modalities": {"my spikes": {"kind": "spikes"}}}, "must be letters, digits and underscores"),
        ({"modalities": {"spikes": {"kind": "spiks"}}}, "modalities.spikes"),
        ({"models": {"m": {"kind": "mm-gpvae", "latents": {"spikes+legs": 2}}}},
         "models.m.latents.spikes+legs names the unknown modality 'legs'; known: spikes, emg, pose"),
        ({"models": {"m": {"kind": "gpfa", "latents": {"spikes": 0}}}}, "models.m.latents.spikes = 0"),
        ({"models": {"m": {"kind": "smoothed-fa", "latents": {"spikes": 2, "emg": 2}}}},
         "must name one modality"),
        ({"models": {"m": {"kind": "gpfa", "latents": {"spikes+legs": 2}}}},
         "models.m.latents.spikes+legs names the unknown modality 'legs'; known: spikes, emg, pose"),
        ({"models": {"m": {"kind": "gpfa", "latents": {"spikes+emg": 2, "emg+spikes": 1}}}},
         "models.m.latents: spikes+emg, emg+spikes name one group twice"),
        ({"models": {"m": {"kind": "gpfa", "latents": {"spikes+emg": 2}, "automatic_relevance": 0.5}}},
         "automatic_relevance must be 0 unless"),
        ({"models": {"m": {"kind": "gpfa", "latents": {"spikes+emg": "auto", "spikes": 2}}}},
         "latents: auto must stand alone"),
        ({"models": {"m": {"kind": "gpfa", "latents": {"spikes": "auto"}, "automatic_relevance": 0.5}}},
         "automatic_relevance must be 0 with latents: auto"),
        ({"models": {"m": {"kind": "gpfa", "latents": {"spikes": 2}, "delays": True}}},
         "delays need a group of several modalities"),
        ({"models": {"m": {"kind": "gpfa", "latents": {"spikes": 2}, "mean": "condition"}},
          "alignment": DEMO["alignment"] | {"condition": None}, "heldout": {}},
         "models.m.mean is `condition`, but alignment.condition names no column"),
        ({"models": {"m": {"kind": "gpfa", "latents": {"emg": 2}, "likelihood": {"emg": "poisson"}}}},
         "models.m.likelihood.emg is poisson, which describes counts, but the modality is continuous"),
        ({"models": {"m": {"kind": "ridge-lags", "lags": 10}}}, "models.m.lags: 10 must be odd"),
        ({"heldout": {"channels": {"legs": 0.2}}}, "heldout.channels names the unknown modality 'legs'"),
        ({"heldout": {"folds": 1}}, "heldout.folds = 1"),
        ({"learning_curve": {"trials": [0.5, 0.25]}}, "[0.5, 0.25] must increase, as in [0.25, 0.5, 1.0]"),
        ({"learning_curve": {"trials": [0.5, 1.5]}}, "learning_curve.trials.1 = 1.5: "),
        ({"learning_curve": {"channels": {"legs": [0.5]}}}, "channels names the unknown modality 'legs'"),
        ({"learning_curve": {"folds": 4}}, "learning_curve.folds is 4, but heldout.folds only 3"),
        ({"learning_curve": {"trails": [0.5]}}, "unknown key 'learning_curve.trails'; did you mean 'trials'"),
        ({"learning_curve": {"channels": {"spikes": [0.5]}}, "heldout": {}, "truth": None,
          "models": {"m": {"kind": "condition-mean"}}, "modalities": {"spikes": {"kind": "spikes"}}},
         "give heldout.channels.spikes"),
        ({"heldout": {"seeds": []}}, "heldout.seeds"),
        ({"checks": {"artifact": "mask"}}, "checks: there is no check 'artifact'; there are: external"),
        ({"checks": {"trial-overlap": "mask"}}, "checks: trial-overlap: there is nothing to mask; choose"),
        ({"modalities": {"spikes": {"kind": "spikes", "sorce": "u"}}},
         "unknown key 'modalities.spikes.sorce'; did you mean 'source'?"),
        ({"modalities": {"m": {"kind": "continuous", "source": "x", "envelope": {"lowpas": 1}}}},
         "unknown key 'modalities.m.envelope.lowpas'; did you mean 'lowpass'?"),
        ({"models": {"gpfa": {"kind": "gpfa", "latents": {"spikes": 2}, "kernle": "x"}}},
         "unknown key 'models.gpfa.kernle'; did you mean 'kernel'?"),
    ],
)  # fmt: skip
def test_a_wrong_config_is_named_in_one_line(change, sentence):
    with pytest.raises(InputError) as error:
        parse_config(DEMO | change, "my.yaml")
    lines = str(error.value).splitlines()
    assert any(sentence in line for line in lines), lines
    assert all(line.startswith("my.yaml: ") for line in lines)


def test_files_that_are_no_config(tmp_path):
    with pytest.raises(InputError, match="there is no such config file"):
        load_config(tmp_path / "none.yaml")
    for content in ("a: [", "just text", ""):
        (tmp_path / "c.yaml").write_text(content)
        with pytest.raises(InputError, match=r"c\.yaml"):
            load_config(tmp_path / "c.yaml")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "models:\n  a: {kind: ridge-lags}\n  b: {}\n  a: {kind: gpfa}\n",
            "line 4: the key 'a' is in line 2",
        ),
        ("heldout: {folds: 2}\nmodels: {}\nheldout: {folds: 5}\n", "line 3: the key 'heldout' is in line 1"),
        (
            "models:\n  on: {kind: ridge-lags}\n",
            "line 2: the name on is a YAML boolean, not text; quote it: 'on'",
        ),
        ("modalities: {No: {}}\n", "line 1: the name No is a YAML boolean"),
        ("models: {3: {}}\n", "line 1: the name 3 is a YAML number"),
        ("models: {2020-01-01: {}}\n", "line 1: the name 2020-01-01 is a YAML date"),
        ("models: {~: {}}\n", "line 1: the name ~ is a YAML null"),
    ],
)
def test_keys_that_yaml_would_lose_or_change_are_named(tmp_path, text, sentence):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(InputError, match=re.escape(f"c.yaml, {sentence}")):
        load_config(tmp_path / "c.yaml")


def test_what_snakemake_reads_and_other_workflows_write_is_left_to_them(tmp_path):
    (tmp_path / "c.json").write_text('{\n\t"sessions": "s.tsv", "models": {}\n}')
    check_keys(tmp_path / "c.json")
    (tmp_path / "other.yaml").write_text("samples: {1: a, on: b}\n")
    check_keys(tmp_path / "other.yaml")
    (tmp_path / "own.yaml").write_text("models: {1: {}}\n")
    with pytest.raises(InputError, match="the name 1 is a YAML number"):
        check_keys(tmp_path / "own.yaml")


def test_anchors_and_merged_keys_are_read_as_in_yaml(tmp_path):
    content = yaml.safe_dump(DEMO).replace("heldout:", "heldout: &all", 1)
    (tmp_path / "c.yaml").write_text(content)
    assert load_config(tmp_path / "c.yaml") == parse_config(DEMO, "c.yaml")
    (tmp_path / "d.yaml").write_text("base: &b {a: 1, b: 2}\nown: {<<: *b, a: 3}\n")
    assert read_yaml(tmp_path / "d.yaml")["own"] == {"a": 3, "b": 2}


def test_a_window_of_two_times_is_one_of_trials():
    short = {"window": [-0.5, 0.5], "bin_width": 0.1}
    config = {k: v for k, v in DEMO.items() if k != "heldout"}
    one, other = (
        parse_config(config | {"alignment": a}, "c.yaml").alignment
        for a in (short, short | {"intervals": "trials", "start": "start_time"})
    )
    assert one == other and one.has_trials


def table(folder: Path, text: str) -> Path:
    path = folder / "sessions.tsv"
    path.write_text(text)
    return path


def test_paths_of_sessions_are_relative_to_the_table(tmp_path, monkeypatch):
    monkeypatch.setenv("SOME_DATA", str(tmp_path / "data"))
    rows = "session\tnwb\tanimal\na\tx.nwb\tA1\nb\t../y.nwb\t\nc\t${SOME_DATA}/z.nwb\t\n"
    sessions = load_sessions(table(tmp_path, rows + "d\t$$x_$${SOME_DATA}/$SOME_DATA/a.nwb\t\n"))
    assert sessions["d"].nwb == tmp_path / f"$x_${{SOME_DATA}}{tmp_path}/data/a.nwb"
    assert sessions["a"].nwb == tmp_path / "x.nwb"
    assert sessions["a"].metadata == {"animal": "A1"}
    assert sessions["b"].nwb == tmp_path.parent / "y.nwb"
    assert sessions["c"].nwb == tmp_path / "data/z.nwb"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SOME_DATA", "here")
    assert load_sessions(tmp_path / "sessions.tsv")["c"].nwb == Path("here/z.nwb")


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ("session\tpath\na\tb\n", "the column 'nwb' is missing"),
        ("session\tnwb\n", "has no sessions"),
        ("session\tnwb\na\tx\na\ty\n", "line 3: the session 'a' appears twice"),
        ("session\tnwb\tnwb\na\tx\ty\n", "the column 'nwb' appears twice"),
        ("session\tnwb\n../a\tx\n", "must be letters, digits"),
        ("session\tnwb\na\t$NOT_SET_ANYWHERE/x\n", "environment variable NOT_SET_ANYWHERE"),
    ],
)
def test_a_wrong_table_of_sessions_is_named(tmp_path, rows, sentence):
    with pytest.raises(InputError, match=sentence):
        load_sessions(table(tmp_path, rows))


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"simulate": {"kind": "moth", "missing_frames": 0.1}}, "option of the kind digits, not moth"),
        ({"decoder": {"emg": "convolutional"}}, "give image_shape.emg"),
        ({"weight": {"pose": 0.1}}, "weight names 'pose', which has no latents"),
    ],
)
def test_wrong_options_of_images_and_simulations(section, message):
    raw = load_config(ROOT / "config/config.yaml").model_dump(mode="json")
    if "simulate" in section:
        raw |= section
    else:
        raw["models"] = {"m": {"kind": "mm-gpvae", "latents": {"spikes+emg": 1}} | section}
    with pytest.raises(InputError, match=re.escape(message)):
        parse_config(raw, "x.yaml")


def test_every_modality_is_predicted_from_the_others_unless_the_config_says_otherwise() -> None:
    def weights(**options: Any) -> dict[str, float]:
        return MMGPVAESettings(kind="mm-gpvae", **options).cross_weight

    assert weights(latents={"a+b": 1, "c": 1, "a": 1}, weight={"b": 0.1}) == {"a": 0.5, "b": 0.05}
    assert weights(latents={"a+b": 1}, cross_weight={"a": 2.0}) == {"a": 2.0}
    assert weights(latents={"a+b": 1}, cross_weight={}) == weights(latents={"a": 1, "b": 1}) == {}


def test_a_default_that_follows_from_a_wrong_key_is_no_error_of_its_own() -> None:
    models = {"m": {"kind": "mm-gpvae", "latents": {"spikes": 0}}}
    with pytest.raises(InputError) as error:
        parse_config(DEMO | {"models": models}, "config.yaml")
    assert str(error.value).count("\n") == 0 and "models.m.latents.spikes = 0" in str(error.value)


def test_a_config_is_read_without_the_libraries_of_the_science() -> None:
    heavy = ("torch", "dask", "scipy", "pandas", "xarray", "h5py")
    code = (
        "import sys; from colatent.config.file import load_config; load_config(sys.argv[1])\n"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(ROOT / "config/config.yaml")], capture_output=True, text=True
    )
    assert run.stdout == "[]\n", run.stdout + run.stderr


def test_models_of_images_have_rules_of_their_own():
    settings = {"kind": "mm-gpvae", "latents": {"spikes+images": 1}}
    other = MMGPVAESettings.model_validate(settings)
    of_images = MMGPVAESettings.model_validate(
        settings | {"decoder": {"images": "convolutional"}, "image_shape": {"images": [4, 4]}}
    )
    assert (other.channel_dropout, other.decoder_decay, other.samples) == (0.25, 0.3, 32)
    assert (of_images.channel_dropout, of_images.decoder_decay, of_images.samples) == (0.0, 0.0, 4)
