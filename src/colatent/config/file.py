"""From a YAML file to a validated configuration, or one sentence on what is wrong with it."""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from colatent.config import (
    ConditionMeanSettings,
    Config,
    ContinuousAlignment,
    ContinuousModality,
    EnvelopeSettings,
    GPFASettings,
    Heldout,
    LearningCurve,
    MLPLagsSettings,
    MMGPVAESettings,
    PoseModality,
    RidgeLagsSettings,
    Simulation,
    SmoothedFASettings,
    SpikesModality,
    TrialAlignment,
)
from colatent.errors import InputError


def load_config(path: str | Path) -> Config:
    """Read and validate a YAML file."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: there is no such config file; give the path of a YAML file")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not readable as YAML ({' '.join(str(error).split())})") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds no keys; see config/README.md for what belongs in it")
    return parse_config(content, str(path))


def parse_config(content: Mapping[str, Any], where: str) -> Config:
    """Validate a parsed config; ``where`` names its file in messages."""
    try:
        return Config.model_validate(dict(content))
    except ValidationError as error:
        # a default that depends on a key with an error is none of its own
        errors = [e for e in error.errors() if e["type"] != "default_factory_not_called"]
        raise InputError("\n".join(f"{where}: {_sentence(e)}" for e in errors)) from None


def _sentence(error: Any) -> str:
    """Turn one Pydantic error into a sentence: key, value, what would be right."""
    # tags of discriminated unions stand in the location; they are no keys of the file
    tags = {"trials", "continuous", "spikes", "pose"} | {
        "condition-mean", "smoothed-fa", "gpfa", "ridge-lags", "mlp-lags", "mm-gpvae"
    }  # fmt: skip
    loc = [str(p) for i, p in enumerate(error["loc"])
           if not (str(p) in tags and i and _takes_tag(error["loc"], i))]  # fmt: skip
    key = ".".join(loc)
    if error["type"] == "extra_forbidden":
        section = _section_model(error["loc"])
        close = difflib.get_close_matches(loc[-1], section, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known here: {', '.join(section)}"
        return f"unknown key {key!r}; {hint}"
    if error["type"] == "missing":
        return f"the key {key!r} is missing"
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "value_error":
        return f"{key}: {message}" if key else message
    return f"{key} = {error['input']!r}: {message[:1].lower()}{message[1:]}"


def _takes_tag(loc: tuple[Any, ...], index: int) -> bool:
    """A tag stands behind `alignment`, `modalities.<name>` or `models.<name>`."""
    return (loc[0] == "alignment" and index == 1) or (loc[0] in ("modalities", "models") and index == 2)


def _section_model(loc: tuple[Any, ...]) -> list[str]:
    """Return the keys that are known in the section an error lies in."""
    model: Any = Config
    by_tag = {
        "trials": TrialAlignment, "spikes": SpikesModality, "pose": PoseModality,
        "condition-mean": ConditionMeanSettings, "smoothed-fa": SmoothedFASettings, "gpfa": GPFASettings,
        "ridge-lags": RidgeLagsSettings, "mlp-lags": MLPLagsSettings, "mm-gpvae": MMGPVAESettings,
        "heldout": Heldout, "learning_curve": LearningCurve,
        "simulate": Simulation, "envelope": EnvelopeSettings,
    }  # fmt: skip
    for i, part in enumerate(loc[:-1]):
        if part == "continuous":
            model = ContinuousAlignment if loc[i - 1] == "alignment" else ContinuousModality
        else:
            model = by_tag.get(part, model)
    return list(model.model_fields)
