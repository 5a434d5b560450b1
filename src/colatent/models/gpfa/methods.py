"""The methods text of GPFA."""

from collections.abc import Iterable

from colatent.config.models import COUNT_LIKELIHOODS, GPFASettings
from colatent.models.methods import About, capitalised, numbers_of_latents, read_out


def gpfa(settings: GPFASettings, about: About) -> str:
    """Describe GPFA: its likelihood, objective and predictions."""
    head = (
        f"{capitalised(settings.record.title)} ({numbers_of_latents(settings.latents)}; {settings.kernel} "
        "prior)"
    )
    likelihoods = {m: settings.likelihood_of(m, about.kinds[m]) for m in settings.modalities}
    for likelihood in likelihoods.values():
        if likelihood in COUNT_LIKELIHOODS:
            return (
                f"{head} of counts, {likelihood} with a log-linear mean. Objective: the evidence lower bound "
                "of a Gaussian posterior. Predictions average over the posterior of the latents."
            )
    if len(likelihoods) == 1:
        ((modality, likelihood),) = likelihoods.items()
        return (
            f"{head}, Gaussian on {_values(likelihood)}. Objective: the exact log marginal likelihood. "
            f"{read_out(about, modality)}{_course(settings, about)}"
        )
    described = ", ".join(f"{_values(likelihood)} of {m}" for m, likelihood in likelihoods.items())
    delays = (
        " Each modality follows each latent that it shares with a delay of its own, relative to the one "
        "named first."
        if settings.delays
        else ""
    )
    return (
        f"{head}, Gaussian on {described}, with one joint posterior of all latents.{delays} Objective: the "
        "exact log marginal likelihood. Each modality is predicted from the latents that drive it, by a "
        f"regression for each channel ({_regressions(about, likelihoods)}) fitted on the training "
        f"{about.trial}s with the latents inferred as in the test {about.trial}s, from the same modalities "
        f"and channels.{_course(settings, about)}"
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


def _values(likelihood: str) -> str:
    return "square-rooted counts" if likelihood == "gaussian-sqrt" else "values"


def _regressions(about: About, modalities: Iterable[str]) -> str:
    kinds = {m: "Poisson" if about.counts(m) else "linear" for m in modalities}
    return ", ".join(f"{kind} for {m}" for m, kind in kinds.items())
