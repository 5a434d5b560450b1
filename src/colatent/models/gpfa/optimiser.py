"""L-BFGS-B over named tuples of tensors."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import scipy.optimize
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from colatent.models.gpfa.options import FitOptions

P = TypeVar("P", bound=tuple[Tensor, ...])


def minimize(
    function: Callable[[P], tuple[float, P]],
    start: P,
    bounds: Sequence[tuple[ArrayLike, ArrayLike]],
    limits: FitOptions,
    report: Callable[[float], None],
) -> tuple[P, bool]:
    """Return the parameters that minimise ``function``, and whether the search converged.

    Args:
        function: returns a value and its gradient.
        start: initial parameters.
        bounds: lower and upper bounds of each parameter, broadcastable to it; where they are equal, the
            parameter keeps its initial value.
        limits: iterations and convergence.
        report: called with the value after each iteration.
    """
    sizes = [p.numel() for p in start]
    lower, upper = (
        np.concatenate([np.broadcast_to(end, p.shape).ravel() for end, p in zip(side, start, strict=True)])
        for side in zip(*bounds, strict=True)
    )
    free = lower < upper
    everything = torch.cat([p.reshape(-1) for p in start]).cpu().numpy()

    def pack(parameters: tuple[Tensor, ...]) -> np.ndarray:
        return torch.cat([p.reshape(-1) for p in parameters]).cpu().numpy()[free]

    def unpack(x: np.ndarray) -> P:
        whole = everything.copy()
        whole[free] = x
        pieces = torch.from_numpy(whole).to(start[0].device).split(sizes)
        return type(start)(*(piece.view(p.shape) for piece, p in zip(pieces, start, strict=True)))

    def objective(x: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = function(unpack(x))
        return value, pack(gradient)

    def callback(intermediate_result: Any) -> None:
        report(float(intermediate_result.fun))

    result = scipy.optimize.minimize(
        objective,
        pack(start),
        jac=True,
        method="L-BFGS-B",
        bounds=scipy.optimize.Bounds(lower[free], upper[free]),
        callback=callback,
        options={"maxiter": limits.max_iterations, "ftol": limits.convergence, "gtol": 1e-9, "maxcor": 20},
    )
    return unpack(result.x), bool(result.success)
