"""The steps after training by gradients: calibrate inference, fit decoders to it, choose predictors."""

import torch
from torch import Tensor

from colatent.data.trials import Trials
from colatent.models.base import FitRun
from colatent.models.mmgpvae.joint import marginals
from colatent.models.mmgpvae.network import MultiModalNetwork
from colatent.models.mmgpvae.objective import make_optimizer
from colatent.models.mmgpvae.prediction import choose_predictors
from colatent.models.mmgpvae.refinement.calibration import calibrate
from colatent.models.mmgpvae.refinement.nonlinear_decoders import decoder_loss, refinable, refinement_schedule
from colatent.models.mmgpvae.starts import TrainedStart
from colatent.models.mmgpvae.training import Trainer, part_of_run


def take_last_steps(trained: TrainedStart, trials: Trials, run: FitRun) -> None:
    """Take the last steps in place; without held-out trials, skip the step that needs them.

    Args:
        trained: the trained network and its held-out trials.
        trials: all training trials.
        run: seed, progress and checkpoint.
    """
    network, held_out = trained.network, trained.held_out
    if network.inference.joint and len(held_out):
        for name, share in calibrate(network, trials.select(held_out)).items():
            run.progress(f"{name}: channels share noise, so that {share:.0%} of them say as much as all")
    refine_decoders(network, trials, trained.order, run)
    if network.inference.joint and len(held_out):
        choose_predictors(network, trials.select(held_out), run.seed)


def refine_decoders(network: MultiModalNetwork, trials: Trials, order: Tensor, run: FitRun) -> None:
    """Fit the non-linear decoders to the posterior of the training trials (`nonlinear_decoders`)."""
    if not (names := refinable(network)):
        return
    latents = marginals(network, trials, network.names)
    loss = decoder_loss(network, names, network.inputs(trials, network.names), latents)
    for name in names:
        network.modality(name).likelihood.requires_grad_(False)
    # only the parameters of these decoders get a gradient
    optimizer, schedule = make_optimizer(network), refinement_schedule(network.options.schedule)
    trainer = Trainer(network, loss, optimizer, schedule, torch.Generator().manual_seed(run.seed))
    trainer.set_baseline(order)
    trainer.run(order, *part_of_run(run, "decoders", "decoders"))
