"""The recipes of src/README.md, carried out on a copy of the package, add what they say."""

import json
import os
import re
import shutil
import subprocess
import sys
import traceback
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import fake_results
import numpy as np
import pytest
from pynwb import NWBHDF5IO, NWBFile, TimeSeries
from scipy import stats
from support import fit_to, make_config, quiet, quietly, settings_of, simulate, write_session, write_split

import colatent
from colatent.analyses import analyse
from colatent.config import SpikesModality
from colatent.config.file import parse_config
from colatent.config.models.mmgpvae import DECODERS
from colatent.config.reference import json_schema
from colatent.data.splits import make_split
from colatent.models.fitting import FitJob, fit_fold
from colatent.models.methods import About
from colatent.models.registry import load_fit, model_class
from colatent.report import write_session_page
from colatent.scoring.session import ScoreJob, score_session
from colatent.scoring.tables import read_scores
from colatent.store.fingerprint import stage_modules
from colatent.store.session import Fold, read_fold, read_trials
from colatent.store.stores import identity, read_group, read_tensors

ROOT = Path(__file__).parents[2]
BLOCKS = re.compile(r"^```(python|diff)\n(?:# |--- )(\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FIT = "fold-0_seed-0"
MODELS: dict[str, dict[str, Any]] = {
    "vae": {
        "kind": "mm-gpvae",
        "latents": {"spikes+emg": 1, "spikes": 1},
        "likelihood": {"emg": "laplace"},
        "decoder": {"emg": "quadratic"},
        "epochs": 2,
    },
    "mean": {"kind": "channel-mean"},
}
STAGES = {  # new file -> stages that are redone for it
    "data.likelihoods.laplace": {"fit", "score", "report"},
    "models.mmgpvae.decoders.quadratic": {"fit", "score"},
    "models.baselines.channel_mean": {"fit", "score"},
    "ingest.modalities.events": {"ingest"},
    "report.figures.trial_lengths": {"report"},
}


def carry_out(readme: str, package: Path) -> None:
    """Write the new files of the recipes, and make their entries, whose context must be there just once."""
    for kind, path, text in BLOCKS.findall(readme):
        file = package / path
        if kind == "python":
            assert not file.exists(), f"{path} is not new"
            file.write_text(text)
            continue
        code = "\n" + file.read_text()
        for hunk in text.split("@@\n"):
            lines = hunk.splitlines(keepends=True)
            old, new = ("\n" + "".join(line[1:] for line in lines if line[0] in (" ", s)) for s in "-+")
            assert code.count(old) == 1, f"{path}: not there just once:{old}"
            code = code.replace(old, new)
        file.write_text(code[1:])


def add_counts(package: Path) -> None:
    """Do as the recipe of a likelihood says of counts: another name for what is there."""
    folder = package / "data/likelihoods"
    (folder / "own.py").write_text(
        "from colatent.data.likelihoods.poisson import Poisson\n"
        "class Own(Poisson):\n    name, title = 'own', 'own'\n"
    )
    registry = folder / "__init__.py"
    code = registry.read_text().replace("        Laplace(),\n", "        Laplace(),\n        Own(),\n")
    registry.write_text(f"from colatent.data.likelihoods.own import Own\n{code}")


class Project:
    """A small session, and what the added models make of it; in a process that imports the copy."""

    def __init__(self, folder: Path) -> None:
        self.folder, (trials, _) = folder, simulate(18)
        self.trials = replace(trials, condition=np.repeat("all", trials.n_trials))
        time = (np.arange(self.trials.n_bins) + 0.5) * self.trials.bin_width
        write_session(folder / "session", self.trials, time)
        write_split(folder / "split", make_split(self.trials, 3, False, {}, [0], 1))
        made_from = {part: identity(folder / part) for part in ("session", "split")} | {"fold": 0}
        for name, section in MODELS.items():
            settings, store = settings_of(**section), folder / name / FIT
            job = FitJob(settings, 0, "cpu", 1, made_from, folder / "none", store, quiet)
            fit_fold(model_class(settings), self.fold, job)
            files, head = (folder / f"{name}.csv", folder / f"{name}_score"), {"session": "s", "model": name}
            parts = folder / "session", folder / "split"
            score_session(ScoreJob(*parts, [store], *files, head), analyse, quiet)

    @property
    def fold(self) -> Fold:
        return read_fold(read_trials(self.folder / "session")[0], self.folder / "split", 0, 0)

    def model(self, name: str) -> Any:
        """Return the fitted model, as it was stored."""
        stored = {"state": read_tensors(self.folder / name / FIT, "state")}
        if name == "vae":
            stored["decoding"] = read_tensors(self.folder / name / FIT, "decoding")
        return load_fit(settings_of(**MODELS[name]), self.trials.layout, stored).model

    def scores(self, name: str, metric: str, predicted: str) -> dict[str, float]:
        """Return channel -> score of the modality, given itself or nothing."""
        table = read_scores(self.folder / f"{name}.csv").query(
            "metric == @metric and predicted == @predicted and heldout == 'trials'"
        )
        return dict(zip(table["channel"], table["value"], strict=False))


def check_likelihood(project: Project) -> None:
    assert '"laplace"' in json_schema()
    answer = project.model("vae").predict(project.fold.test, ("spikes", "emg"), "emg")
    assert answer.family == "laplace" and not np.allclose(answer.scale, 0.7)  # learned
    emg, exact = project.fold.test.values["emg"], stats.laplace(answer.component_mean, answer.scale)
    np.testing.assert_allclose(answer.log_density(emg), np.log(exact.pdf(emg).mean(axis=0)))
    np.testing.assert_allclose(answer.cdf(emg), exact.cdf(emg).mean(axis=0))
    np.testing.assert_allclose(answer.cdf(answer.quantile(0.9)), 0.9, atol=1e-6)
    assert np.isfinite(list(project.scores("vae", "log_density", "emg").values())).all()


def check_likelihood_of_counts(project: Project) -> None:
    assert "gaussian-sqrt (square-rooted counts), poisson or negative-binomial or own" in json_schema()
    for section in (
        {"kind": "gpfa", "latents": {"spikes": 2}},
        {"kind": "gpfa", "latents": {"spikes+emg": 1, "spikes": 1}},
        MODELS["vae"],
    ):
        found = []
        for likelihood in ("poisson", "own"):
            settings = settings_of(**section | {"likelihood": {"spikes": likelihood}})
            model = fit_to(settings, project.fold.training).model
            found.append(model.predict(project.fold.test, ("spikes",), "spikes").mean)
        np.testing.assert_array_equal(*found)
        text = resolve_name(settings.record.methods)(settings, About(project.trials.kinds))
        assert " own" in text


def check_decoder(project: Project) -> None:
    assert '"quadratic"' in json_schema()
    decoder = project.model("vae").network.modality("emg").decoder.nonlinear
    assert type(decoder).__name__ == "QuadraticDecoder"
    weight, bias = (x.detach().numpy() for x in decoder.readout.parameters())
    z = np.linspace(-2, 2, 5)[:, None]
    eta = decoder(decoder.readout.weight.new_tensor(z)).detach().numpy()
    np.testing.assert_allclose(eta, np.hstack([z, z**2]) @ weight.T + bias, rtol=1e-4, atol=1e-5)
    assert len(read_group(project.folder / "vae" / FIT, "history")["step"]) == 2


def check_baseline(project: Project) -> None:
    assert '"channel-mean"' in json_schema()
    settings, training = settings_of(**MODELS["mean"]), project.fold.training
    text = resolve_name(settings.record.methods)(settings, About(training.kinds))
    assert text == "Baseline: channel mean: each channel’s mean over the training trials."
    expected = np.nanmean(training.with_nan("emg"), axis=(0, 1))
    answer = project.model("mean").predict(project.fold.test, (), "emg")
    np.testing.assert_allclose(answer.mean, np.broadcast_to(expected, answer.mean.shape))
    assert -0.5 < project.scores("mean", "r2", "emg")["pooled"] <= 0
    assert abs(project.scores("mean", "bits_per_spike", "spikes")["pooled"]) < 0.1


def check_modality(project: Project) -> None:
    licks, file = np.array([1.05, 1.25, 1.27, 2.15, 2.95]), project.folder / "licks.nwb"
    nwb = NWBFile("made for a test", "id", datetime(2020, 1, 1, tzinfo=UTC))
    nwb.add_acquisition(TimeSeries(name="licks", data=np.ones(5), unit="1", timestamps=licks))
    for start in (1.0, 2.0):
        nwb.add_trial(start_time=start, stop_time=start + 1)
    with NWBHDF5IO(file, "w") as io:
        io.write(nwb)
    content = {
        "sessions": "s.tsv",
        "results": "r",
        "alignment": {"bin_width": 0.1},
        "modalities": {"licks": {"kind": "events", "source": "acquisition/licks"}},
        "models": {"g": {"kind": "gpfa", "latents": {"licks": 1}, "likelihood": {"licks": "poisson"}}},
    }
    config = parse_config(content, "c.yaml")
    trials = quietly(file, config.alignment, config.modalities, {"inspector": "warn"}).trials
    expected = [np.histogram(licks, start + np.arange(11) / 10)[0] for start in (1.0, 2.0)]
    np.testing.assert_array_equal(trials.values["licks"][..., 0], expected)
    assert trials.kinds == {"licks": "spikes"} and trials.observed["licks"].all()  # counts, to the models


def check_score(project: Project) -> None:
    assert project.scores("vae", "bias", "spikes").keys() == {*map(str, range(24)), "pooled"}
    training, test = (t.with_nan("emg") for t in (project.fold.training, project.fold.test))
    error = (np.nanmean(training, axis=(0, 1)) - test) / np.nanstd(training, axis=(0, 1))
    expected = {str(c): value for c, value in enumerate(np.nanmean(error, axis=(0, 1)))}
    assert project.scores("mean", "bias", "emg") == pytest.approx(expected | {"pooled": np.nanmean(error)})


def check_figure(project: Project) -> None:
    config = make_config(project.folder / "report", ["spikes"])
    fake_results.write_session(config, "sim", True, np.random.default_rng(0))
    fake_results.write_split(config, "sim")
    fake_results.write_fits(config, "sim", history=False)
    fake_results.write_scores(config, "sim", latents=False)
    page = project.folder / "page/index.html"
    write_session_page(config, "sim", page, page.parent / "figures")
    html = page.read_text()
    assert re.findall(r'<figure id="figure-([^"]+)"', html)[:2] == ["split", "trial_lengths"]
    assert "to the last in which anything was observed." in html
    lengths = (page.parent / "figures/trial_lengths.csv").read_text().split()
    assert lengths == ["length_s", "0.4", *["0.6"] * 17]


def check_analysis(project: Project) -> None:
    store = project.folder / "vae_score"
    found, mean = read_group(store, f"speed/{FIT}"), read_group(store, f"latents/{FIT}")["mean"].values
    change = np.diff(mean.astype(float), axis=1) / project.trials.bin_width
    change[1, 17:] = np.nan  # the second trial ends after 18 bins
    expected = np.sqrt(np.nanmean(change**2, axis=(0, 1)))
    np.testing.assert_allclose(found["speed"], expected, rtol=1e-4)
    assert list(found["group"].values) == ["spikes+emg", "spikes"]


def check_stages(project: Project) -> None:
    every = ("ingest", "split", "fit", "score", "report")
    found = {file: {stage for stage in every if file in stage_modules(stage)} for file in STAGES}
    assert found == STAGES


def check_reruns(project: Project) -> None:
    assert "analyses.speed" in stage_modules("score")
    decoders = {kind.code.split(":")[0].removeprefix("colatent.") for kind in DECODERS.values()}
    assert decoders <= stage_modules("fit")


def check_refusals(project: Project) -> None:
    section = settings_of("mm-gpvae", latents={"spikes": 1}, likelihood={"spikes": "laplace"})
    with pytest.raises(ValueError, match="is laplace, which does not describe counts"):
        section.check_modalities("models.m", {"spikes": SpikesModality(kind="spikes")})


CHECKS = {
    check.__name__.removeprefix("check_"): check
    for check in (
        check_likelihood,
        check_likelihood_of_counts,
        check_decoder,
        check_baseline,
        check_modality,
        check_score,
        check_figure,
        check_analysis,
        check_stages,
        check_reruns,
        check_refusals,
    )
}


def main(package: str, output: str) -> None:
    """Use what was added, and write what went wrong: name of the check -> why."""
    assert Path(colatent.__file__).parent == Path(package)
    project, wrong = Project(Path(output).parent), {}
    for name, check in CHECKS.items():
        try:
            check(project)
        except (Exception, pytest.fail.Exception):
            wrong[name] = traceback.format_exc()
    Path(output).write_text(json.dumps(wrong))


@pytest.fixture(scope="module")
def wrong(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("recipes")
    ignored = shutil.ignore_patterns("__pycache__")
    package = shutil.copytree(ROOT / "src/colatent", folder / "src/colatent", ignore=ignored)
    carry_out((ROOT / "src/README.md").read_text(), package)
    add_counts(package)
    paths = os.pathsep.join(map(str, (folder / "src", ROOT / "tests", ROOT / "tests/unit/report")))
    (folder / "made").mkdir()
    output = folder / "made/wrong.json"
    run = subprocess.run(
        [sys.executable, __file__, str(package), str(output)],
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    return json.loads(output.read_text())


@pytest.mark.parametrize("name", CHECKS)
def test_a_recipe_adds_what_it_says(wrong, name):
    assert name not in wrong, wrong[name]


def test_the_files_and_names_of_the_page_are_there():
    text = (ROOT / "src/README.md").read_text()
    named = re.findall(r"`([\w/]+\.py)(?:: (\w+))?`", text)
    assert len(named) > 40
    for path, name in named:
        file = ROOT / ("" if path.startswith(("workflow/", "tests/")) else "src/colatent") / path
        assert re.search(rf"^((def|class) )?{name}\b", file.read_text(), re.MULTILINE), f"{path}: {name}"


if __name__ == "__main__":
    main(*sys.argv[1:])
