"""What a fit's file holds is the fit, to the last bit, whatever the model."""

import numpy as np
import pytest
from pydantic import TypeAdapter

from colatent.config import Model
from colatent.models.registry import load_model, model_class_and_options
from colatent.tensors import load_arrays, save_arrays

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


@pytest.mark.parametrize("name", MODELS)
def test_a_fit_read_from_its_file_is_the_fit(name, simulated_trials, tmp_path):
    training, test = (simulated_trials.select(np.arange(*ends)) for ends in ((0, 12), (12, 16)))
    settings = TypeAdapter(Model).validate_python({"kind": name} | MODELS[name])
    cls, options = model_class_and_options(settings, training, True, "cpu")
    fitted = cls(**options).fit(training, seed=0, progress=quiet)
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
