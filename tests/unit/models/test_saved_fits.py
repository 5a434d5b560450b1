"""What a fit's files hold is the fit, to the last bit, whatever the model: no training trial is needed."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import pytest
from support import QUICK_MODELS, fit_to, settings_of

from colatent.config.models import ModelSettings
from colatent.data.tasks import Withheld
from colatent.errors import InputError
from colatent.models.fitting import FittedModel
from colatent.models.registry import load_fit, load_model
from colatent.scoring.answers import all_tasks, answers
from colatent.store.tensors import load_arrays, save_arrays

MODELS = QUICK_MODELS | {
    "gpfa": {"latents": {"spikes": 2}, "kernel": "matern-3/2"},
    "gpfa, conditions": {"kind": "gpfa", "latents": {"spikes": 2}, "mean": "condition"},
    "gpfa, counts": {"kind": "gpfa", "latents": {"spikes": 2}, "likelihood": {"spikes": "negative-binomial"}},
}


class SavedFit(NamedTuple):
    """A fit and what it was made with."""

    settings: ModelSettings
    withheld: Withheld
    fitted: FittedModel


@pytest.fixture(scope="module", params=MODELS)
def fit(request, simulated_trials) -> SavedFit:
    settings = settings_of(**{"kind": request.param} | MODELS[request.param])
    withheld = Withheld.of(simulated_trials, {"spikes": np.arange(30) < 5}, 0.2)
    return SavedFit(settings, withheld, fit_to(settings, simulated_trials.select(np.arange(12)), withheld))


def test_a_fit_read_from_its_files_answers_every_question_with_the_same_bytes(
    fit, simulated_trials, tmp_path
):
    test = simulated_trials.select(np.arange(12, 16))
    tensors: dict[str, Mapping[str, np.ndarray]] = {}
    for name, arrays in fit.fitted.tensors().items():
        save_arrays(tmp_path / name, arrays)
        tensors[name] = load_arrays(tmp_path / name)
        assert tensors[name].keys() == arrays.keys()
        for key, value in arrays.items():
            assert (tensors[name][key].dtype, tensors[name][key].shape) == (value.dtype, value.shape)
            assert tensors[name][key].tobytes() == value.tobytes()
    again = load_fit(fit.settings, test.layout, tensors)
    asked = all_tasks(fit.fitted, fit.withheld)
    assert all_tasks(again, fit.withheld) == asked and len(asked) >= 2
    pairs = zip(*(answers(f, asked, test, fit.withheld) for f in (fit.fitted, again)), strict=True)
    for one, other in pairs:
        assert one.task == other.task
        assert one.predictive.family == other.predictive.family
        assert one.mean.tobytes() == other.mean.tobytes()
        assert one.log_density.tobytes() == other.log_density.tobytes()


def shorter(array: np.ndarray) -> np.ndarray:
    return array[:-1] if array.ndim else array[None]


def spoilt(value: float) -> Callable[[np.ndarray], np.ndarray]:
    """Return what puts a value in an array's first place."""

    def spoil(array: np.ndarray) -> np.ndarray:
        array = array.astype(float)
        array.flat[0] = value
        return array

    return spoil


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda _: None, "is missing"),
        (shorter, r"has the shape \(.*\), not \("),
        (spoilt(np.nan), "is not finite"),
        (spoilt(np.inf), "is not finite"),
    ],
    ids=["missing", "shorter", "nan", "infinite"],
)
def test_arrays_that_are_not_those_of_the_fit_are_one_sentence(fit, simulated_trials, change, said):
    """Every array of every model, with a checksum that is right."""
    place = "out/s/fit/m/fold-0_seed-0"
    tensors = fit.fitted.tensors()
    for part, arrays in tensors.items():
        for name in (n for n in arrays if not n.startswith("history.")):
            if "finite" in said and (name.startswith("interval.") or name == "mean_counts"):
                continue  # an interval may be open or unknown, and a likelihood named instead of chosen
            changed = {n: change(a) if n == name else a for n, a in arrays.items()}
            kept = {n: a for n, a in changed.items() if a is not None}
            with pytest.raises(InputError) as caught:
                load_fit(fit.settings, simulated_trials.layout, {**tensors, part: kept}, place)
            assert str(caught.value).startswith(f"{place}: {part}.safetensors does not hold")
            assert str(caught.value).endswith(f"--force {place}/complete.json")
            # how many rows others must have is said by these, so that it is the others that are wrong
            assert caught.match(said)
            assert name in str(caught.value) or name in ("readout.end", "readout.conditions", "conditions")


def test_an_array_too_many_and_an_absurd_option_are_one_sentence(fit, simulated_trials):
    state, layout = fit.fitted.model.state(), simulated_trials.layout
    with pytest.raises(InputError, match=rf"^a fit of {fit.settings.kind}: .* \(more is unknown\)"):
        load_model(fit.settings, layout, state | {"more": np.zeros(1)})
    if "kernel" in state:
        with pytest.raises(InputError, match="does not hold"):
            load_model(fit.settings, layout, state | {"kernel": np.array(99)})
