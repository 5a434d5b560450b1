"""Private latents freed of shared ones: expectations stay as they are, the prior's independence is back."""

import numpy as np
import pytest
import torch
from support import fit_vae, vae_options

from colatent.data.trials import Trials
from colatent.jobs.checkpoint import Checkpoint
from colatent.models import gp
from colatent.models.mmgpvae.model import MMGPVAE
from colatent.models.mmgpvae.network import MultiModalNetwork
from colatent.models.mmgpvae.refinement import last_steps
from colatent.models.mmgpvae.refinement.separation import separable, separate

TRIALS, BINS, BIN_WIDTH, TIME_SCALE = 60, 40, 0.02, 6.0
BOTH = ("a", "b")


def smooth(rng: np.random.Generator) -> np.ndarray:
    t = torch.arange(BINS).double()
    prior = gp.correlation("squared-exponential", t[:, None] - t, torch.tensor(TIME_SCALE)).numpy()
    return rng.multivariate_normal(np.zeros(BINS), prior, size=TRIALS)


def simulate(seed: int) -> tuple[Trials, np.ndarray]:
    """Two modalities on a shared latent; one of them on a private latent of nearly the same loading."""
    rng, weights = np.random.default_rng(seed), np.random.default_rng(5)
    z = np.stack([smooth(rng), smooth(rng)], axis=-1)
    common, own = weights.normal(size=(2, 20))
    a = z[..., :1] * (common + 0.6 * own) + z[..., 1:] * (common - 0.6 * own)
    b = z[..., :1] * weights.normal(size=6)
    values = {"a": a + 2.0 * rng.standard_normal(a.shape), "b": b + 2.0 * rng.standard_normal(b.shape)}
    trials = Trials(
        values=values,
        observed={name: np.ones(v.shape, dtype=bool) for name, v in values.items()},
        channels={name: tuple(map(str, range(v.shape[2]))) for name, v in values.items()},
        kinds=dict.fromkeys(values, "continuous"),
        bin_width=BIN_WIDTH,
    )
    return trials, z


def fit(checkpoint: Checkpoint | None = None, epochs: int = 60) -> MMGPVAE:
    return fit_vae(
        simulate(0)[0],
        latents={"a+b": 1, "a": 1},
        checkpoint=checkpoint,
        decoder={"a": "linear", "b": "linear"},
        time_scale=TIME_SCALE * BIN_WIDTH,
        epochs=epochs,
        batch_size=8,
        hidden=16,
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """Where the first fit leaves its training, which is the same for both."""
    return Checkpoint(tmp_path_factory.mktemp("trained"), {})


@pytest.fixture(scope="module")
def mixed(trained: Checkpoint) -> MMGPVAE:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(last_steps, "separate_latents", lambda *_: None)
        return fit(trained)


@pytest.fixture(scope="module")
def separated(trained: Checkpoint) -> MMGPVAE:
    return fit(trained)


def correlation(fitted: MMGPVAE, trials: Trials) -> float:
    shared, private = np.moveaxis(fitted.latents(trials, BOTH)[0], -1, 0)
    return float(np.corrcoef(shared.ravel(), private.ravel())[0, 1])


def r2(fitted: MMGPVAE, latent: int) -> float:
    """Of a true latent in test trials, by a slope from training trials."""
    (train, truth), (test, test_truth) = simulate(0), simulate(1)
    x, y = (fitted.latents(part, BOTH)[0][..., latent].ravel() for part in (train, test))
    error = test_truth[..., latent].ravel() - np.polyval(np.polyfit(x, truth[..., latent].ravel(), 1), y)
    return 1 - error.var() / test_truth[..., latent].var()


def test_the_private_latent_no_longer_holds_the_shared_one(mixed: MMGPVAE, separated: MMGPVAE) -> None:
    train = simulate(0)[0]
    assert abs(correlation(mixed, train)) > 0.15
    assert abs(correlation(separated, train)) < 0.05
    assert r2(separated, 1) > r2(mixed, 1) + 0.01
    assert r2(separated, 0) > r2(mixed, 0) - 0.01


def test_all_expectations_stay_as_they_were() -> None:
    fitted = fit(epochs=5)
    network = fitted.network
    latents = torch.from_numpy(np.random.default_rng(2).normal(size=(3, BINS, 2)))
    with torch.no_grad():
        before = [network.modality(n).decoder(latents[..., network.modality(n).latents]) for n in BOTH]
    mean, variance = torch.randn(50, BINS, 2, generator=torch.Generator().manual_seed(0)), 0.3
    mean = mean.double() @ torch.tensor([[1.0, 0.4], [0.0, 1.0]], dtype=torch.float64)
    marginals = type(fitted.posterior(simulate(0)[0], BOTH).marginals)(mean, torch.full_like(mean, variance))
    moments = mean.reshape(-1, 2).T @ mean.reshape(-1, 2) / (50 * BINS) + variance * torch.eye(2)
    slope = float(moments[0, 1] / moments[0, 0])  # of latent 1, the private one, on latent 0
    sd = network.prior_sd().detach().clone()
    separate(network, marginals, separable(network))
    freed = latents.clone()
    freed[..., 1] -= slope * latents[..., 0]
    with torch.no_grad():
        after = [network.modality(n).decoder(freed[..., network.modality(n).latents]) for n in BOTH]
    for old, new in zip(before, after, strict=True):
        torch.testing.assert_close(new, old, rtol=1e-4, atol=1e-5)
    rest = moments[1, 1] - slope * moments[0, 1]
    torch.testing.assert_close(
        network.prior_sd().detach() / sd,
        torch.sqrt(torch.tensor([1.0, rest / moments[1, 1]], dtype=torch.float64)),
    )


def test_only_latents_of_linear_decoders_and_fewer_modalities_are_moved() -> None:
    def found(decoder: str, **cross_weight: float) -> dict[int, list[int]]:
        changed = {"decoder": {"a": decoder, "b": "linear"}, "cross_weight": cross_weight}
        options = vae_options(simulate(0)[0].layout, latents={"a+b": 1, "a": 1}, **changed)
        return separable(MultiModalNetwork(options, torch.Generator()))

    assert found("linear") == found("linear", b=1.0, a=0.0) == {1: [0]}
    assert found("linear", a=1.0) == found("mlp") == {}
