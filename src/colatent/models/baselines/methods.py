"""The methods texts of the baselines."""

from colatent.config.models import (
    ConditionMeanSettings,
    GRUSettings,
    LagRegressionSettings,
    SmoothedFASettings,
)
from colatent.config.models.baselines import LAGS
from colatent.models.methods import About, capitalised, numbers_of_latents, read_out


def condition_mean(settings: ConditionMeanSettings, about: About) -> str:
    """Describe the mean over training trials of each condition, over all trials, or over all bins."""
    title = capitalised(settings.record.title)
    if about.continuous:
        return f"{title}: each channel’s mean over all bins of the training windows."
    amounts = (
        " It is smoothed over time and shrunk towards the channel’s mean by the amounts, none included, that "
        "predict left-out training trials best."
    )
    if not about.conditions:
        return f"{title}: each channel’s mean time course over the training trials.{amounts}"
    return (
        f"{title}: each channel’s mean time course over the training trials of the same condition. Unlike "
        f"other models, except those that say so, it knows the condition of a test trial.{amounts}"
    )


def smoothed_fa(settings: SmoothedFASettings, about: About) -> str:
    """Describe factor analysis of smoothed observations."""
    return (
        f"{capitalised(settings.record.title)} ({numbers_of_latents(settings.latents)}), observations "
        f"smoothed by a Gaussian of s.d. {settings.smoothing:g} s. {read_out(about, settings.modality)}"
    )


def lag_regression(settings: LagRegressionSettings, about: About) -> str:
    """Describe a regression of a modality on the others."""
    lags = settings.lags or " or ".join(map(str, LAGS))
    return (
        f"{capitalised(settings.record.title)}: every modality from every set of the others at {lags} lags "
        "of one bin, centred; counts are square-rooted as predictors. Hyper-parameters"
        f"{'' if settings.lags else ', lags among them,'} were chosen inside the training {about.trial}s."
    )


def gru(settings: GRUSettings, about: About) -> str:
    """Describe the recurrent network."""
    return (
        f"{capitalised(settings.record.title)}: one network of {settings.units} gated recurrent units in "
        "each direction predicts every modality from every set of the others, and held-out channels. In "
        f"training, whole modalities of a {about.trial} and a quarter of the channels of the others were "
        f"hidden at random, and predicted. The weights of the best epoch on a tenth of the training "
        f"{about.trial}s were kept; the rest stayed fixed."
    )
