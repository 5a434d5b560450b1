"""GPFA of several modalities: against one dense joint Gaussian per trial, recovery, invariances, refusals."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LinearRegression

from colatent.models.gpfa.evidence import evaluate
from colatent.models.gpfa.gaussian import GPFA
from colatent.models.gpfa.modalities import Modalities, group_state
from colatent.models.gpfa.parameters import Parameters

BIN_WIDTH = 0.02
Array = np.ndarray

# the dense comparison: two modalities, every kind of gap
TRIALS, BINS = 4, 20
SIZES = {"a": 4, "b": 3}
LATENTS = {"a+b": 2, "a": 1, "b": 1}
DRIVES = np.array([[True, True, True, False], [True, True, False, True]])
OWNER = np.repeat([0, 1], list(SIZES.values()))
RNG = np.random.default_rng(0)
LOADING = RNG.normal(size=(7, 4)) * DRIVES[OWNER]
NOISE = RNG.uniform(0.3, 1.0, 7)
OFFSET = RNG.normal(size=7)
TIME_SCALE = np.array([2.5, 4.0, 3.0, 5.0])
DELAYS = {"none": np.zeros((2, 4)), "some": np.array([[0.0, 0, 0, 0], [1.7, -2.3, 0, 0]])}


def with_gaps() -> Array:
    y = RNG.normal(size=(TRIALS, BINS, 7)) + 1
    y[0, 15:] = np.nan  # ends early
    y[1, :, 4:] = np.nan  # lacks a modality
    y[2][RNG.random((BINS, 7)) < 0.2] = np.nan
    y[3, 3:8, :4] = np.nan  # a modality has a gap
    return y


DATA = with_gaps()
GIVEN = {"a": DATA[..., :4], "b": DATA[..., 4:]}


def model(delay: Array) -> GPFA:
    gpfa = GPFA(latents=LATENTS, bin_width=BIN_WIDTH, delays=bool(delay.any()))
    gpfa.modalities_ = Modalities(tuple(SIZES), tuple(SIZES.values()), (False, False))
    gpfa.loading_, gpfa.offset_, gpfa.noise_variance_ = LOADING, OFFSET, NOISE
    gpfa.time_scale_ = TIME_SCALE * BIN_WIDTH
    gpfa.delay_ = np.where(DRIVES, delay * BIN_WIDTH, np.nan)
    return gpfa


class Dense:
    """The joint Gaussian of all latents and observations of one trial."""

    def __init__(self, delay: Array, trial: Array):
        self.delay = delay
        self.loading = np.tile(LOADING, (BINS, 1))  # rows (bin, channel)
        self.time = np.repeat(np.arange(BINS), 7)[:, None] - delay[np.tile(OWNER, BINS)]
        between = [np.outer(c, c) * self.kernel(k, t, t) for k, (c, t) in self._columns()]
        self.signal = np.sum(between, axis=0)
        noise = np.tile(NOISE, BINS)
        residual = (trial - OFFSET).ravel()
        self.seen = ~np.isnan(residual)
        self.residual = residual[self.seen]
        self.covariance = (self.signal + np.diag(noise))[np.ix_(self.seen, self.seen)]

    def _columns(self) -> list[tuple[int, tuple[Array, Array]]]:
        return [(k, (self.loading[:, k], self.time[:, k])) for k in range(4)]

    @staticmethod
    def kernel(k: int, s: Array, t: Array) -> Array:
        return np.exp(-0.5 * ((s[:, None] - t) / TIME_SCALE[k]) ** 2)

    def log_likelihood(self) -> float:
        solved = self.residual @ np.linalg.solve(self.covariance, self.residual)
        log_det = np.linalg.slogdet(self.covariance)[1]
        return float(-0.5 * (solved + log_det + len(self.residual) * np.log(2 * np.pi)))

    def latent(self, k: int, modality: int) -> tuple[Array, Array]:
        """Posterior mean and variance of a latent as a modality sees it."""
        at = np.arange(BINS) - self.delay[modality, k]
        cross = self.kernel(k, at, self.time[self.seen, k]) * self.loading[self.seen, k]
        gain = np.linalg.solve(self.covariance, cross.T).T
        return gain @ self.residual, 1 - (gain * cross).sum(axis=1)

    def prediction(self) -> tuple[Array, Array]:
        cross = self.signal[:, self.seen]
        gain = np.linalg.solve(self.covariance, cross.T).T
        variance = self.signal.diagonal() - (gain * cross).sum(axis=1)
        shape = (BINS, 7)
        return (gain @ self.residual).reshape(shape) + OFFSET, variance.reshape(shape) + NOISE


@pytest.mark.parametrize("delays", DELAYS)
def test_likelihood_posterior_and_predictions_are_those_of_the_joint_gaussian(delays: str) -> None:
    delay = DELAYS[delays]
    gpfa = model(delay)
    dense = [Dense(delay, trial) for trial in DATA]
    expected = sum(one.log_likelihood() for one in dense)
    assert gpfa.log_marginal_likelihood(GIVEN) == pytest.approx(expected, abs=1e-4)
    found = gpfa.predict(GIVEN)
    own = gpfa.posterior(GIVEN)
    of_b = gpfa.latents_seen_by("b", GIVEN)
    for n, one in enumerate(dense):
        mean, variance = one.prediction()
        for name, channels in (("a", slice(4)), ("b", slice(4, 7))):
            np.testing.assert_allclose(found[name].mean[n], mean[:, channels], atol=1e-5)
            np.testing.assert_allclose(found[name].variance[n], variance[:, channels], atol=1e-5)
        for k in range(4):
            mean, variance = one.latent(k, 0)
            np.testing.assert_allclose(own.mean[n, :, k], mean, atol=1e-5)
            np.testing.assert_allclose(own.variance[n, :, k], variance, atol=1e-5)
            np.testing.assert_allclose(of_b[n, :, k], one.latent(k, 1)[0], atol=1e-5)


@pytest.mark.parametrize("delays", DELAYS)
def test_gradient_is_that_of_finite_differences(delays: str) -> None:
    gpfa = model(DELAYS[delays])
    blocks, at = gpfa._blocks(gpfa._check(GIVEN))
    gradient = evaluate(blocks, at)[1]
    free = {"loading": DRIVES[OWNER], "delay": np.zeros((2, 4), dtype=bool)}
    free["delay"][1, :2] = gpfa.delays
    for name in Parameters._fields:
        value = getattr(at, name)
        for index in np.argwhere(free.get(name, np.ones(value.shape, dtype=bool))):
            place, ends = tuple(index), []
            for step in (1e-5, -1e-5):
                moved = value.clone()
                moved[place] += step
                ends.append(evaluate(blocks, at._replace(**{name: moved}))[0])
            numerical = (ends[0] - ends[1]) / 2e-5
            assert float(getattr(gradient, name)[place]) == pytest.approx(numerical, rel=1e-4, abs=1e-4)


def test_samples_of_delayed_latents_have_the_moments_of_the_posterior() -> None:
    gpfa = model(DELAYS["some"])
    n = 150
    samples, posterior = gpfa.sample(GIVEN, n, seed=1), gpfa.posterior(GIVEN)
    error = (samples.mean(axis=0) - posterior.mean) / np.sqrt(posterior.variance / n)
    assert np.abs(error).max() < 5 and error.std() == pytest.approx(1, abs=0.2)
    ratio = samples.var(axis=0) / posterior.variance
    assert ratio.mean() == pytest.approx(1, abs=0.1)


def test_without_delays_both_evaluations_agree() -> None:
    """The one in the Fourier basis of whole trials, and the one by modality."""
    plain, by_modality = model(DELAYS["none"]), model(DELAYS["none"] + np.array([[0.0], [1e-9]]))
    assert by_modality.log_marginal_likelihood(GIVEN) == pytest.approx(
        plain.log_marginal_likelihood(GIVEN), abs=1e-4
    )


# recovery: spikes and muscles share two latents
N_BINS, N_TRIALS, LAG = 50, 72, 5
GROUPS = {"spikes+emg": 2, "spikes": 1, "emg": 1}
SCALES = (5.0, 8.0, 10.0, 6.0)


def simulate(seed: int, lag: int = 0) -> tuple[Array, dict[str, Array]]:
    """Return true latents, as the first modality of their group sees them, and the data; muscles lag."""
    rng = np.random.default_rng(seed)
    t = np.arange(N_BINS + 2 * LAG)
    z = np.empty((N_TRIALS, len(t), 4))
    for k, scale in enumerate(SCALES):
        covariance = np.exp(-0.5 * ((t[:, None] - t) / scale) ** 2) + 1e-6 * np.eye(len(t))
        z[..., k] = rng.standard_normal((N_TRIALS, len(t))) @ np.linalg.cholesky(covariance).T
    early, late = z[:, LAG : LAG + N_BINS], z[:, LAG - lag : LAG - lag + N_BINS]
    rate = np.exp(early[..., :3] @ rng.normal(0, 0.5, (3, 40)) - 1.5)
    emg = late[..., [0, 1, 3]] @ rng.normal(size=(3, 8)) + rng.normal(size=(N_TRIALS, N_BINS, 8))
    truth = np.concatenate([early[..., :3], late[..., 3:]], axis=-1)
    return truth, {"spikes": rng.poisson(rate).astype(float), "emg": emg}


TRAIN, TEST = np.arange(N_TRIALS) % 4 > 0, np.arange(N_TRIALS) % 4 == 0


def chosen(data: dict[str, Array], trials: Array) -> dict[str, Array]:
    return {name: value[trials] for name, value in data.items()}


def recovered(gpfa: GPFA, truth: Array, data: dict[str, Array]) -> list[float]:
    """R² of the true latents in test trials, read out of the latents of their own group."""
    names = [group for group, n in GROUPS.items() for _ in range(n)]
    train, test = (np.asarray(gpfa.transform(chosen(data, part))) for part in (TRAIN, TEST))
    scores = []
    for k, group in enumerate(names):
        own = np.array([name == group for name in gpfa.latent_groups_])
        affine = LinearRegression().fit(train[..., own].reshape(-1, own.sum()), truth[TRAIN][..., k].ravel())
        scores.append(affine.score(test[..., own].reshape(-1, own.sum()), truth[TEST][..., k].ravel()))
    return scores


@pytest.fixture(scope="module")
def together() -> tuple[GPFA, Array, dict[str, Array]]:
    truth, data = simulate(0)
    return GPFA(latents=GROUPS, bin_width=BIN_WIDTH).fit(chosen(data, TRAIN)), truth, data


def test_shared_and_private_latents_are_recovered(together) -> None:
    gpfa, truth, data = together
    assert gpfa.converged_ and gpfa.latent_groups_ == ("spikes+emg", "spikes+emg", "spikes", "emg")
    assert min(recovered(gpfa, truth, data)) > 0.75
    outside = np.repeat([[0, 0, 0, 1], [0, 0, 1, 0]], [40, 8], axis=0).astype(bool)
    assert (gpfa.loading_[outside] == 0).all()
    values = [row["log_likelihood"] for row in gpfa.history_]
    assert all(np.diff(values) > -1e-9)


def test_delays_are_found_with_their_sign(together) -> None:
    truth, data = simulate(1, lag=LAG)
    gpfa = GPFA(latents=GROUPS, bin_width=BIN_WIDTH, delays=True).fit(chosen(data, TRAIN))
    np.testing.assert_allclose(gpfa.delay_[1, :2], LAG * BIN_WIDTH, atol=0.5 * BIN_WIDTH)
    assert (gpfa.delay_[0, :3] == 0).all() and np.isnan(gpfa.delay_[[0, 1], [3, 2]]).all()
    assert min(recovered(gpfa, truth, data)) > 0.75
    said: list[str] = []
    none = GPFA(latents=GROUPS, bin_width=BIN_WIDTH, delays=True).fit(chosen(together[2], TRAIN), said.append)
    assert none.longest_delay_ == N_BINS / 4 * BIN_WIDTH and not [line for line in said if "longer" in line]
    assert np.abs(none.delay_[1, :2]).max() < 0.5 * BIN_WIDTH


def test_shifting_a_modality_shifts_its_delays() -> None:
    """By a whole number of bins: muscles of the same recording read three bins earlier."""
    _, data = simulate(1, lag=LAG)
    earlier = {"spikes": data["spikes"][:, :-3], "emg": data["emg"][:, 3:]}
    both = [
        GPFA(latents=GROUPS, bin_width=BIN_WIDTH, delays=True).fit(chosen(given, TRAIN))
        for given in ({"spikes": data["spikes"][:, :-3], "emg": data["emg"][:, :-3]}, earlier)
    ]
    moved = both[0].delay_[1, :2] - both[1].delay_[1, :2]
    np.testing.assert_allclose(moved, 3 * BIN_WIDTH, atol=0.25 * BIN_WIDTH)


def test_the_order_of_modalities_changes_nothing(together) -> None:
    gpfa, _, data = together
    groups = {"emg": 1, "emg+spikes": 2, "spikes": 1}
    other = GPFA(latents=groups, bin_width=BIN_WIDTH).fit(chosen(data, TRAIN))
    mine, theirs = (m.log_marginal_likelihood(chosen(data, TEST)) for m in (gpfa, other))
    assert theirs == pytest.approx(mine, abs=1.0)  # nats, of some 40,000: both stop near the same maximum
    for name in data:
        one, two = (m.predict(chosen(data, TEST))[name].mean for m in (gpfa, other))
        np.testing.assert_allclose(one, two, atol=0.02 * one.std())


def test_one_modality_is_gpfa_of_its_array(together) -> None:
    emg = together[2]["emg"]
    alone = GPFA(2, BIN_WIDTH).fit(emg[TRAIN])
    groups = group_state({"emg": 2})
    named = GPFA.from_state(alone.state() | Modalities(("emg",), (8,), (False,)).state() | groups)
    assert named.log_marginal_likelihood({"emg": emg}) == pytest.approx(
        alone.log_marginal_likelihood(emg), rel=1e-10
    )
    found = named.predict({"emg": emg})["emg"]
    np.testing.assert_allclose(found.mean, alone.predict(emg).mean, rtol=1e-10)


def test_a_modality_is_predicted_from_the_others(together) -> None:
    gpfa, _, data = together
    test = chosen(data, TEST)
    found = gpfa.predict({"spikes": test["spikes"]})
    same = gpfa.predict(test, given=("spikes",))
    np.testing.assert_array_equal(found["emg"].mean, same["emg"].mean)
    null = data["emg"][TRAIN].mean((0, 1))
    explained = 1 - ((test["emg"] - found["emg"].mean) ** 2).sum() / ((test["emg"] - null) ** 2).sum()
    assert explained > 0.3
    inside = np.abs(test["emg"] - found["emg"].mean) < 1.96 * np.sqrt(found["emg"].variance)
    assert 0.93 < inside.mean() < 0.97
    # counts, not their square roots
    assert found["spikes"].mean.mean() == pytest.approx(test["spikes"].mean(), rel=0.1)


def test_a_saved_fit_predicts_the_same(tmp_path: Path) -> None:
    _, data = simulate(1, lag=LAG)
    gpfa = GPFA(latents=GROUPS, bin_width=BIN_WIDTH, delays=True).fit(chosen(data, TRAIN))
    gpfa.save(tmp_path / "fit.safetensors")
    read = GPFA.load(tmp_path / "fit.safetensors")
    test = chosen(data, TEST)
    for name in test:
        np.testing.assert_array_equal(gpfa.predict(test)[name].mean, read.predict(test)[name].mean)
    np.testing.assert_array_equal(read.delay_, gpfa.delay_)


def test_more_shared_latents_than_channels_of_a_modality() -> None:
    _, data = simulate(0)
    few = {"spikes": data["spikes"][TRAIN], "emg": data["emg"][TRAIN][..., :2]}
    gpfa = GPFA(latents={"spikes+emg": 4}, bin_width=BIN_WIDTH).fit(few)
    assert np.isfinite(gpfa.loading_).all() and np.isfinite(gpfa.log_marginal_likelihood(few))


REFUSED = {
    "an unknown modality in a group": (
        {"latents": {"spikes+hand": 1}}, lambda d: d, "there are no trials of 'hand', only of spikes, emg"),
    "a modality without latents": ({"latents": {"spikes": 1}}, lambda d: d, "no latent drives 'emg'"),
    "other trials": (
        {"latents": GROUPS}, lambda d: d | {"emg": d["emg"][:5]}, "emg has 5 trials of 50 bins"),
    "an array": ({"latents": GROUPS}, lambda d: d["emg"], "trials must be a mapping"),
    "roots of what is negative": (
        {"latents": GROUPS, "likelihood": {"emg": "gaussian-sqrt"}}, lambda d: d, "emg has negative values"),
    "an unknown likelihood": (
        {"latents": GROUPS, "likelihood": {"emg": "poisson"}}, lambda d: d, "unknown likelihood 'poisson'"),
    "no latents": ({"latents": {"spikes+emg": 0}}, lambda d: d, "must be a whole number, at least 1, not 0"),
    "no name": ({"latents": {"emg+": 1}}, lambda d: d, "'emg\\+' is no group of modalities"),
    "a group twice": ({"latents": {"spikes+emg": 1, "emg+spikes": 1}}, lambda d: d, "name one group twice"),
    "delays of one array": ({"delays": True}, lambda d: d["emg"], "delays need latents of groups"),
    "relevance of groups": (
        {"latents": GROUPS, "automatic_relevance": 0.5}, lambda d: d, "automatic_relevance cannot be used"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refusals(case: str) -> None:
    options, change, sentence = REFUSED[case]
    with pytest.raises(ValueError, match=sentence):
        GPFA(bin_width=BIN_WIDTH, **options).fit(change(chosen(simulate(0)[1], TEST)))


def test_modalities_without_groups_are_refused() -> None:
    with pytest.raises(ValueError, match="need latents by group"):
        GPFA(2, BIN_WIDTH).fit(chosen(simulate(0)[1], TEST))


def test_unknown_channels_are_refused(together) -> None:
    gpfa, _, data = together
    with pytest.raises(ValueError, match="emg has 3 channels, the fit has 8"):
        gpfa.predict({"emg": data["emg"][..., :3]})
    with pytest.raises(ValueError, match="emg is given, but there are no trials of it"):
        gpfa.predict({"spikes": data["spikes"]}, given=("spikes", "emg"))
    with pytest.raises(ValueError, match="given must be a tuple"):
        gpfa.predict(data, given="spikes")
    with pytest.raises(ValueError, match="has no modalities to be given"):
        GPFA(1, BIN_WIDTH).fit(data["emg"][:8]).predict(data["emg"], given=("emg",))
    with pytest.raises(ValueError, match="nothing is given"):
        gpfa.predict(data, given=())
    with pytest.raises(ValueError, match="does not know 'hand'"):
        gpfa.predict(data, given=("hand",))


def test_same_data_same_bytes(together) -> None:
    gpfa, _, data = together
    again = GPFA(latents=GROUPS, bin_width=BIN_WIDTH).fit(chosen(data, TRAIN))
    for name, value in gpfa.state().items():
        np.testing.assert_array_equal(again.state()[name], value)
    assert torch.get_default_dtype() == torch.float32  # fits leave it alone


def test_far_beyond_the_data_delayed_predictions_are_still_those_of_the_joint_gaussian(monkeypatch) -> None:
    """A late modality is informed of longer than an early one, with short time scales beyond their reach."""
    monkeypatch.setattr(f"{__name__}.BINS", 40)
    monkeypatch.setattr(f"{__name__}.TIME_SCALE", np.full(4, 1.0))
    delay = np.array([[0.0, 0, 0, 0], [10.0, -10.0, 0, 0]])
    y = np.random.default_rng(5).normal(size=(1, 40, 7)) + 1
    y[:, 20:] = np.nan
    gpfa = model(delay)
    found = gpfa.predict({"a": y[..., :4], "b": y[..., 4:]})
    mean, variance = Dense(delay, y[0]).prediction()
    for name, channels in (("a", slice(4)), ("b", slice(4, 7))):
        np.testing.assert_allclose(found[name].mean[0], mean[:, channels], atol=1e-5)
        np.testing.assert_allclose(found[name].variance[0], variance[:, channels], atol=1e-5)


def test_a_delay_of_which_nothing_is_known_stays_zero() -> None:
    _, data = simulate(1, lag=LAG)
    apart = {name: value[TRAIN].copy() for name, value in data.items()}
    apart["spikes"][::2], apart["emg"][1::2] = np.nan, np.nan
    gpfa = GPFA(latents=GROUPS, bin_width=BIN_WIDTH, delays=True).fit(apart)
    assert (gpfa.delay_[1, :2] == 0).all()


def test_damaged_states_are_refused(together) -> None:
    state = together[0].state()
    damages = {
        "loading does not match": {"loading": np.ones_like(state["loading"])},
        "delay does not match": {"delay": np.zeros((1, 4))},
        "noise variances must be positive": {"noise_variance": -state["noise_variance"]},
        "time scales must be positive": {"time_scale": 0 * state["time_scale"]},
    }
    for sentence, damage in damages.items():
        with pytest.raises(ValueError, match=sentence):
            GPFA.from_state(state | damage)
