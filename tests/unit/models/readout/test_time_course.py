"""Time courses of conditions: how far they are shrunk, and what a model that is told them predicts."""

from dataclasses import replace

import numpy as np
import pytest

from colatent.config import GPFASettings
from colatent.data.tasks import Withheld
from colatent.data.trials import Trials
from colatent.errors import InputError
from colatent.models.base import FitRun
from colatent.models.gpfa.methods import gpfa
from colatent.models.gpfa.model import GPFAModel
from colatent.models.methods import About
from colatent.models.readout import time_course
from colatent.models.readout.time_course import TimeCourse

N_BINS, N_CHANNELS = 20, 8
CONDITION = np.arange(60) % 3
HIDDEN = {"m": np.arange(N_CHANNELS) < 2}


def trials_of(value: np.ndarray, kind: str) -> Trials:
    names = tuple(f"c{i}" for i in range(value.shape[2]))
    seen = np.ones(value.shape, dtype=bool)
    return Trials({"m": value}, {"m": seen}, {"m": names}, {"m": kind}, 0.02, CONDITION.astype(str))


def courses() -> np.ndarray:
    """Of each condition (condition, time, channel): levels and shapes differ."""
    time, channel = np.arange(N_BINS), np.arange(N_CHANNELS)
    phase = time[:, None] / 3 + channel
    return np.stack([0.8 * np.sin(phase + 2 * k) + 0.3 * k * (-1.0) ** channel for k in range(3)])


@pytest.fixture(scope="module")
def counts() -> Trials:
    rate = np.exp(courses()[CONDITION] - 0.5)
    return trials_of(np.random.default_rng(0).poisson(rate).astype(float), "spikes")


def values(noise: float) -> np.ndarray:
    return courses()[CONDITION] + noise * np.random.default_rng(1).normal(size=(60, N_BINS, N_CHANNELS))


def test_conditions_that_differ_are_not_shrunk_at_all(monkeypatch) -> None:
    value = values(0.01)
    found = TimeCourse.fit(trials_of(value, "continuous"), "m", told=True)
    assert found.prior_trials == 0 and found.width == 0
    monkeypatch.setattr(time_course, "WIDTHS", (0.0,))
    found = TimeCourse.fit(trials_of(value, "continuous"), "m", told=True)
    time_mean = value.mean(axis=(0, 1))
    plain = (value.sum(axis=0) + time_mean) / (len(value) + 1)
    means = np.stack([value[k == CONDITION].mean(axis=0) for k in range(3)])
    np.testing.assert_allclose(found.courses.value[:3], means - plain.mean(axis=0), atol=1e-12)
    np.testing.assert_allclose(found.courses.value[3], plain - plain.mean(axis=0), atol=1e-12)
    assert list(found.courses.conditions) == ["0", "1", "2"]


def test_conditions_that_do_not_differ_have_the_time_course_of_all() -> None:
    noise = np.random.default_rng(2).normal(size=(60, N_BINS, 40)) + np.sin(np.arange(N_BINS) / 3)[:, None]
    trials = trials_of(noise, "continuous")
    found, plain = (TimeCourse.fit(trials, "m", told) for told in (True, False))
    assert found.prior_trials == 1e9
    for row in found.courses.value:
        np.testing.assert_allclose(row, plain.courses.value[0], atol=1e-6)
    np.testing.assert_allclose(found.left_out, plain.left_out, atol=1e-6)


@pytest.mark.parametrize("left", [0, 7])
def test_what_a_left_out_trial_sees_is_the_time_course_of_the_others(
    counts: Trials, left: int, monkeypatch
) -> None:
    monkeypatch.setattr(time_course, "WIDTHS", (1.0,))
    others = counts.select(np.arange(60) != left)
    found, of_others = (TimeCourse.fit(trials, "m", told=True) for trials in (counts, others))
    assert found.prior_trials == of_others.prior_trials < 1e9
    time = np.arange(N_BINS)
    at = of_others.courses.at(np.zeros(N_BINS, dtype=int), time, np.array([str(CONDITION[left])]))
    np.testing.assert_allclose(found.left_out[left], at, atol=1e-9)


def test_a_condition_of_one_trial_is_left_out_as_one_of_none() -> None:
    trials = trials_of(values(0.01), "continuous")
    trials = replace(trials, condition=np.where(np.arange(60) == 5, "alone", trials.condition))
    found, plain = (TimeCourse.fit(trials, "m", told) for told in (True, False))
    assert found.prior_trials == 0
    np.testing.assert_allclose(found.left_out[5], plain.left_out[5], atol=1e-12)


@pytest.fixture(scope="module")
def fits(counts: Trials) -> dict[str, GPFAModel]:
    training = counts.select(np.arange(36))
    withheld = Withheld.of(counts, HIDDEN, 0.2)
    found = {}
    for mean in ("time", "condition"):
        settings = GPFASettings(kind="gpfa", latents={"m": 1}, mean=mean)
        run = FitRun(withheld=withheld, intervals=False)
        found[mean] = GPFAModel(settings, counts.layout).fit(training, run)
    return found


def test_a_model_that_is_told_the_condition_predicts_hidden_channels_better(fits, counts) -> None:
    test = counts.select(np.arange(36, 60))
    error = {}
    for mean, model in fits.items():
        rate = model.predict(test.hide(HIDDEN), ("m",), "m").mean[..., :2]
        truth = np.exp(courses()[CONDITION[36:]] - 0.5)[..., :2]
        error[mean] = ((rate - truth) ** 2).mean()
    assert error["condition"] < 0.5 * error["time"]
    latents = fits["condition"].latents(test, ("m",))[0]
    rate = fits["condition"].predict(test, ("m",), "m").mean
    np.testing.assert_allclose(fits["condition"].decode(latents, "m", test.condition), rate)


def test_a_condition_that_is_not_known_has_the_time_course_of_all(fits, counts) -> None:
    model, test = fits["condition"], counts.select(np.arange(36, 60))
    none = model.predict(replace(test, condition=None), ("m",), "m").mean
    new = model.predict(replace(test, condition=np.full(24, "never seen")), ("m",), "m").mean
    np.testing.assert_array_equal(none, new)
    assert np.abs(none - model.predict(test, ("m",), "m").mean).max() > 0.1
    readouts = next(iter(model.readouts.values()))
    plain = TimeCourse.fit(counts.select(np.arange(36)), "m", told=True).courses.value[-1]
    np.testing.assert_array_equal(readouts.courses.value[-1], plain)
    same = replace(test, condition=None)
    seen = model.latents(same, ("m",))[0]
    np.testing.assert_allclose(model.decode(seen, "m"), none)


def test_without_conditions_it_is_refused(counts: Trials) -> None:
    settings = GPFASettings(kind="gpfa", latents={"m": 1}, mean="condition")
    with pytest.raises(InputError, match="needs the condition of each trial: name its column"):
        GPFAModel(settings, counts.layout).fit(replace(counts, condition=None), FitRun())
    windows = replace(counts, time_locked=False)
    with pytest.raises(InputError, match="mean: condition of a gpfa model needs trials aligned in time"):
        GPFAModel(settings, windows.layout)


def test_by_default_it_is_that_of_all_where_trials_are_aligned(counts, fits) -> None:
    settings = GPFASettings(kind="gpfa", latents={"m": 1})
    training, withheld = counts.select(np.arange(36)), Withheld.of(counts, HIDDEN, 0.2)
    model = GPFAModel(settings, counts.layout).fit(training, FitRun(withheld=withheld, intervals=False))
    state, expected = model.state(), fits["time"].state()
    assert state.keys() == expected.keys()
    for name, array in state.items():
        np.testing.assert_array_equal(array, expected[name])
    windows = GPFAModel(settings, replace(counts, time_locked=False).layout)
    assert windows.mean == "constant"
    texts = [gpfa(settings, About({"m": "spikes"}, False, continuous)) for continuous in (False, True)]
    assert ["mean time course" in text for text in texts] == [True, False]


def test_the_methods_text_says_that_it_is_told() -> None:
    settings = GPFASettings(kind="gpfa", latents={"m": 1}, mean="condition")
    text = gpfa(settings, About({"m": "spikes"}, True, False))
    assert "is told the condition of a test trial" in text and "from none to all" in text
