"""AdamW (Loshchilov & Hutter 2019); `torch.optim` loads a compiler, which takes longer than a small fit."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

FIRST, SECOND, EPSILON = 0.9, 0.999, 1e-8  # decays of the moments, and what keeps steps finite


def cosine(share: float) -> float:
    """Return the learning rate after a share of the epochs, relative to the first's: half a cosine."""
    return 0.5 * (1 + math.cos(math.pi * share))


class Rated(NamedTuple):
    """Parameters with their learning rate and decoupled weight decay."""

    parameters: Sequence[Tensor]
    rate: float
    decay: float = 0.0


class AdamW:
    """Adam with decoupled weight decay; parameters without a gradient stay as they are.

    Args:
        groups: the parameters, each in one group.
    """

    def __init__(self, groups: Sequence[Rated]) -> None:
        self.groups = [group for group in groups if len(group.parameters)]
        parameters = [p for group in self.groups for p in group.parameters]
        self.n_steps = [0] * len(parameters)
        self.means, self.squares = ([torch.zeros_like(p) for p in parameters] for _ in range(2))

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for group in self.groups:
            for parameter in group.parameters:
                parameter.grad = None

    @torch.no_grad()
    def step(self, factor: float) -> None:
        """Make a step at ``factor`` times the learning rates."""
        at = 0
        for group in self.groups:
            rate, own = factor * group.rate, range(at, at + len(group.parameters))
            at = own.stop
            moved = [(p, p.grad, i) for p, i in zip(group.parameters, own, strict=True) if p.grad is not None]
            if not moved:
                continue
            for *_, i in moved:
                self.n_steps[i] += 1
            first, second = ([1 - d ** self.n_steps[i] for *_, i in moved] for d in (FIRST, SECOND))
            parameters, gradients = [p for p, *_ in moved], [g for _, g, _ in moved]
            means, squares = ([moment[i] for *_, i in moved] for moment in (self.means, self.squares))
            torch._foreach_mul_(parameters, 1 - rate * group.decay)
            torch._foreach_lerp_(means, gradients, 1 - FIRST)
            torch._foreach_mul_(squares, SECOND)
            torch._foreach_addcmul_(squares, gradients, gradients, 1 - SECOND)
            spread = torch._foreach_sqrt(squares)
            torch._foreach_div_(spread, [s**0.5 for s in second])
            torch._foreach_add_(spread, EPSILON)
            torch._foreach_addcdiv_(parameters, means, spread, [-rate / f for f in first])

    def state_dict(self) -> dict[str, Any]:
        return {"n_steps": self.n_steps, "means": self.means, "squares": self.squares}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore `state_dict`.

        Raises:
            ValueError, RuntimeError: it is that of other parameters.
        """
        for own, saved in ((self.means, state["means"]), (self.squares, state["squares"])):
            for a, b in zip(own, saved, strict=True):
                a.copy_(b)
        self.n_steps = list(state["n_steps"])
