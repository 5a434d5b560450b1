"""Baseline: a multi-layer perceptron on lagged predictors."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from colatent.config.models import MLPLagsSettings
from colatent.data.splits import inner_folds
from colatent.data.trials import Layout
from colatent.models.adam import AdamW, Rated
from colatent.models.base import Array
from colatent.models.baselines.early_stopping import Descent, train_to_best
from colatent.models.baselines.lag_regression import LagRegression

INNER_FOLDS = 10


class MLPLags(LagRegression):
    """A multi-layer perceptron with dropout.

    The weights of the epoch with the least loss on a held-out tenth of the training trials are kept; the
    residual s.d. of continuous targets comes from these trials too. If no trials can be held out, all are
    used for both.
    """

    def __init__(self, settings: MLPLagsSettings, layout: Layout, device: str = "cpu") -> None:
        super().__init__(settings, layout)
        self.hidden, self.dropout, self.epochs = settings.hidden, settings.dropout, settings.epochs

    def _network(self, n_in: int, n_out: int) -> nn.Sequential:
        layers: list[nn.Module] = []
        for width in self.hidden:
            layers += [nn.Linear(n_in, width), nn.ReLU(), nn.Dropout(self.dropout)]
            n_in = width
        return nn.Sequential(*layers, nn.Linear(n_in, n_out))

    def _regress(
        self, x: Array, y: Array, observed: NDArray[np.bool_], counts: bool, seed: int
    ) -> dict[str, NDArray[Any]]:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = self._network(x.shape[-1], y.shape[-1])
            everything = np.arange(len(x))
            folds = inner_folds(len(x), INNER_FOLDS, self.layout.time_locked, seed) or [(everything,) * 2]
            inner, outer = (
                [torch.tensor(a[part], dtype=torch.float32).flatten(0, 1) for a in (x, y, observed)]
                for part in folds[seed % len(folds)]
            )
            if counts:  # start at the mean rates
                rate = (inner[1] * inner[2]).sum(0) / inner[2].sum(0).clamp_min(1)
                network[-1].bias.data = rate.clamp_min(1e-4).log()
            self._descend(network, inner, outer, counts)
        network.eval()
        with torch.no_grad():
            error = ((network(outer[0]) - outer[1]) ** 2 * outer[2]).sum(0) / outer[2].sum(0).clamp_min(1)
        state = {k: v.numpy() for k, v in network.state_dict().items()}
        return state | {"residual": error.sqrt().double().numpy()}

    def _descend(
        self, network: nn.Sequential, inner: list[torch.Tensor], outer: list[torch.Tensor], counts: bool
    ) -> None:
        loss = nn.PoissonNLLLoss(reduction="none") if counts else nn.MSELoss(reduction="none")

        def mean_loss(x: torch.Tensor, y: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
            return (loss(network(x), y) * seen).sum() / seen.sum().clamp_min(1)

        optimizer = AdamW([Rated(list(network.parameters()), rate=1e-3, decay=1e-3)])
        self.history += train_to_best(
            network,
            optimizer,
            lambda batch: mean_loss(*(t[batch] for t in inner)),
            lambda: float(mean_loss(*outer)),
            Descent(len(inner[0]), 256, self.epochs, patience=self.epochs),
        )

    def _shapes(self, n_predictors: int, n_channels: int) -> dict[str, tuple[int, ...]]:
        with torch.device("meta"):  # shapes without drawing weights
            weights = self._network(n_predictors, n_channels).state_dict()
        return {name: tuple(w.shape) for name, w in weights.items()} | {"residual": (n_channels,)}

    def _apply(self, fitted: dict[str, NDArray[Any]], x: Array, counts: bool) -> Array:
        network = self._network(x.shape[-1], len(fitted["residual"]))
        network.load_state_dict({k: torch.as_tensor(fitted[k]) for k in network.state_dict()})
        network.eval()
        with torch.no_grad():
            output = network(torch.tensor(x, dtype=torch.float32)).double().numpy()
        return np.exp(output) if counts else output
