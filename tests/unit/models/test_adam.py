"""The optimiser against PyTorch's."""

import pytest
import torch

from colatent.models.adam import AdamW, Rated


def parameters() -> list[torch.nn.Parameter]:
    draw = torch.Generator().manual_seed(0)
    kinds = (torch.float32, torch.float64, torch.float64)
    return [torch.nn.Parameter(torch.randn(3, 4, generator=draw, dtype=kind)) for kind in kinds]


def test_steps_are_those_of_pytorch() -> None:
    ours, theirs = parameters(), parameters()
    own = AdamW([Rated(ours[:2], 0.01, 0.3), Rated(ours[2:], 0.1), Rated([], 1.0)])
    groups = [{"params": theirs[:2], "lr": 0.01, "weight_decay": 0.3}, {"params": theirs[2:], "lr": 0.1}]
    reference = torch.optim.AdamW(groups, weight_decay=0.0)
    draw = torch.Generator().manual_seed(1)
    for step in range(20):
        factor = 1 - step / 40
        for k, (a, b) in enumerate(zip(ours, theirs, strict=True)):
            a.grad = torch.randn(3, 4, generator=draw, dtype=a.dtype)
            b.grad = a.grad.clone()
            if k == 1 and step < 5:  # it is trained later
                a.grad = b.grad = None
        own.step(factor)
        for group, rate in zip(reference.param_groups, (0.01, 0.1), strict=True):
            group["lr"] = factor * rate
        reference.step()
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)


def test_a_parameter_without_a_gradient_stays_and_one_goes_on_from_its_state() -> None:
    ours, other = parameters(), parameters()
    own, resumed = (AdamW([Rated(p, 0.01, 0.3)]) for p in (ours, other))
    for parameter in ours[:2]:
        parameter.grad = torch.ones_like(parameter)
    before = ours[2].detach().clone()
    own.step(1.0)
    assert torch.equal(ours[2], before) and not torch.equal(ours[0], parameters()[0])
    resumed.load_state_dict(own.state_dict())
    with torch.no_grad():
        for a, b in zip(ours, other, strict=True):
            b.copy_(a)
    for optimizer, these in ((own, ours), (resumed, other)):
        optimizer.zero_grad()
        assert all(p.grad is None for p in these)
        for parameter in these:
            parameter.grad = 2 * torch.ones_like(parameter)
        optimizer.step(0.5)
    assert all(torch.equal(a, b) for a, b in zip(ours, other, strict=True))
    with pytest.raises(ValueError, match="longer"):
        AdamW([Rated(ours[:1], 0.01)]).load_state_dict(own.state_dict())
