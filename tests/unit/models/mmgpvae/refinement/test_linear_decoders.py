"""Linear decoders at their optimum: against GPFA and dense algebra, and judged by held-out trials."""

import copy
import re
from dataclasses import replace
from itertools import chain, repeat

import numpy as np
import pytest
import torch
from support import BIN_WIDTH, BOTH, N_BINS, OPTIONS, fit_vae, quiet, simulate, unfitted_vae

from colatent.data.trials import Trials
from colatent.models import gp
from colatent.models.base import FitRun
from colatent.models.gpfa.counts import CountGPFA
from colatent.models.mmgpvae.model import MMGPVAE
from colatent.models.mmgpvae.objective import Objective
from colatent.models.mmgpvae.refinement import last_steps
from colatent.models.mmgpvae.refinement.last_steps import objective_of
from colatent.models.mmgpvae.refinement.linear_decoders import ROUNDS, Profile, improve

LINEAR = OPTIONS | {"decoder": {"emg": "linear"}, "cross_weight": {}, "epochs": 4}


@pytest.fixture(scope="module")
def fitted() -> MMGPVAE:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(last_steps, "improve_linear_decoders", lambda *_: None)
        return fit_vae(simulate(40)[0], **LINEAR)


@pytest.fixture
def unimproved(fitted: MMGPVAE) -> MMGPVAE:
    """One to be improved."""
    return copy.deepcopy(fitted)


def profile_of(model: MMGPVAE, trials: Trials) -> Profile:
    network = model.network
    return Profile(network, network.inputs(trials, network.names), network.prior(trials)[1])


def test_one_latent_of_counts_ends_where_gpfa_of_counts_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """With one latent the posterior is as rich as that of `CountGPFA`: so is the greatest bound."""
    trials = simulate(40)[0]
    options = LINEAR | {"latents": {"spikes": 1}, "decoder": {}}
    model = fit_vae(trials, **options)
    rounds = iter(range(ROUNDS + 1))
    assert improve(model.network, profile_of(model, trials), lambda: float(next(rounds)), quiet) == ROUNDS
    counts = np.where(trials.observed["spikes"], trials.values["spikes"], np.nan)
    # a covariance for each trial, as an MM-GPVAE has
    monkeypatch.setattr("colatent.models.gpfa.counts.kinds_of", lambda observed: np.arange(len(observed)))
    gpfa = CountGPFA(1, BIN_WIDTH).fit(counts)
    assert model.elbo(trials).sum() == pytest.approx(gpfa.elbo(counts).sum(), abs=2)
    assert model.time_scales() == pytest.approx(gpfa.time_scale_, rel=0.02)
    loading = model.network.modality("spikes").decoder.readout.weight.detach().numpy()
    ours, theirs = (np.abs(x) / np.linalg.norm(x) for x in (loading, gpfa.loading_))  # ours has a prior
    np.testing.assert_allclose(ours, theirs, atol=2e-3)


def test_of_one_gaussian_latent_it_is_the_log_marginal_likelihood(monkeypatch: pytest.MonkeyPatch) -> None:
    """Value and gradient are those of dense algebra: the posterior is then exact."""
    monkeypatch.setattr("colatent.models.mmgpvae.refinement.linear_decoders.SITE_TOLERANCE", 1e-6)
    trials = simulate(6)[0]
    options = LINEAR | {"latents": {"emg": 1}}
    model = fit_vae(trials, **options)
    network, profile = model.network, profile_of(model, trials)
    value = profile()
    gradient = torch.autograd.grad(value, profile.parameters())

    decoder, data = network.modality("emg").decoder, network.inputs(trials, ("emg",))["emg"]
    loading, offset, log_time_scale = (
        p.detach().double().requires_grad_()
        for p in (decoder.readout.weight, decoder.readout.bias, network.log_time_scale)
    )
    noise = network.modality("emg").likelihood.scale().detach().square()
    t = torch.arange(N_BINS).double()
    prior = gp.correlation("squared-exponential", t[:, None] - t, log_time_scale.exp())
    prior = network.prior_sd().detach().square() * prior
    covariance = torch.kron(prior, loading @ loading.T) + torch.diag(noise.repeat(N_BINS))
    expected = -0.5 * loading.square().sum()
    for target, observed in zip(data.target.double().flatten(1), data.observed.flatten(1), strict=True):
        density = torch.distributions.MultivariateNormal(
            offset.repeat(N_BINS)[observed], covariance[observed][:, observed]
        )
        expected = expected + density.log_prob(target[observed])
    expected = expected / (6 * N_BINS)
    assert float(value.detach()) == pytest.approx(float(expected.detach()), abs=1e-3)
    for ours, dense in zip(
        gradient, torch.autograd.grad(expected, (loading, offset, log_time_scale)), strict=True
    ):
        np.testing.assert_allclose(ours, dense, atol=2e-3 * float(dense.abs().max()) + 1e-4)


def test_it_holds_the_cross_modal_terms_of_the_objective() -> None:
    options = LINEAR | {"cross_weight": {"emg": 0.7}, "weight": {"spikes": 0.5}}
    trials = simulate(12)[0]
    model = fit_vae(trials, **options)
    with torch.no_grad():
        value = float(profile_of(model, trials)())
    loadings = [model.network.modality(name).decoder.readout.weight.detach() for name in BOTH]
    penalty = 0.5 * sum(float(loading.square().sum()) for loading in loadings)
    assert value * N_BINS + penalty / 12 == pytest.approx(objective_of(model.network, trials, 0), abs=0.1)


def test_a_fit_cut_short_gains_on_new_trials(unimproved: MMGPVAE) -> None:
    test = simulate(20, seed=2)[0]
    lines: list[str] = []
    improved = fit_vae(simulate(40)[0], 0, lines.append, **LINEAR)
    told = r"^linear decoders of emg and spikes: rounds of improvement kept: (\d+)$"
    (kept,) = re.findall(told, "\n".join(lines), re.MULTILINE)
    assert int(kept) >= 1
    assert improved.elbo(test).mean() > unimproved.elbo(test).mean() + 1


@pytest.mark.parametrize("worse", [0.5, np.nan, np.inf, None])
def test_what_trials_held_out_lose_by_is_undone(unimproved: MMGPVAE, worse: float | None) -> None:
    network, profile = unimproved.network, profile_of(unimproved, simulate(40)[0])
    before = {k: v.clone() for k, v in network.state_dict().items()}
    bounds, kept = chain([0.0, 1.0], repeat(worse)), []

    def bound() -> float:
        kept.append({k: v.clone() for k, v in network.state_dict().items()})
        if (value := next(bounds)) is None:
            raise torch.linalg.LinAlgError
        return value

    assert improve(network, profile, bound, quiet) == 1
    assert all(torch.equal(v, kept[1][k]) for k, v in network.state_dict().items())
    changed = {k for k, v in network.state_dict().items() if not torch.equal(v, before[k])}
    assert changed and all(".decoder.readout." in k or k == "log_time_scale" for k in changed)


@pytest.mark.parametrize(
    ("told", "kept"),
    [([-1.0, -0.5, 2.0, 1.0, 1.0, 1.0], 3), ([1.0, 0.5, 0.5, 0.5, 2.0], 1), ([0.0, 0.0, 0.0, 1.0], 0)],
)
def test_a_loss_may_be_made_good_by_the_rounds_after_it(
    unimproved: MMGPVAE, told: list[float], kept: int
) -> None:
    bounds, profile = iter([0.0, *told]), profile_of(unimproved, simulate(4)[0])
    assert improve(unimproved.network, profile, lambda: next(bounds), quiet) == kept


@pytest.mark.parametrize("at", [0, 3])
@pytest.mark.parametrize("broken", ["no posterior", "NaN", "no posterior of the judges"])
def test_no_posterior_of_the_fitted_trials_is_no_error(unimproved: MMGPVAE, broken: str, at: int) -> None:
    network = unimproved.network
    before = {k: v.clone() for k, v in network.state_dict().items()}
    calls = iter(range(1000))

    class Broken(Profile):
        def __call__(self) -> torch.Tensor:
            value = super().__call__()
            if next(calls) < at or broken == "no posterior of the judges":
                return value
            if broken == "NaN":
                return value * np.nan
            raise torch.linalg.LinAlgError

    def judge() -> float:
        if broken == "no posterior of the judges":
            raise torch.linalg.LinAlgError
        return 0.0

    profile = profile_of(unimproved, simulate(40)[0])
    profile.__class__ = Broken
    assert improve(network, profile, judge, quiet) == 0
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())


def test_held_out_trials_are_not_fitted_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other values in the trials that judge: the decoders of two rounds are the same."""
    monkeypatch.setattr("colatent.models.mmgpvae.refinement.linear_decoders.ROUNDS", 2)
    trials = simulate(40)[0]
    model = fit_vae(trials, **LINEAR)
    judges = np.arange(4)
    values = {name: v.copy() for name, v in trials.values.items()}
    values["spikes"][judges] = 3.0
    weights = []
    for these in (trials, replace(trials, values=values)):
        one = unfitted_vae(trials.layout, **LINEAR).restore(model.state())
        calls = iter([0.0, 1.0, 2.0])
        monkeypatch.setattr(last_steps, "objective_of", lambda *_, calls=calls: next(calls))
        last_steps.improve_linear_decoders(one.network, these, judges, FitRun())
        weights.append(one.network.modality("spikes").decoder.readout.weight.detach().numpy())
    np.testing.assert_array_equal(*weights)


def test_the_objective_that_judges_is_that_of_training(unimproved: MMGPVAE) -> None:
    """With a weight and a cross weight, for the posterior that the encoders' sites define."""
    options = LINEAR | {"cross_weight": {"emg": 0.7}, "weight": {"spikes": 0.5}, "posterior": "mean-field"}
    trials = simulate(12)[0]
    model = fit_vae(trials, **options)
    objective = Objective(model.network, model.options.cross_weights.final)
    data = model.network.inputs(trials, BOTH)
    loss, _ = objective.loss(data, torch.Generator().manual_seed(0))
    assert objective_of(model.network, trials, 0) == pytest.approx(-float(loss.detach()) * 25, rel=1e-6)
