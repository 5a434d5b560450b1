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
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds no keys; see config/README.md for what belongs in it")
    return parse_config(content, str(path))


def read_yaml(path: str | Path) -> Any:
    """Return the content of a YAML file.

    Raises:
        InputError: it is no YAML; a key is given twice, of which YAML would keep the last; or a name is
            something else to YAML, as `on` and `no` are.
    """
    try:
        return yaml.load(Path(path).read_text(encoding="utf-8"), _Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not readable as YAML ({' '.join(str(error).split())})") from None
    except _KeyProblem as problem:
        raise InputError(f"{path}, {problem}") from None


def check_keys(path: str | Path) -> None:
    """Raise InputError as `read_yaml` does, unless the file is another workflow's, which uses this one.

    Snakemake, which reads the file as well, would keep the last of two keys. It also reads JSON that is no
    YAML, such as with tabs.
    """
    try:
        read_yaml(path)
    except InputError:
        try:
            content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        except yaml.YAMLError:
            return
        if isinstance(content, dict) and {"modalities", "models"} & content.keys():
            raise


class _KeyProblem(Exception):
    """What is wrong with a key, with its line."""


class _Loader(yaml.SafeLoader):
    """YAML's own loader, but keys are text, and each is given once."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        lines: dict[str, int] = {}
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            line, kind = key.start_mark.line + 1, key.tag.rpartition(":")[2]
            if kind not in ("str", "merge"):
                kind = _KINDS.get(kind, kind)
                raise _KeyProblem(
                    f"line {line}: the name {key.value} is a YAML {kind}, not text; quote it: '{key.value}'"
                )
            if key.value in lines:
                before = lines[key.value]
                raise _KeyProblem(f"line {line}: the key {key.value!r} is in line {before} already; keep one")
            lines[key.value] = line
        found: dict[Any, Any] = super().construct_mapping(node, deep)
        return found


_KINDS = {"bool": "boolean", "int": "number", "float": "number", "timestamp": "date"}


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
