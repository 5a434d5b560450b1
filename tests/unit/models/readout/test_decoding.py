"""Behaviour read out of latents: against scikit-learn, and what the readout must not look at."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from colatent.config import GPFASettings
from colatent.config.models import LatentGroup
from colatent.data.splits import inner_folds
from colatent.data.tasks import NOTHING_WITHHELD, Task, Withheld
from colatent.data.trials import Trials
from colatent.models.base import FitRun
from colatent.models.fitting import FittedModel
from colatent.models.gpfa.model import GPFAModel
from colatent.models.readout.decoding import Decoder
from colatent.models.readout.ridge import INNER_FOLDS, PENALTIES
from colatent.scoring.answers import answers
from colatent.scoring.evaluate import Evaluation, evaluate
from colatent.scoring.reconstruction import reconstructions

N_TRIALS, N_TRAINING, N_BINS = 60, 40, 30
TEST = np.arange(N_TRIALS) >= N_TRAINING


def simulate() -> Trials:
    """Two latents drive calcium and, linearly, position and force; of one force, three bins are missing."""
    rng = np.random.default_rng(0)
    lag = np.subtract.outer(np.arange(N_BINS), np.arange(N_BINS))
    z = rng.multivariate_normal(np.zeros(N_BINS), np.exp(-0.5 * (lag / 5.0) ** 2), (N_TRIALS, 2))
    z = z.transpose(0, 2, 1)
    values = {
        "calcium": z @ rng.normal(size=(2, 20)) + 0.3 * rng.normal(size=(N_TRIALS, N_BINS, 20)),
        "position": 50
        + z @ np.array([[3.0, -1.0], [0.5, 20.0]])
        + 0.2 * rng.normal(size=(N_TRIALS, N_BINS, 2)),
        "force": 2 * z[..., :1] + rng.normal(size=(N_TRIALS, N_BINS, 3)),
    }
    observed = {m: np.ones(v.shape, dtype=bool) for m, v in values.items()}
    observed["force"][:, 4:7, 1] = False
    return Trials(
        values=values,
        observed=observed,
        channels={m: tuple(map(str, range(v.shape[2]))) for m, v in values.items()},
        kinds=dict.fromkeys(values, "continuous"),
        bin_width=0.02,
    )


def changed(trials: Trials, modality: str, value: np.ndarray) -> Trials:
    return replace(trials, values={**trials.values, modality: value})


@pytest.fixture(scope="module")
def trials() -> Trials:
    return simulate()


@pytest.fixture(scope="module")
def model(trials: Trials) -> GPFAModel:
    gpfa = GPFAModel(GPFASettings(kind="gpfa", latents={"calcium": 2}), trials.layout)
    return gpfa.fit(trials.select(~TEST), FitRun(intervals=False))


def decode(model: Any, trials: Trials) -> tuple[Decoder, Evaluation]:
    training, test = trials.select(~TEST), trials.select(TEST)
    decoder = Decoder.fit(model, training)
    return decoder, evaluate(FittedModel(model, decoder), training, test, NOTHING_WITHHELD)


def decoded(decoder: Decoder, test: Trials) -> Any:
    fit = FittedModel(decoder.model, decoder)
    return answers(fit, list(decoder.readouts), test, NOTHING_WITHHELD)


def pooled_r2(evaluation: Evaluation, predicted: str) -> float:
    chosen = "heldout == 'decoding' and channel == 'pooled' and metric == 'r2' and predicted == @predicted"
    return evaluation.scores.query(chosen)["value"].item()


def weights(decoder: Decoder) -> Mapping[str, np.ndarray]:
    return {
        f"{task.predicted} {name}": value
        for task, readout in decoder.readouts.items()
        for name, value in (readout.ridge._asdict() | vars(readout.scale)).items()
    }


@pytest.mark.parametrize("time_locked", [True, False])
def test_the_readout_is_that_of_scikit_learn_over_the_same_folds(trials, model, time_locked):
    training, test = trials.select(~TEST), trials.select(TEST)
    decoder = Decoder.fit(model, replace(training, time_locked=time_locked))
    assert [(t.given, t.predicted) for t in decoder.readouts] == [
        (("calcium",), "position"), (("calcium",), "force"),
    ]  # fmt: skip
    z, z_test = (model.latents(t, ("calcium",))[0] for t in (training, test))
    bins = np.arange(N_TRAINING * N_BINS).reshape(N_TRAINING, N_BINS)
    answers = {a.task.predicted: a for a in decoded(decoder, test)}
    for predicted, channels in (("position", [0, 1]), ("force", [0, 2]), ("force", [1])):
        seen = training.observed[predicted][..., channels[0]]
        y, x = training.values[predicted][seen][:, channels], z[seen]
        mean, deviation = y.mean(axis=0), y.std(axis=0)
        y = (y - mean) / deviation
        row = np.cumsum(seen.ravel()) - 1  # where a bin stands among those that are observed
        folds = [
            [row[bins[part][seen[part]]] for part in fold]
            for fold in inner_folds(N_TRAINING, INNER_FOLDS, time_locked)
        ]
        penalties = PENALTIES * np.mean(x.std(axis=0) ** 2)
        left_out = np.zeros((len(PENALTIES), *y.shape))
        for i, penalty in enumerate(penalties):
            for fit, held in folds:
                left_out[i, held] = Ridge(penalty).fit(x[fit], y[fit]).predict(x[held]).reshape(len(held), -1)
        error = ((left_out - y) ** 2).sum(axis=1)
        best = error.sum(axis=1).argmin()
        z_rows = z_test.reshape(-1, 2)
        expected = (
            Ridge(penalties[best]).fit(x, y).predict(z_rows).reshape(len(z_rows), -1) * deviation + mean
        )
        got = answers[predicted]
        np.testing.assert_allclose(got.mean[..., channels].reshape(expected.shape), expected, rtol=1e-6)
        residual = np.sqrt(error[best] / len(y)) * deviation
        np.testing.assert_allclose(got.predictive.scale[channels], residual, rtol=1e-6)
        np.testing.assert_array_equal(got.scored, test.observed[predicted])


def test_scores_are_those_of_other_continuous_predictions(trials, model):
    decoder, found = decode(model, trials)
    rows = found.scores.query("heldout == 'decoding'")
    assert set(rows["metric"]) == {"r2", "nrmse", "log_density", "coverage_50", "coverage_95"}
    assert set(rows["given"]) == {"calcium"}
    test, training = trials.select(TEST), trials.select(~TEST)
    (answered, _) = decoded(decoder, test)
    y = test.values["position"]
    scale = training.values["position"].std(axis=(0, 1))
    error, total = (((y - p) / scale) ** 2 for p in (answered.mean, y.mean(axis=(0, 1))))
    assert pooled_r2(found, "position") == pytest.approx(1 - error.sum() / total.sum())
    seen = rows.query("predicted == 'force' and metric == 'nrmse'").set_index("channel")["n"]
    n = TEST.sum() * N_BINS
    assert (seen["0"], seen["1"], seen["pooled"]) == (n, n - 3 * TEST.sum(), 3 * n - 3 * TEST.sum())
    assert {"decoding/position", "decoding/force"} <= set(found.diagnostics)
    drawn = reconstructions(FittedModel(model, decoder), test, NOTHING_WITHHELD)["decoding/position"]
    np.testing.assert_allclose(drawn["mean"], answered.mean[drawn["trial"].values], rtol=1e-5)


def test_a_behaviour_that_the_latents_drive_is_decoded_and_one_of_other_trials_is_not(trials, model):
    _, found = decode(model, trials)
    assert pooled_r2(found, "position") > 0.95
    coverage = found.scores.query(
        "heldout == 'decoding' and channel == 'pooled' and metric == 'coverage_95' and predicted == 'force'"
    )["value"].item()
    assert coverage == pytest.approx(0.95, abs=0.02)
    order = np.random.default_rng(1).permutation(N_TRIALS)
    _, found = decode(model, changed(trials, "position", trials.values["position"][order]))
    assert -0.1 < pooled_r2(found, "position") < 0.02


def test_what_test_trials_hold_of_the_behaviour_changes_no_readout_and_no_prediction(trials, model):
    noise = 90 * np.random.default_rng(2).normal(size=trials.values["position"].shape)
    spoiled = changed(trials, "position", np.where(TEST[:, None, None], noise, trials.values["position"]))
    (before, _), (after, found) = (decode(model, t) for t in (trials, spoiled))
    for name, value in weights(before).items():
        np.testing.assert_array_equal(value, weights(after)[name])
    pairs = zip(*(decoded(before, t.select(TEST)) for t in (trials, spoiled)), strict=True)
    for one, other in pairs:
        np.testing.assert_array_equal(one.mean, other.mean)
    assert pooled_r2(found, "position") < 0.1  # the noise is what is scored


class Spy:
    """A model of two modalities that remembers which trials its latents were asked of."""

    modalities = ("calcium", "force")
    latent_groups = (LatentGroup.of("calcium+force"),)

    def __init__(self) -> None:
        self.shown: list[tuple[tuple[str, ...], Trials]] = []

    def tasks(self, withheld: Withheld) -> list[Task]:
        return []

    def latents(self, trials: Trials, given: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
        self.shown.append((given, trials))
        mean = np.sum([trials.values[m].mean(axis=2, keepdims=True) for m in given], axis=0)
        return mean, np.ones_like(mean)


def test_latents_are_inferred_once_from_the_given_modalities_alone(trials):
    spy: Any = Spy()
    decoder = Decoder.fit(spy, trials.select(~TEST))
    sets = [("calcium",), ("force",), ("calcium", "force")]
    assert [g for g, _ in spy.shown] == sets
    assert {(t.given, t.predicted) for t in decoder.readouts} == {
        (sets[0], "force"), (sets[0], "position"), (sets[1], "calcium"), (sets[1], "position"),
        (sets[2], "position"),
    }  # fmt: skip
    assert len(list(decoded(decoder, trials.select(TEST)))) == 5
    assert [g for g, _ in spy.shown] == sets * 2
    for i, (given, shown) in enumerate(spy.shown):
        assert shown.n_trials == (N_TRAINING if i < 3 else TEST.sum())
        for m in set(trials.modalities) - set(given):
            assert not shown.observed[m].any() and not shown.values[m].any()


def test_counts_are_not_decoded(trials):
    counts = replace(trials, kinds={**trials.kinds, "position": "spikes"})
    spy: Any = Spy()
    spy.modalities = ("calcium",)
    assert [t.predicted for t in Decoder.fit(spy, counts).readouts] == ["force"]


def test_read_outs_are_rebuilt_from_their_arrays(trials, model):
    decoder = Decoder.fit(model, trials.select(~TEST))
    again = Decoder.from_state(model, trials.layout, decoder.state())
    pairs = zip(*(decoded(d, trials.select(TEST)) for d in (decoder, again)), strict=True)
    for one, other in pairs:
        assert one.task == other.task
        np.testing.assert_array_equal(one.mean, other.mean)
        np.testing.assert_array_equal(one.predictive.scale, other.predictive.scale)
