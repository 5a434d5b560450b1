"""What a fit's file holds is the fit, to the last bit, whatever the model."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from pydantic import TypeAdapter

from colatent.config import Model
from colatent.data.trials import Trials
from colatent.errors import InputError
from colatent.models.registry import load_model, model_class_and_options
from colatent.store.tensors import load_arrays, save_arrays

MODELS = {
    "mm-gpvae": {"latents": {"spikes+emg": 1, "spikes": 1}, "epochs": 2},
    "gpfa": {"latents": {"spikes": 2}, "kernel": "matern-3/2"},
    "gpfa, counts": {"kind": "gpfa", "latents": {"spikes": 2}, "likelihood": {"spikes": "negative-binomial"}},
    "smoothed-fa": {"latents": {"spikes": 2}},
    "condition-mean": {},
    "ridge-lags": {"lags": 3},
    "mlp-lags": {"lags": 3, "epochs": 2},
}


def quiet(_: str) -> None: ...


class Fit(NamedTuple):
    """A fit and what it was made with."""

    name: str
    settings: Model
    training: Trials
    fitted: Any


@pytest.fixture(scope="module", params=MODELS)
def fit(request, simulated_trials) -> Fit:
    training = simulated_trials.select(np.arange(12))
    settings = TypeAdapter(Model).validate_python({"kind": request.param} | MODELS[request.param])
    cls, options = model_class_and_options(settings, training, True, "cpu")
    return Fit(request.param, settings, training, cls(**options).fit(training, seed=0, progress=quiet))


def test_a_fit_read_from_its_file_is_the_fit(fit, simulated_trials, tmp_path):
    name, settings, training, fitted = fit
    test = simulated_trials.select(np.arange(12, 16))
    save_arrays(tmp_path / "fit", fitted.state())
    state = load_arrays(tmp_path / "fit")
    assert state.keys() == fitted.state().keys()
    for key, value in fitted.state().items():
        assert (state[key].dtype, state[key].shape) == (value.dtype, value.shape)
        assert state[key].tobytes() == value.tobytes()
    again = load_model(settings, state, training, True, "cpu")
    one, other = (
        m.predict(test, ("spikes",), "emg" if "lags" in name else "spikes") for m in (fitted, again)
    )
    np.testing.assert_array_equal(one.mean, other.mean)


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
def test_arrays_that_are_not_those_of_the_fit_are_one_sentence(fit, change, said):
    """Every array of every model, with a checksum that is right."""
    state = fit.fitted.state()
    for name in (n for n in state if not n.startswith("history.")):
        changed = {n: change(a) if n == name else a for n, a in state.items()}
        kept = {n: a for n, a in changed.items() if a is not None}
        with pytest.raises(InputError) as caught:
            load_model(fit.settings, kept, fit.training, True, "cpu", "out/s/fit/m/fold-0_seed-0")
        assert str(caught.value).startswith("out/s/fit/m/fold-0_seed-0: state.safetensors does not hold")
        assert str(caught.value).endswith("--force out/s/fit/m/fold-0_seed-0/complete.json")
        assert caught.match(said) and name in str(caught.value)


def test_an_array_too_many_and_an_absurd_option_are_one_sentence(fit):
    state = fit.fitted.state()
    with pytest.raises(InputError, match=rf"^a fit of {fit.settings.kind}: .* \(more is unknown\)"):
        load_model(fit.settings, state | {"more": np.zeros(1)}, fit.training, True, "cpu")
    if "kernel" in state:
        with pytest.raises(InputError, match="does not hold"):
            load_model(fit.settings, state | {"kernel": np.array(99)}, fit.training, True, "cpu")
