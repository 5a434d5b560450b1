"""Where training starts: at the linear model, or at random weights, of several the most promising."""

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from colatent.data.trials import Trials
from colatent.models.base import FitRun
from colatent.models.mmgpvae.linear_start import start_from_linear_model
from colatent.models.mmgpvae.network import Data, MultiModalNetwork
from colatent.models.mmgpvae.objective import Objective, make_optimizer
from colatent.models.mmgpvae.options import Options
from colatent.models.mmgpvae.training import RunPart, Trainer, part_of_run

# Share of the epochs for which each start is trained, and for which `first_cross_weight` applies. By then it
# is clear which starts end in a worse optimum: among 72 starts on six simulations of 40 trials, one in seven
# did; the most promising of three was one of these in 1 of 25 draws after a fifth of the epochs, and in 1 of
# 11 after a tenth.
SHARE_OF_A_START = 0.2


class TrainedStart(NamedTuple):
    """Result of training.

    Attributes:
        network: network of the start that was trained to completion.
        history: one row per epoch.
        order: random order of the trials, the first of which are held out of the updates.
        held_out: indices of the held-out trials.
    """

    network: MultiModalNetwork
    history: list[dict[str, float]]
    order: Tensor
    held_out: NDArray[np.intp]


class Start(NamedTuple):
    """A network before training, and what trains it."""

    network: MultiModalNetwork
    trainer: Trainer


def train(options: Options, trials: Trials, run: FitRun) -> TrainedStart:
    """Train from the linear model, where there is one, else from the most promising of random starts."""
    order = torch.randperm(trials.n_trials, generator=torch.Generator().manual_seed(run.seed))
    n_starts = 1 if options.from_linear else options.settings.restarts
    starts: list[Start] = []
    data: Data = {}
    for number in range(n_starts):
        generator = torch.Generator().manual_seed(_seed_of_start(run.seed, number))
        network = MultiModalNetwork(options, generator)
        network.calibrate(trials)
        network.to(run.device)
        data = data or network.inputs(trials, network.names)  # the units are the same for all starts
        starts.append(Start(network, _trainer(network, data, generator)))
    if options.from_linear:
        _begin_at_linear_model(starts[0], trials, order, run)
    best = _most_promising([trainer for _, trainer in starts], order, run)
    network, trainer = starts[best]
    first, final = options.cross_weights
    if final != first:
        trainer.go_on_with(Objective(network, final).loss_on(data))
    trainer.run(order, *_part(run, best, len(starts)))
    return TrainedStart(network, trainer.history, order, trainer.held_out(order).numpy())


def _begin_at_linear_model(start: Start, trials: Trials, order: Tensor, run: FitRun) -> None:
    """Set a network to the linear model, which training must beat on held-out trials."""
    network, trainer = start
    if not trainer.resume(*_part(run, 0, 1)):  # a checkpoint holds what has become of the linear model
        updates = order[len(trainer.held_out(order)) :].numpy()
        start_from_linear_model(network, trials.select(updates), run)
        trainer.set_baseline(order)


def _trainer(network: MultiModalNetwork, data: Data, generator: torch.Generator) -> Trainer:
    options = network.options
    loss = Objective(network, options.cross_weights.first).loss_on(data)
    return Trainer(network, loss, make_optimizer(network), options.schedule, generator)


def _most_promising(starts: list[Trainer], order: Tensor, run: FitRun) -> int:
    """Train all starts for a share of the epochs, and return the one best on held-out trials."""
    epochs = math.ceil(SHARE_OF_A_START * starts[0].schedule.epochs)
    for number, trainer in enumerate(starts):
        if not trainer.changed:
            trainer.train(epochs, order, *_part(run, number, len(starts)))
    early_losses = [trainer.early_loss(epochs) for trainer in starts]
    best = int(np.argmin(early_losses))
    if len(starts) > 1:
        run.progress(f"start {best + 1} continues: held-out loss {early_losses[best]:.4f} in {epochs} epochs")
    return best


def _part(run: FitRun, number: int, n_starts: int) -> RunPart:
    """Return the progress callback and checkpoint of a start."""
    if n_starts == 1:
        return run.progress, run.checkpoint
    return part_of_run(run, f"start {number + 1}/{n_starts}", f"start-{number}")


def _seed_of_start(seed: int, number: int) -> int:
    """Return the seed of a start's weights and batches; the first start uses the seed of the fit."""
    return seed if number == 0 else int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
