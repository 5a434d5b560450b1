"""Images: the simulation of turning digits, and the networks that read and draw them."""

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.signal import correlate2d
from torch import nn

from colatent.config.models.mmgpvae import DECODERS, MMGPVAESettings
from colatent.models.mmgpvae.decoders.convolutional import ConvolutionalDecoder
from colatent.models.mmgpvae.encoders import ImageProjection
from colatent.models.mmgpvae.layers import PATCH
from colatent.models.mmgpvae.modality import ModalityNetwork
from colatent.models.mmgpvae.options import ModalityOptions
from colatent.simulate.digits import SIDE, TURN, Gaps, draw_digits, simulate_digits

CONVOLUTIONAL = DECODERS["convolutional"]


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_latents_have_the_variances_and_correlation_of_the_paper() -> None:
    z = simulate_digits(0, n_trials=300, n_bins=20, n_units=3).latents
    zoom = stats.foldnorm(1 / np.sqrt(0.8), scale=np.sqrt(0.8))  # |z_b|
    np.testing.assert_allclose(z.mean(axis=(0, 1)), [0, 0, zoom.mean()], atol=0.1)
    np.testing.assert_allclose(z.var(axis=(0, 1)), [0.3, 0.5, zoom.var()], rtol=0.1)
    lagged = z[:, :10, :2] * z[:, 10:, :2]
    np.testing.assert_allclose(lagged.mean(axis=(0, 1)) / [0.3, 0.5], np.exp(-0.5), atol=0.1)


def test_counts_are_poisson_of_the_expected_rate() -> None:
    simulation = simulate_digits(1, n_trials=60, n_bins=40, n_units=20)
    rate, count = simulation.expected["spikes"], simulation.values["spikes"]
    assert (((count - rate) ** 2) / rate).mean() == pytest.approx(1.0, abs=0.03)


def mean_digit(turn: float, zoom: float) -> np.ndarray:
    return draw_digits(np.random.default_rng(0), np.full((1, 150), turn), np.full((1, 150), zoom))[0].mean(0)


def test_digits_turn_and_zoom() -> None:
    upright, turned = mean_digit(0.0, 1.0), mean_digit(np.pi / 2 / TURN, 1.0)
    assert np.corrcoef(np.rot90(upright, -1).ravel(), turned.ravel())[0, 1] > 0.99
    assert np.corrcoef(upright.ravel(), turned.ravel())[0, 1] < 0.8
    np.testing.assert_allclose(mean_digit(0.3, -1.2), mean_digit(0.3, 1.2))  # only |z_b| is seen
    assert mean_digit(0.0, 0.5).sum() == pytest.approx(upright.sum() / 4, rel=0.05)


def test_gaps_are_where_they_were_asked_for() -> None:
    simulation = simulate_digits(2, n_trials=60, n_bins=30, n_units=5, gaps=Gaps(0.2, 0.25, 0.5))
    recorded = np.isfinite(simulation.values["spikes"]).all(axis=2)
    length = recorded.sum(axis=1)
    assert length.min() >= 15 and length.max() <= 30 and len(set(length)) > 5
    seen = np.isfinite(simulation.values["images"]).mean(axis=2)
    assert not seen[~recorded].any()
    assert set(np.round(seen[recorded], 3)) == {0.0, 0.75, 1.0}
    assert (seen[recorded] == 0).mean() == pytest.approx(0.2, abs=0.03)
    assert (seen[recorded] == 0.75).mean() == pytest.approx(0.8 * 0.25, abs=0.03)


@pytest.mark.parametrize("shape", [(8, 12), (9, 10)])
def test_projection_is_a_convolution_over_patches(shape: tuple[int, int]) -> None:
    projection = ImageProjection(shape, 3, generator()).double()
    projection.readout = nn.Identity()
    images = torch.from_numpy(np.random.default_rng(0).standard_normal((2, 5, shape[0] * shape[1])))
    rows, columns = (-(-n // PATCH) for n in shape)
    padded = np.zeros((rows * PATCH, columns * PATCH))
    padded[: shape[0], : shape[1]] = images[1, 3].reshape(shape)
    # SciPy, feature by feature: each of the 16 input features is one pixel of every patch
    inputs = [padded[i::PATCH, j::PATCH] for i in range(PATCH) for j in range(PATCH)]
    weight, bias = (x.detach().numpy() for x in projection.convolution.parameters())
    found = np.array(
        [
            sum(correlate2d(x, w, mode="same") for x, w in zip(inputs, kernels, strict=True)) + b
            for kernels, b in zip(weight, bias, strict=True)
        ]
    )
    expected = found / (1 + np.exp(-found))
    np.testing.assert_allclose(projection(images)[1, 3].detach(), expected.ravel(), atol=1e-10)


def test_a_convolutional_decoder_draws_images_of_any_size() -> None:
    options = ModalityOptions(90, (0, 1), "gaussian", CONVOLUTIONAL, (9, 10), 1, 16, 0.0)
    decoder = ConvolutionalDecoder(options, generator())
    latents = torch.randn(3, 4, 5, 2, generator=generator())
    drawn = decoder(latents)
    assert drawn.shape == (3, 4, 5, 90)
    torch.testing.assert_close(decoder(latents[1, 2]), drawn[1, 2], rtol=1e-4, atol=1e-5)
    assert drawn.std(dim=(0, 1, 2)).min() > 0.01  # every pixel depends on the latents


def test_pixels_share_one_scale() -> None:
    values = np.random.default_rng(0).standard_normal((20, 30, 16)) * np.linspace(0.1, 2, 16) + 3.0
    options = ModalityOptions(16, (0,), "gaussian", CONVOLUTIONAL, (4, 4), 9, 8, 0.0)
    network = ModalityNetwork(options, generator())
    network.calibrate(values, np.ones(values.shape, dtype=bool))
    scale = np.sqrt(values.reshape(-1, 16).var(axis=0).mean())
    np.testing.assert_allclose(network.scale.numpy(), scale)
    np.testing.assert_allclose(network.offset.numpy(), values.mean(axis=(0, 1)))


def test_a_convolutional_decoder_needs_the_shape() -> None:
    decoder = {"images": "convolutional"}
    with pytest.raises(ValueError, match=r"is convolutional: give image_shape\.images"):
        MMGPVAESettings(kind="mm-gpvae", latents={"images": 1}, decoder=decoder)
    assert simulate_digits(0, 1, 2, 1).values["images"].shape[2] == SIDE**2
