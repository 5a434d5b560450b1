"""The methods text of GPFA."""

from collections.abc import Iterable

from colatent.config.models import COUNT_LIKELIHOODS, GPFASettings
from colatent.models.methods import About, capitalised, numbers_of_latents, read_out


def gpfa(settings: GPFASettings, about: About) -> str:
    """Describe GPFA: its likelihood, objective and predictions."""
    found = "latent groups and their numbers found in the training data of each fold"
    latents = found if settings.finds_groups else numbers_of_latents(settings.numbers)
    head = f"{capitalised(settings.record.title)} ({latents}; {settings.kernel} prior)"
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
            f"{read_out(about, modality)}{_course(settings)}"
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
        f"and channels.{_course(settings)}"
    )


def _course(settings: GPFASettings) -> str:
    """Describe the mean, if it is not a constant."""
    if settings.mean == "constant":
        return ""
    return (
        " A further regressor is the channel's smoothed mean time course over the training trials (in the "
        "fit, over all training trials but the one at hand)."
    )


def _values(likelihood: str) -> str:
    return "square-rooted counts" if likelihood == "gaussian-sqrt" else "values"


def _regressions(about: About, modalities: Iterable[str]) -> str:
    kinds = {m: "Poisson" if about.counts(m) else "linear" for m in modalities}
    return ", ".join(f"{kind} for {m}" for m, kind in kinds.items())
