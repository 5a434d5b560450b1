"""Start an MM-GPVAE from the linear model: multi-modal GPFA of the same latents.

Loadings, offsets, noise and time scales are those of `GPFA`, or with counts of `CountGPFA`, which are fitted
to the trials that training may update on. Everything else is zero at the start: what a decoder adds to
C z + d, and what an encoder's network adds to the sites that are linear in the observations. Epoch 0 is then
the linear model, but for the posterior of training, which factorises over latents. (The posterior of
inference, `joint`, does not, nor does it need encoders.) Training may change all of it, and weights are kept
only if they are better on held-out trials: with time scales and linear decoders held, simulations and the
demo came out the same, and a monkey's muscles and spikes were predicted worse from each other.
"""

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from colatent.data.likelihoods import LIKELIHOODS, CountLikelihood
from colatent.data.trials import Trials
from colatent.models.base import Array, FitRun
from colatent.models.gpfa.counts import CountGPFA
from colatent.models.gpfa.gaussian import GPFA
from colatent.models.gpfa.options import FitOptions
from colatent.models.mmgpvae.modality import ModalityNetwork
from colatent.models.mmgpvae.network import MultiModalNetwork
from colatent.models.mmgpvae.options import Options

# The linear model is fitted to as many trials as hold so many values, but to at least so many trials: its
# memory would otherwise be many times that of training.
MOST_VALUES = 2_000_000
FEWEST_TRIALS = 20
# Of a linear model with counts; training does the rest. With a hundred, the fits of a monkey and of the demo
# were as good, and the monkey's start took twice as long.
MOST_ITERATIONS = 30
COUNTS = [name for name, record in LIKELIHOODS.items() if isinstance(record, CountLikelihood)]
WEAK = 0.1  # share of what a latent says of one modality, below which it may be that modality's alone
SMALLEST_NOISE = 1e-3  # variance of what an encoder sees, relative to that of all its channels


class Readout(NamedTuple):
    """features = L z + a + noise: L (channel, latent), a and variances of the noise (channel,)."""

    loading: Array
    offset: Array
    noise: Array


def start_from_linear_model(network: MultiModalNetwork, trials: Trials, run: FitRun) -> None:
    """Fit the linear model and set the calibrated network to it, in place.

    Args:
        trials: training trials in random order, without those held out of the updates.
    """
    size = sum(values[0].size for values in trials.values.values())
    trials = trials.select(np.arange(min(trials.n_trials, max(MOST_VALUES // size, FEWEST_TRIALS))))
    data = network.inputs(trials, network.names)
    values = {
        name: torch.where(x.observed, x.target.double(), torch.nan).cpu().numpy() for name, x in data.items()
    }
    gpfa = linear_model(network.options)
    gpfa.fit(values, lambda line: run.progress(f"linear model: {line}"))
    assert gpfa.modalities_ is not None
    own_what_is_private(gpfa, values)
    bins = torch.from_numpy(gpfa.time_scale_ / gpfa.bin_width)
    mean, variance = (
        gpfa.posterior(values, alike=True) if isinstance(gpfa, CountGPFA) else gpfa.posterior(values)
    )
    with torch.no_grad():
        network.log_time_scale.copy_(bins.log())
        for name, x in data.items():
            modality = network.modality(name)
            own, channels = modality.latents.cpu().numpy(), gpfa.modalities_.channels(name)
            _set_decoder(modality, gpfa, channels)
            if modality.likelihood.record.describes == "counts":
                features, observed = x.features.double().cpu().numpy(), x.observed.cpu().numpy()
                readout = regress(features, observed, mean[..., own], variance[..., own])
            else:  # encoders see what the linear model sees
                noise = _noise_sd(gpfa)[channels] ** 2
                readout = Readout(gpfa.loading_[channels][:, own], gpfa.offset_[channels], noise)
            _set_encoder(modality, readout, math.sqrt(2 * math.pi) * bins.numpy()[own])
        _set_cross_noise(network, trials)


def linear_model(options: Options) -> GPFA | CountGPFA:
    """Return the unfitted linear model: counts by their own likelihood, all others Gaussian."""
    likelihood = {
        name: one.likelihood if isinstance(LIKELIHOODS[one.likelihood], CountLikelihood) else "gaussian"
        for name, one in options.modalities.items()
    }
    of_all: dict[str, Any] = {
        "bin_width": options.layout.bin_width,
        "kernel": options.settings.kernel,
        "latents": options.settings.latents,
        "likelihood": likelihood,
    }
    if set(likelihood.values()) == {"gaussian"}:
        return GPFA(**of_all)
    return CountGPFA(**of_all, fitting=FitOptions(max_iterations=MOST_ITERATIONS))


def own_what_is_private(gpfa: GPFA | CountGPFA, values: dict[str, Array]) -> None:
    """Call latents private that drive one modality alone, in place.

    Where modalities share fewer latents than a group has, the likelihood is indifferent to which of two
    latents of one modality is called shared: let it be the weaker one. A latent drives one modality alone if
    the log likelihood without its loadings on the others is lower by no more than their number (Akaike 1974).
    """
    assert gpfa.modalities_ is not None
    groups, names = gpfa.latent_groups_, gpfa.modalities_.names
    before = _log_likelihood(gpfa, values)
    rate = np.concatenate([np.nanmean(values[name], axis=(0, 1)) for name in names])
    counts = np.isin(np.repeat(gpfa.modalities_.likelihoods, gpfa.modalities_.n_channels), COUNTS)
    strength = gpfa.loading_**2 * np.where(counts, rate, 1 / _noise_sd(gpfa) ** 2)[:, None]
    for name in names:
        channels = gpfa.modalities_.channels(name)
        own = [j for j, group in enumerate(groups) if group == name]
        for k in [k for k, group in enumerate(groups) if "+" in group and name in group.split("+")]:
            here, weakest = strength[channels], min(own, key=lambda j: strength[channels, j].sum(), default=k)
            there = strength[:, k].sum() - here[:, k].sum()
            if here[:, k].sum() <= here[:, weakest].sum() or there > WEAK * here[:, k].sum():
                continue
            with_all, alone = gpfa.loading_.copy(), np.zeros(len(gpfa.loading_))
            alone[channels] = with_all[channels, k]
            gpfa.loading_[:, k] = alone
            after = _log_likelihood(gpfa, values)
            if before - after > np.count_nonzero(with_all[:, k]) - len(here):
                gpfa.loading_ = with_all
                continue
            before = after
            for array in (gpfa.loading_.T, gpfa.time_scale_, strength.T):
                array[[k, weakest]] = array[[weakest, k]]


def _log_likelihood(gpfa: GPFA | CountGPFA, values: dict[str, Array]) -> float:
    """Return the log likelihood of all trials (nats), of counts the lower bound that was maximised."""
    return (
        float(gpfa.elbo(values, alike=True).sum())
        if isinstance(gpfa, CountGPFA)
        else gpfa.log_marginal_likelihood(values)
    )


def regress(features: Array, observed: NDArray[np.bool_], mean: Array, variance: Array) -> Readout:
    """Regress what an encoder sees (trial, time, channel) on the linear model's latents.

    As in an M step: each channel over the bins in which it was observed, with the latents' variances.
    """
    n_latents = mean.shape[-1]
    there = observed.reshape(-1, observed.shape[-1]).astype(np.float64)
    y = features.reshape(there.shape)
    z = np.column_stack([mean.reshape(-1, n_latents), np.ones(len(there))])
    square = z[:, :, None] * z[:, None, :]
    square[:, range(n_latents), range(n_latents)] += variance.reshape(-1, n_latents)
    moments = (there.T @ square.reshape(len(z), -1)).reshape(-1, n_latents + 1, n_latents + 1)
    products = (there * y).T @ z
    n = np.maximum(there.sum(axis=0), 1)
    # as a weak normal prior, which keeps channels finite that were hardly ever observed
    weight = np.linalg.solve(moments + np.eye(n_latents + 1), products[..., None])[..., 0]
    total = (there * y**2).sum(axis=0)
    residual = (
        total - 2 * (weight * products).sum(axis=1) + np.einsum("ci,cij,cj->c", weight, moments, weight)
    )
    typical = max(float((total / n).mean()), np.finfo(float).tiny)
    noise = np.maximum(residual / n, SMALLEST_NOISE * typical)
    return Readout(weight[:, :-1].astype(float), weight[:, -1].astype(float), noise)


def _set_decoder(modality: ModalityNetwork, gpfa: GPFA | CountGPFA, channels: slice) -> None:
    """Set decoder and noise; eta of a likelihood that the linear model lacks is expanded at the mean."""
    own, record = modality.latents.cpu().numpy(), modality.likelihood.record
    loading = torch.from_numpy(gpfa.loading_[channels][:, own])
    offset = torch.from_numpy(gpfa.offset_[channels])
    log_scale = modality.likelihood.log_scale
    if isinstance(record, CountLikelihood):
        assert isinstance(gpfa, CountGPFA)
        modality.decoder.start_linear(loading, offset)
        if log_scale is not None:
            log_scale.copy_(torch.from_numpy(np.log(gpfa.dispersion_[channels])))
        return
    with torch.enable_grad():
        mean = offset.clone().requires_grad_()
        eta = record.initial_eta(mean)
        (slope,) = torch.autograd.grad(eta.sum(), mean)
    modality.decoder.start_linear(slope.nan_to_num()[:, None] * loading, eta.detach())
    if log_scale is not None:
        # relative to the scale of unit noise
        log_scale.add_(torch.from_numpy(np.log(_noise_sd(gpfa)[channels])))


def _noise_sd(gpfa: GPFA | CountGPFA) -> Array:
    """Return the standard deviation of the noise of Gaussian channels."""
    return gpfa.dispersion_ if isinstance(gpfa, CountGPFA) else np.sqrt(gpfa.noise_variance_)


def _set_encoder(modality: ModalityNetwork, readout: Readout, n_bins: Array) -> None:
    """Set the encoder's linear sites: what a bin of this modality says of each latent, whatever the others.

    With P = L' R^-1 L and h = L' R^-1 y, the posterior given as many such bins as inform a latent, n, has
    the covariance V / n, V = (P + 1 / n)^-1. The site of latent k turns the prior into its marginal there:
    precision 1 / V_kk - 1 / n, linear term (V h)_k / V_kk.

    Args:
        n_bins: how many bins inform each latent of the modality (latent,).
    """
    scaled = readout.loading / readout.noise[:, None]
    parts = scaled * readout.loading  # of each channel in the diagonal of P
    covariance = np.linalg.inv(scaled.T @ readout.loading + np.diag(1 / n_bins))
    weight = scaled @ covariance / covariance.diagonal()
    precision, most = 1 / covariance.diagonal() - 1 / n_bins, parts.sum(axis=0)
    share = np.divide(precision, most, out=np.zeros_like(most), where=most > 0)
    modality.encoder.start_linear(*map(torch.from_numpy, (weight, parts * share, readout.offset)))


def _set_cross_noise(network: MultiModalNetwork, trials: Trials) -> None:
    """Set the noise of cross-modal predictions to the s.d. of their errors."""
    data = network.inputs(trials, network.names)
    sites, bases = network.sites(data), network.bases(trials.n_bins)
    for name in network.options.cross_weights.final:
        modality, x = network.modality(name), data[name]
        own, cross = modality.likelihood.log_scale, modality.cross_likelihood.log_scale
        if own is None or cross is None:
            continue
        cross.copy_(own)
        if modality.likelihood.record.describes == "values":
            mean = modality.decoder(network.cross_mean(name, sites, bases)).double()
            square = torch.where(x.observed, (x.target - mean).square(), 0.0).sum(dim=(0, 1))
            n = x.observed.sum(dim=(0, 1))
            spread = (square / n.clamp_min(1)).sqrt().log()
            worse = (n > 0) & (spread > own)
            cross.copy_(torch.where(worse, spread, own))
