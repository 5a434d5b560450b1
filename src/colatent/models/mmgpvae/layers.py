"""Layers of encoders and decoders.

Weights are drawn from the caller's `torch.Generator`, never from PyTorch's global one.
"""

import math
from typing import TypeVar

import torch
from torch import Tensor, nn

# Networks run in single precision, which halves their cost; sites and posteriors are float64.
DTYPE = torch.float32
Layer = TypeVar("Layer", nn.Linear, nn.Conv2d)
# Images are convolved as patches of 4 x 4 pixels with 16 features each: on a CPU this costs a fifth of
# strided convolutions over single pixels.
PATCH = 4


def dense(n_in: int, n_out: int, generator: torch.Generator, gain: float = 1.0) -> nn.Linear:
    """Return a linear layer with N(0, gain^2 / n_in) weights and zero bias."""
    return _draw(_Linear(n_in, n_out, dtype=DTYPE), n_in, generator, gain)


def recurrent(size: int, generator: torch.Generator) -> nn.GRU:
    """Return gated recurrent units over the bins, half of them in each direction (Cho et al. 2014)."""
    layer = _GRU(size, size // 2, batch_first=True, bidirectional=True, dtype=DTYPE)
    bound = (size // 2) ** -0.5
    with torch.no_grad():
        for weight in layer.parameters():
            weight.uniform_(-bound, bound, generator=generator)
    return layer


def convolution(n_in: int, n_out: int, generator: torch.Generator) -> nn.Conv2d:
    """Return a 3 x 3 convolution that preserves the image size."""
    return _draw(_Convolution(n_in, n_out, 3, padding=1, dtype=DTYPE), 9 * n_in, generator)


class _GRU(nn.GRU):
    def reset_parameters(self) -> None: ...


class _Linear(nn.Linear):
    def reset_parameters(self) -> None: ...


class _Convolution(nn.Conv2d):
    def reset_parameters(self) -> None: ...


def _draw(layer: Layer, n_in: int, generator: torch.Generator, gain: float = 1.0) -> Layer:
    with torch.no_grad():
        layer.weight.normal_(0.0, gain / math.sqrt(n_in), generator=generator)
        assert layer.bias is not None
        layer.bias.zero_()
    return layer


def n_patches(shape: tuple[int, int]) -> tuple[int, int]:
    """Return the number of rows and columns of `PATCH` x `PATCH` patches that cover an image."""
    return -(-shape[0] // PATCH), -(-shape[1] // PATCH)


class Dropout(nn.Module):
    """Zero a random ``share`` of the units in training; unlike PyTorch's, independent of global state."""

    def __init__(self, share: float, generator: torch.Generator) -> None:
        super().__init__()
        self.share, self.generator = share, generator

    def forward(self, units: Tensor) -> Tensor:
        if not self.training or self.share == 0:
            return units
        kept = torch.rand(units.shape, generator=self.generator) >= self.share
        return units * kept.to(units) / (1 - self.share)
