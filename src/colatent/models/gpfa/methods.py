"""The methods text of GPFA."""

from colatent.config.models import COUNT_LIKELIHOODS, GPFASettings
from colatent.models.methods import About, capitalised, numbers_of_latents, read_out


def gpfa(settings: GPFASettings, about: About) -> str:
    """Describe GPFA: its likelihood, objective and predictions."""
    head = (
        f"{capitalised(settings.record.title)} ({numbers_of_latents(settings.latents)}; {settings.kernel} "
        "prior)"
    )
    default = "gaussian-sqrt" if about.counts(settings.modality) else "gaussian"
    likelihood = settings.likelihood.get(settings.modality, default)
    if likelihood in COUNT_LIKELIHOODS:
        return (
            f"{head} of counts, {likelihood} with a log-linear mean. Objective: the evidence lower bound of "
            "a Gaussian posterior. Predictions average over the posterior of the latents."
        )
    what = "square-rooted counts" if likelihood == "gaussian-sqrt" else "values"
    return (
        f"{head}, Gaussian on {what}. Objective: the exact log marginal likelihood. "
        f"{read_out(about, settings.modality)}"
    )
