"""Recurrent units by a scan: against the recursion, and what each bin sees."""

import pytest
import torch

from colatent.models.mmgpvae.layers import Recurrent, scan


@pytest.mark.parametrize("n_bins", [1, 2, 7, 16, 33])
def test_a_scan_is_the_recursion(n_bins: int) -> None:
    generator = torch.Generator().manual_seed(0)
    factor, added = (torch.rand(3, n_bins, 4, generator=generator, dtype=torch.float64) for _ in "ab")
    expected, h = [], torch.zeros(3, 4, dtype=torch.float64)
    for t in range(n_bins):
        h = factor[:, t] * h + added[:, t]
        expected.append(h)
    torch.testing.assert_close(scan(factor, added), torch.stack(expected, dim=1))
    inputs = factor.requires_grad_(), added.requires_grad_()
    torch.autograd.gradcheck(scan, inputs)


def test_units_are_those_of_the_equations_in_both_directions() -> None:
    layer = Recurrent(4, torch.Generator().manual_seed(1))
    x = torch.randn(2, 9, 4, generator=torch.Generator().manual_seed(2))
    for weights in layer.layers:
        logit, candidate = weights(x).chunk(2, dim=-1)
        gate, h = logit.sigmoid(), torch.zeros(2, 4)
        units = torch.empty_like(x)
        for own, bins in ((slice(0, 2), range(9)), (slice(2, 4), reversed(range(9)))):
            for t in bins:
                h[:, own] = (1 - gate[:, t, own]) * h[:, own] + gate[:, t, own] * candidate[:, t, own]
                units[:, t, own] = h[:, own]
        x_last, x = units, torch.nn.functional.silu(units)
    x = torch.randn(2, 9, 4, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(layer(x), x_last)


def test_each_bin_sees_all_others() -> None:
    layer = Recurrent(8, torch.Generator().manual_seed(1))
    x = torch.randn(1, 12, 8, requires_grad=True)
    for t in (0, 5, 11):
        (slope,) = torch.autograd.grad(layer(x)[0, t].sum(), x)
        assert (slope.abs().sum(dim=-1) > 0).all()
