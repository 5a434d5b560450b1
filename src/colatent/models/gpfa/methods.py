"""The methods text of GPFA."""

from collections.abc import Iterable

from colatent.config.models import COUNT_LIKELIHOODS, GPFASettings
from colatent.data.likelihoods import LIKELIHOODS, CountLikelihood
from colatent.models.gpfa.likelihood_choice import ENOUGH
from colatent.models.methods import About, capitalised, numbers_of_latents, read_out

_WORDS: dict[str | None, str] = {
    None: "counts",
    "gaussian": "Gaussian values",
    "gaussian-sqrt": "square-rooted counts, taken as Gaussian",
    **{
        name: f"{one.title} counts, whose {one.unit} is linear in the latents"
        for name, one in LIKELIHOODS.items()
        if isinstance(one, CountLikelihood)
    },
}
_BOUND = (
    "the log marginal likelihood, exact if all is Gaussian, else the evidence lower bound of a Gaussian "
    "posterior"
)


def gpfa(settings: GPFASettings, about: About) -> str:
    """Describe GPFA: its likelihoods, objective and predictions."""
    likelihoods = {m: settings.likelihood_of(m, about.kinds[m]) for m in settings.modalities}
    several = len(likelihoods) > 1
    described = ", ".join(
        f"{_WORDS[likelihood]}{f' of {m}' if several else ''}" for m, likelihood in likelihoods.items()
    )
    joint = ", with one joint posterior of all latents" if several else ""
    delays = (
        " Each modality follows each latent that it shares with a delay of its own, relative to the one "
        "named first."
        if settings.delays
        else ""
    )
    chosen = (
        f" Spikes are Poisson if units have less than {ENOUGH:g} spikes per bin on average in the training "
        f"{about.trial}s, else Gaussian on their square roots."
        if None in likelihoods.values()
        else ""
    )
    latents = "latent groups and their numbers found in the training data of each fold"
    if not settings.finds_groups:
        latents = numbers_of_latents(settings.numbers)
    exact = {None, *COUNT_LIKELIHOODS}.isdisjoint(likelihoods.values())
    objective = "the exact log marginal likelihood" if exact else _BOUND
    return (
        f"{capitalised(settings.record.title)} ({latents}; {settings.kernel} "
        f"prior) of {described}{joint}.{chosen}{delays} Objective: {objective}. "
        f"{_read_outs(about, likelihoods) if several else read_out(about, *likelihoods)}"
        f"{_course(settings, about)}"
    )


def _read_outs(about: About, modalities: Iterable[str]) -> str:
    return (
        "Each modality is predicted from the latents that drive it, by a regression for each channel "
        f"({_regressions(about, modalities)}) fitted on the training {about.trial}s with the latents "
        f"inferred as in the test {about.trial}s, from the same modalities and channels."
    )


def _course(settings: GPFASettings, about: About) -> str:
    """Describe the mean, if it is not a constant."""
    if settings.mean_of(not about.continuous) == "constant":
        return ""
    if settings.told_condition:
        return (
            " A further regressor is the channel's smoothed mean time course over the training trials of the "
            "same condition (in the fit, over all of them but the one at hand), shrunk towards that over all "
            "training trials by the amount, from none to all, that predicts left-out training trials best. "
            "So the model is told the condition of a test trial, of which other models may know nothing; one "
            "that no training trial had has the time course over all."
        )
    return (
        " A further regressor is the channel's smoothed mean time course over the training trials (in the "
        "fit, over all training trials but the one at hand)."
    )


def _regressions(about: About, modalities: Iterable[str]) -> str:
    kinds = {m: "Poisson" if about.counts(m) else "linear" for m in modalities}
    return ", ".join(f"{kind} for {m}" for m, kind in kinds.items())
