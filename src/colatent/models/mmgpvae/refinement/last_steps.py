"""The steps after stochastic gradient training: calibrate, improve, separate and refine."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from colatent.data.trials import Trials
from colatent.models.base import FitRun
from colatent.models.mmgpvae.network import MultiModalNetwork
from colatent.models.mmgpvae.objective import Objective, make_optimizer
from colatent.models.mmgpvae.refinement.calibration import calibrate_sites, lower_precisions
from colatent.models.mmgpvae.refinement.linear_decoders import Profile, improve
from colatent.models.mmgpvae.refinement.nonlinear_decoders import decoder_loss, refinable, refinement_schedule
from colatent.models.mmgpvae.refinement.separation import separable, separate
from colatent.models.mmgpvae.refinement.sites import infer
from colatent.models.mmgpvae.starts import TrainedStart
from colatent.models.mmgpvae.training import Trainer, part_of_run


def take_last_steps(trained: TrainedStart, trials: Trials, run: FitRun) -> None:
    """Take the last steps in place; without held-out trials, skip the steps that need them.

    Args:
        trained: the trained network and its held-out trials.
        trials: all training trials.
        run: seed, progress and checkpoint.
    """
    network, held_out = trained.network, trained.held_out
    if network.inference.refined:
        if len(held_out):
            calibrate(network, trials.select(held_out), run)
        if not network.options.from_linear:  # there, linear decoders are at their optimum already
            if len(held_out):
                improve_linear_decoders(network, trials, held_out, run)
            separate_latents(network, trials)
    refine_decoders(network, trials, trained.order, run)


def calibrate(network: MultiModalNetwork, held_out: Trials, run: FitRun) -> None:
    """Calibrate the precision of the encoders' sites (`calibration`)."""
    calibrate_sites(network, network.inputs(held_out, network.names), *network.prior(held_out))
    lower_precisions(network, lambda: objective_of(network, held_out, run.seed))


def improve_linear_decoders(
    network: MultiModalNetwork, trials: Trials, held_out: NDArray[np.intp], run: FitRun
) -> None:
    """Optimise the linear decoders (`linear_decoders`)."""
    names = [name for name in network.names if network.has_linear_decoder(name)]
    if not names:
        return
    others = trials.select(np.delete(np.arange(trials.n_trials), held_out))
    validation = trials.select(held_out)
    profile = Profile(network, network.inputs(others, network.names), network.prior(others)[1])
    n_rounds = improve(network, profile, lambda: objective_of(network, validation, run.seed), run.progress)
    run.progress(f"linear decoders of {' and '.join(names)}: rounds of improvement kept: {n_rounds}")


def separate_latents(network: MultiModalNetwork, trials: Trials) -> None:
    """Remove components of shared latents from private ones (`separation`)."""
    if wider := separable(network):
        separate(network, infer(network, trials, network.names).marginals, wider)


def refine_decoders(network: MultiModalNetwork, trials: Trials, order: Tensor, run: FitRun) -> None:
    """Fit the non-linear decoders to the posterior of the training trials (`nonlinear_decoders`)."""
    if not (names := refinable(network)):
        return
    latents = infer(network, trials, network.names).marginals
    loss = decoder_loss(network, names, network.inputs(trials, network.names), latents)
    for name in names:
        network.modality(name).likelihood.requires_grad_(False)
    # only the parameters of these decoders get a gradient
    optimizer, schedule = make_optimizer(network), refinement_schedule(network.options.schedule)
    trainer = Trainer(network, loss, optimizer, schedule, torch.Generator().manual_seed(run.seed))
    trainer.set_baseline(order)
    trainer.run(order, *part_of_run(run, "decoders", "decoders"))


def objective_of(network: MultiModalNetwork, trials: Trials, seed: int) -> float:
    """Return the final objective with the posterior that inference uses, nats per trial."""
    objective = Objective(network, network.options.cross_weights.final)
    data, q = network.inputs(trials, network.names), infer(network, trials, network.names)
    return objective.value(data, q, torch.Generator().manual_seed(seed))
