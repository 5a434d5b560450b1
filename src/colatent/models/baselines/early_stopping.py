"""Training of a network that keeps the weights of its best epoch."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from colatent.models.adam import AdamW, cosine

PROGRESS_EVERY = 10  # epochs


class Descent(NamedTuple):
    """How a network is trained.

    Attributes:
        n: number of training rows or trials.
        batch: of these in a step.
        epochs: at most; the learning rate falls over them by half a cosine.
        patience: epochs without a better loss after which training ends.
        longest: norm to which longer gradients are shortened.
    """

    n: int
    batch: int
    epochs: int
    patience: int
    longest: float | None = None


def train_to_best(
    network: nn.Module,
    optimizer: AdamW,
    loss: Callable[[Tensor], Tensor],
    validation: Callable[[], float],
    descent: Descent,
    progress: Callable[[str], None] = lambda _: None,
) -> list[dict[str, float]]:
    """Train in place, load the weights of the epoch with the least validation loss, and return all losses.

    Args:
        loss: of a batch, given its indices.
        validation: loss on held-out data; called without gradients after each epoch.
        progress: receives a line every few epochs.
    """
    history: list[dict[str, float]] = []
    best, best_weights, best_epoch = np.inf, network.state_dict(), 0
    for epoch in range(descent.epochs):
        network.train()
        for batch in torch.randperm(descent.n).split(descent.batch):
            optimizer.zero_grad()
            loss(batch).backward()
            if descent.longest is not None:
                nn.utils.clip_grad_norm_(network.parameters(), descent.longest)
            optimizer.step(cosine(epoch / descent.epochs))
        network.eval()
        with torch.no_grad():
            found = validation()
        history.append({"epoch": float(epoch), "validation_loss": found})
        if found < best:
            best, best_epoch = found, epoch
            best_weights = {name: weight.clone() for name, weight in network.state_dict().items()}
        if (epoch + 1) % PROGRESS_EVERY == 0:
            progress(f"epoch {epoch + 1}/{descent.epochs}: held-out loss {found:.4f}")
        if epoch - best_epoch >= descent.patience:
            break
    network.load_state_dict(best_weights)
    return history
