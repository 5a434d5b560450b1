"""From a YAML file to a validated configuration, or one sentence on what is wrong with it."""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from colatent.config.analysis import Config
from colatent.config.sections import locate
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
        # skip defaults that depend on a key with an error
        errors = [e for e in error.errors() if e["type"] != "default_factory_not_called"]
        raise InputError("\n".join(f"{where}: {_sentence(e)}" for e in errors)) from None


def _sentence(error: Any) -> str:
    """Turn one Pydantic error into a sentence: key, value, what would be right."""
    keys, section = locate(Config, error["loc"])
    key = ".".join(keys)
    if error["type"] == "extra_forbidden":
        known = list(section.model_fields)
        close = difflib.get_close_matches(keys[-1], known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known here: {', '.join(known)}"
        return f"unknown key {key!r}; {hint}"
    if error["type"] == "missing":
        return f"the key {key!r} is missing"
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "value_error":
        return f"{key}: {message}" if key else message
    return f"{key} = {error['input']!r}: {message[:1].lower()}{message[1:]}"
