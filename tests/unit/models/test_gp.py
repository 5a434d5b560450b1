"""The Fourier representation against covariances written down bin by bin."""

import numpy as np
import pytest
import torch

from colatent.models import gp

BINS = 40
TIME_SCALE = torch.tensor([2.5, 7.0], dtype=torch.float64)


def covariance(kernel: str, n_bins: int, time_scale: float) -> np.ndarray:
    r = np.abs(np.subtract.outer(np.arange(n_bins), np.arange(n_bins))) / time_scale
    if kernel == "squared-exponential":
        return np.exp(-(r**2) / 2)
    if kernel == "matern-3/2":
        return (1 + np.sqrt(3) * r) * np.exp(-np.sqrt(3) * r)
    return (1 + np.sqrt(5) * r + 5 * r**2 / 3) * np.exp(-np.sqrt(5) * r)


@pytest.mark.parametrize("kernel", gp.KERNELS)
def test_basis_and_variances_give_the_kernels_covariance(kernel: str) -> None:
    n_circle = gp.circle_bins(BINS, float(TIME_SCALE.max()), kernel, tolerance=1e-9)
    basis = gp.fourier_basis(n_circle, BINS)
    for variances, time_scale in zip(
        gp.coefficient_variances(kernel, TIME_SCALE, n_circle).numpy(), TIME_SCALE.tolist(), strict=True
    ):
        np.testing.assert_allclose(
            basis.T @ (variances[:, None] * basis), covariance(kernel, BINS, time_scale), atol=2e-8
        )


def test_basis_is_orthonormal_on_the_circle_and_refuses_even_circles() -> None:
    basis = gp.fourier_basis(45, 45)
    np.testing.assert_allclose(basis @ basis.T, np.eye(45), atol=1e-13)
    np.testing.assert_array_equal(gp.fourier_basis(45, np.array([3, 41]), 7), basis[:7, [3, 41]])
    with pytest.raises(ValueError, match="odd"):
        gp.fourier_basis(46, 10)


@pytest.mark.parametrize("kernel", gp.KERNELS)
def test_variances_are_differentiable_in_the_time_scale(kernel: str) -> None:
    assert torch.autograd.gradcheck(
        lambda tau: gp.coefficient_variances(kernel, tau, 75), (TIME_SCALE.clone().requires_grad_(),)
    )


def test_reach_is_where_the_correlation_falls_to_the_tolerance() -> None:
    for kernel in gp.KERNELS:
        lag = torch.tensor([gp.reach(kernel, 1e-4) - 0.02, gp.reach(kernel, 1e-4)], dtype=torch.float64)
        before, at = gp.correlation(kernel, lag, torch.ones(1, dtype=torch.float64))
        assert at < 1e-4 < before


def test_number_of_coefficients_is_odd_and_keeps_what_matters() -> None:
    variances = np.array([[1.0, 0.5, 0.5, 1e-3, 1e-3, 1e-7, 1e-7]])
    assert gp.n_coefficients(variances, 1e-5) == 5
    assert gp.n_coefficients(torch.as_tensor(variances), 1e-2) == 3


def test_unknown_kernel_is_named() -> None:
    with pytest.raises(ValueError, match="periodic"):
        gp.correlation("periodic", torch.ones(1), torch.ones(1))
