"""The methods text of the MM-GPVAE: its objective, training and last steps."""

from collections.abc import Iterator, Mapping

from colatent.config.models import MMGPVAESettings
from colatent.config.models.mmgpvae import DECODERS
from colatent.models.methods import About, capitalised, numbers_of_latents

CROSS_MODAL = "cross-modal prediction of"
POSTERIOR = {
    "sites": "The posterior is joint over all latents: Gaussian, with each decoder linear around its mean.",
    "mean-field": "For comparison: the posterior is diagonal over Fourier coefficients.",
    "averaged": "For comparison: the posterior is diagonal over Fourier coefficients, and the encoders’ "
    "sites on shared latents are averaged.",
    "time-domain": "For comparison: the posterior is diagonal over bins.",
    "independent": "For comparison: a plain VAE, without a prior over time.",
}


def mmgpvae(settings: MMGPVAESettings, about: About) -> str:
    """Describe an MM-GPVAE."""
    head = (
        f"{capitalised(settings.record.title)} ({numbers_of_latents(settings.latents)}; {settings.kernel} "
        "prior)."
    )
    return " ".join([head, *objective(settings), *training(settings, about), *last_steps(settings, about)])


def objective(settings: MMGPVAESettings) -> Iterator[str]:
    """Yield sentences on the objective."""
    final = _objective(settings, settings.cross_weight)
    first = final
    if settings.first_cross_weight is not None:
        first = _objective(settings, settings.first_cross_weight)
    yield f"Objective: {final}."
    if first != final:
        yield f"In the first epochs, at most a fifth of them, it was {first}."
    if CROSS_MODAL in first + final:
        yield (
            "Cross-modal prediction is the log density of a modality, decoded from the posterior mean given "
            "only the others (with latents that none of them informs integrated out); it makes shared "
            "latents predictive, and the sum is not a bound on the likelihood."
        )
        if len(settings.modalities) > 2:
            yield "In half of the batches it was given a random subset of the others only."
    if CROSS_MODAL in final and settings.posterior != "sites":
        yield "Where these modalities are not given, they are predicted in the same way, with separate noise."
    if settings.weight:
        factors = ", ".join(f"of {m} by {w:g}" for m, w in settings.weight.items())
        yield f"Log densities in the ELBO were weighted ({factors}), so it is not a bound on the likelihood."
    yield POSTERIOR[settings.posterior]


def _objective(settings: MMGPVAESettings, cross_weight: Mapping[str, float]) -> str:
    """Return the objective with the given cross weights, in words."""
    weights = {m: w for m, w in cross_weight.items() if w > 0 and len(settings.modalities) > 1}
    terms = [f"{w:g} × {CROSS_MODAL} {m}" for m, w in weights.items()]
    return " + ".join(["ELBO", *terms]) if terms else "the ELBO"


def training(settings: MMGPVAESettings, about: About) -> Iterator[str]:
    """Yield sentences on dropout and on random starts."""
    if settings.channel_dropout:
        yield (
            f"In half of the batches {100 * settings.channel_dropout:g} % of one modality’s channels were "
            "hidden from its encoder but still reconstructed."
        )
    yield from starts(settings, about)


def starts(settings: MMGPVAESettings, about: About) -> Iterator[str]:
    """Yield a sentence on what training started from."""
    if settings.can_start_linear:
        yield (
            "Training started from the linear model: multi-modal GPFA with the same latents (counts by their "
            f"own likelihood), fitted to the {about.trial}s that training updated on. Decoders that are "
            "not linear add a network to its linear map; encoders add a recurrent one over all bins to the "
            "sites that are linear in the observations; both are zero at first. The weights with the least "
            "loss on held-out training "
            f"{about.trial}s were kept, if any beat the linear model’s."
        )
    elif settings.restarts > 1:
        yield (
            f"Each fit had {settings.restarts} random starts; after a fifth of the epochs, training "
            f"continued from the one with the least loss on training {about.trial}s held out of the updates."
        )


def calibrated(about: About) -> str:
    """Describe the calibration of what each modality's channels say."""
    return (
        "the log density of each modality was given a weight in inference, of at most 1, where this improved "
        f"the marginal likelihood of training {about.trial}s held out of the updates by 2 nats or more: "
        "channels that share noise say less than as many independent ones"
    )


def refined(about: About) -> str:
    """Describe the refinement of non-linear decoders."""
    return (
        "non-linear decoders of modalities without a cross-modal prediction term were fitted again, to the "
        f"posterior of the training {about.trial}s, with the same objective and the same {about.trial}s held "
        "out of the updates"
    )


def chosen(about: About) -> str:
    """Describe the choice of how a modality is predicted from others."""
    return (
        "modalities with a cross-modal term were predicted from others by the joint posterior of the latents "
        "or, as in that term, by the encoders’ posterior mean with its own noise, whichever was better on "
        f"training {about.trial}s held out of the updates, for each set of given modalities"
    )


def last_steps(settings: MMGPVAESettings, about: About) -> Iterator[str]:
    """Yield a sentence on the steps after stochastic gradient training, if any."""
    crossed = {m for m, w in settings.cross_weight.items() if w > 0}
    linear = {m for m in settings.modalities if DECODERS[settings.decoder_of(m, about.kinds[m])].is_linear}
    applied = (
        (calibrated, settings.posterior == "sites"),
        (refined, set(settings.modalities) - linear - crossed),
        (chosen, settings.posterior == "sites" and crossed and len(settings.modalities) > 1),
    )
    if steps := [step(about) for step, is_applied in applied if is_applied]:
        yield f"At the end, {'; then '.join(steps)}."
