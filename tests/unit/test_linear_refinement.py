"""Linear decoders at their optimum: against ridge and Poisson regression, and judged by held-out trials."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import PoissonRegressor
from test_mmgpvae import BOTH, OPTIONS, quiet, simulate

from colatent.models.linear_refinement import ROUNDS, CrossTerm, _objective, improve, maximise
from colatent.models.mmgpvae import MMGPVAE
from colatent.models.mmgpvae_objective import Objective
from colatent.posterior import Marginals

LINEAR = OPTIONS | {"decoder": {"spikes": "linear", "emg": "linear"}, "cross_weight": {}, "epochs": 4}


@pytest.fixture
def unimproved(monkeypatch: pytest.MonkeyPatch) -> MMGPVAE:
    with monkeypatch.context() as patch:
        patch.setattr(MMGPVAE, "_improve_linear_decoders", lambda *_: None)
        return MMGPVAE(**LINEAR).fit(simulate(40)[0], 0, quiet)


def known_latents(n: int) -> Marginals:
    mean = torch.from_numpy(np.random.default_rng(0).normal(size=(40, 25, n)))
    return Marginals(mean, torch.zeros_like(mean))


def test_poisson_decoders_are_those_of_penalised_regression(unimproved: MMGPVAE) -> None:
    trials, modality = simulate(40)[0], unimproved.network.modality("spikes")
    data, latents = unimproved._observations(trials, BOTH)["spikes"], known_latents(2)
    for _ in range(3):
        maximise(modality, _objective(unimproved.network, "spikes", {"spikes": data}, latents, {}, {}))
    x, seen = latents.mean.numpy(), trials.observed["spikes"]
    for channel in (0, 7, 23):
        rows = seen[..., channel]
        n = rows.sum()
        regression = PoissonRegressor(alpha=1 / n, tol=1e-8, max_iter=1000)
        regression.fit(x[rows], trials.values["spikes"][..., channel][rows])
        readout = modality.decoder.readout
        np.testing.assert_allclose(readout.weight[channel].detach(), regression.coef_, atol=2e-3)
        assert readout.bias[channel].item() == pytest.approx(regression.intercept_, abs=2e-3)


@pytest.mark.parametrize("cross", [0.0, 1.5])
def test_gaussian_decoders_count_the_latents_uncertainty(unimproved: MMGPVAE, cross: float) -> None:
    """The quadratic objective is greatest where the normal equations say."""
    trials, modality = simulate(40)[0], unimproved.network.modality("emg")
    data = unimproved._observations(trials, BOTH)["emg"]
    latents, weight = known_latents(1), 0.7
    latents = Marginals(latents.mean, torch.full_like(latents.mean, 0.4))
    others = torch.from_numpy(np.random.default_rng(1).normal(size=latents.mean.shape))
    with torch.no_grad():
        modality.cross_likelihood.log_sd.fill_(np.log(1.3))
    terms = {"emg": CrossTerm(cross, others)} if cross else {}
    objective = _objective(unimproved.network, "emg", {"emg": data}, latents, {"emg": weight}, terms)
    for _ in range(3):
        maximise(modality, objective)
    noise = modality.likelihood.scale().detach().numpy()
    for channel in range(5):
        rows = trials.observed["emg"][..., channel]
        y = data.target[..., channel].numpy()[rows]
        x, x_others = (
            np.column_stack([z.numpy()[rows], np.ones(rows.sum())]) for z in (latents.mean, others)
        )
        own, of_others = weight / noise[channel] ** 2, cross / 1.3**2
        left = own * x.T @ x + of_others * x_others.T @ x_others
        left[0, 0] += own * 0.4 * len(y) + 1
        expected = np.linalg.solve(left, own * x.T @ y + of_others * x_others.T @ y)
        readout = modality.decoder.readout
        got = (readout.weight[channel, 0].item(), readout.bias[channel].item())
        np.testing.assert_allclose(got, expected, atol=2e-3)


def test_a_fit_cut_short_gains_on_new_trials(unimproved: MMGPVAE) -> None:
    test = simulate(20, seed=2)[0]
    lines: list[str] = []
    improved = MMGPVAE(**LINEAR).fit(simulate(40)[0], 0, lines.append)
    assert f"linear decoders of emg and spikes: fitted to the posterior, rounds kept: {ROUNDS}" in lines
    assert improved.elbo(test).mean() > unimproved.elbo(test).mean() + 1


@pytest.mark.parametrize("worse", [0.5, np.nan, np.inf, None])
def test_what_trials_held_out_lose_by_is_undone(unimproved: MMGPVAE, worse: float | None) -> None:
    network, data = unimproved.network, unimproved._observations(simulate(40)[0], BOTH)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    bounds, kept = iter([0.0, 1.0, worse]), []

    def bound() -> float:
        kept.append({k: v.clone() for k, v in network.state_dict().items()})
        if (value := next(bounds)) is None:
            raise torch.linalg.LinAlgError
        return value

    latents = Marginals(*(torch.cat([x, x[..., :1]], -1)[..., :2] for x in known_latents(2)))
    assert improve(network, list(BOTH), data, {}, {}, lambda: latents, bound) == 1
    assert all(torch.equal(v, kept[1][k]) for k, v in network.state_dict().items())
    changed = {k for k, v in network.state_dict().items() if not torch.equal(v, before[k])}
    assert changed and all(".decoder.readout." in k for k in changed)


def test_no_posterior_of_the_fitted_trials_is_no_error(unimproved: MMGPVAE) -> None:
    network, data = unimproved.network, unimproved._observations(simulate(40)[0], BOTH)
    before = {k: v.clone() for k, v in network.state_dict().items()}

    def infer() -> Marginals:
        raise torch.linalg.LinAlgError

    assert improve(network, list(BOTH), data, {}, {}, infer, lambda: 0.0) == 0
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())


def test_held_out_trials_are_not_fitted_to() -> None:
    """Other values in the trials that judge: the decoders of one round are the same."""
    trials = simulate(40)[0]
    model = MMGPVAE(**LINEAR).fit(trials, 0, quiet)
    judges = np.arange(4)
    values = {name: v.copy() for name, v in trials.values.items()}
    values["spikes"][judges] = 3.0
    weights = []
    for these in (trials, replace(trials, values=values)):
        one = MMGPVAE.from_state(LINEAR, model.state())
        calls = iter([0.0, *np.arange(1.0, 10.0)])
        one._objective = lambda _, calls=calls: next(calls)  # type: ignore[method-assign]
        one._improve_linear_decoders(these, judges, quiet)
        weights.append(one.network.modality("spikes").decoder.readout.weight.detach().numpy())
    np.testing.assert_array_equal(*weights)


def test_the_objective_that_judges_is_that_of_training(unimproved: MMGPVAE) -> None:
    """With a weight and a cross weight, for the posterior that the encoders' sites define."""
    options = LINEAR | {"cross_weight": {"emg": 0.7}, "weight": {"spikes": 0.5}, "posterior": "mean-field"}
    trials = simulate(12)[0]
    model = MMGPVAE(**options).fit(trials, 0, quiet)
    model.network.eval()
    objective, data = Objective(model.network, model.options), model._observations(trials, BOTH)
    loss, _ = objective.loss(data, torch.Generator().manual_seed(0))
    assert model._objective(trials) == pytest.approx(-float(loss) * 12 * 25, rel=1e-6)
