"""Names, units and explanations that tables, figures and text of the report share."""

import math

METRICS = {
    "r2": "R²",
    "bits_per_spike": "bits/spike",
    "psth_r2": "PSTH R²",
    "nrmse": "NRMSE",
    "log_density": "log density (nats/observation)",
    "coverage_50": "50 % coverage",
    "coverage_95": "95 % coverage",
}

KINDS = {
    "mm-gpvae": "multi-modal GP-VAE",
    "gpfa": "Gaussian-process factor analysis",
    "condition-mean": "baseline: condition mean (PSTH)",
    "smoothed-fa": "baseline: smoothed factor analysis",
    "ridge-lags": "baseline: ridge regression on lags",
    "mlp-lags": "baseline: multi-layer perceptron on lags",
}

HELDOUT = {
    "trials": "held-out {word}s",
    "channels": "held-out channels of held-out {word}s (co-smoothing)",
    "time": "the {end} of held-out {word}s (forward prediction)",
    "modality": "held-out modality in held-out {word}s (cross-prediction)",
    "decoding": "decoded from latents, held-out modality in held-out {word}s",
}

SHORT_HELDOUT = {
    "trials": "reconstruction",
    "channels": "co-smoothing",
    "time": "forward prediction",
    "modality": "cross-prediction",
    "decoding": "decoded from latents",
}


def number(value: float, digits: int = 3) -> str:
    """Return a number for a table, with a dash where there is none."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:.{digits}f}".replace("-", "−")


def signed(value: float, digits: int = 3) -> str:
    """Return a difference with its sign."""
    if math.isinf(value):
        return "−∞" if value < 0 else "+∞"
    text = number(value, digits)
    return f"+{text}" if math.isfinite(value) and value > 0 else text


def plus_minus(mean: float, sem: float, digits: int = 3) -> str:
    """Return ``mean ± s.e.m.``, or the mean alone where one fold gives no s.e.m."""
    if math.isinf(mean):
        return "−∞" if mean < 0 else "∞"
    if math.isnan(mean):
        return "–"
    return f"{number(mean, digits)} ± {number(sem, digits)}" if math.isfinite(sem) else number(mean, digits)


def count(n: int, noun: str) -> str:
    """Return ``1 trial``, ``2 trials``."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def end_of_trial(future: float | None) -> str:
    """Return what is predicted forward; ``future`` is ``heldout.time`` of the config."""
    return "last part" if future is None else f"last {100 * future:g} %"


def heldout_words(heldout: str, word: str, end: str) -> str:
    """Return what was held out; ``word`` is trial or window, ``end`` of `end_of_trial`."""
    return HELDOUT[heldout].format(word=word, end=end)


def given_text(given: str, nothing: str) -> str:
    """Return what inference saw, in words; ``nothing`` is what a model saw that is given no modality."""
    return nothing if given == "none" else given


def heldout_statement(heldout: str, predicted: str, word: str, end: str, nothing: str) -> str:
    """Return one sentence: what was fitted on, what inference saw, what is scored."""
    start = f"Parameters were fitted on the training {word}s only; scored on the test {word}s. "
    if heldout == "trials":
        return start + (
            f"Reconstruction: inference saw the test {word}s’ own {predicted} (and what else is listed "
            f"under “given”); the condition mean saw {nothing}."
        )
    if heldout == "channels":
        return start + (
            f"Co-smoothing: some channels of {predicted} were hidden from inference in the test {word}s, "
            "and only these are scored."
        )
    if heldout == "time":
        return start + (
            "Forward prediction: inference saw the modalities listed under “given” until the "
            f"{end} of each test {word}, and only that part of {predicted} is scored."
        )
    if heldout == "decoding":
        return start + (
            f"Decoded from latents: held out are the test {word}s, and in them all of {predicted}; inference "
            "of the latents saw the modalities listed under “given” and nothing else. The prediction is a "
            f"ridge regression of {predicted} on the latents’ posterior means of the same bin, fitted on the "
            f"training {word}s, its penalty chosen among them. Where models are compared, the "
            "cross-prediction of the lag regressions, which saw the same modalities themselves at several "
            f"lags, and the condition mean, which saw {nothing}, stand beside it."
        )
    return start + (
        f"Cross-prediction: inference saw the modalities listed under “given” and nothing of {predicted} "
        f"in the test {word}s."
    )
