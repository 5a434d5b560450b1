"""What is generated from the settings and the checks: the JSON schema and the manual's tables."""

import json
import types
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from colatent.config.analysis import Config
from colatent.config.checks import CHECKS
from colatent.config.sections import sections_of

BEGIN, END = "<!-- reference: begin -->", "<!-- reference: end -->"


def json_schema() -> str:
    """Return the JSON schema of a config file."""
    dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return json.dumps(dialect | Config.model_json_schema(), indent=2) + "\n"


def with_reference(manual: str) -> str:
    """Return the manual with its table of keys, between the two markers, up to date."""
    before, _, rest = manual.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{_reference()}{END}{after}"


def _reference() -> str:
    parts = []
    sections: list[tuple[str, type[BaseModel]]] = [("(top level)", Config), *_sections(Config)]
    for title, model in sections:
        rows = "".join(_row(name, field) for name, field in model.model_fields.items())
        doc = " ".join((model.__doc__ or "").split())
        head = "| key | value | default | meaning |\n|---|---|---|---|\n"
        parts.append(f"\n#### `{title}`\n\n{doc}\n\n{head}{rows}")
    return "".join([*parts, _checks()]) + "\n"


def _sections(section: type[BaseModel], above: str = "") -> Iterator[tuple[str, type[BaseModel]]]:
    """Yield title and class of each nested section, in the order of their keys."""
    for name, field in section.model_fields.items():
        named = get_origin(field.annotation) is dict
        found = sections_of(get_args(field.annotation)[1] if named else field.annotation)
        place = f"{above}{name}.<name>" if named else f"{above}{name}"
        for tag, inner in found.items():
            yield f"{place} ({tag})" if len(found) > 1 else place, inner
            yield from _sections(inner, f"{place}.")


def _checks() -> str:
    rows = "".join(f"| `{name}` | `{check.default}` | {check.finds} |\n" for name, check in CHECKS.items())
    return (
        "\n#### `checks.<name>`\n\nWhat ingest checks, and what it does unless the config says otherwise; "
        f"the report lists all that was found.\n\n| check | default | what it finds |\n|---|---|---|\n{rows}"
    )


def _row(name: str, field: FieldInfo) -> str:
    if field.is_required():
        default = "**required**"
    elif field.default is PydanticUndefined or isinstance(field.default, BaseModel):
        default = ""
    else:
        default = f"`{json.dumps(field.default)}`"
    meaning = (field.description or "").replace("|", "\\|")
    return f"| `{name}` | {_describe(field.annotation, field.metadata)} | {default} | {meaning} |\n"


def _describe(kind: Any, metadata: Sequence[Any] = ()) -> str:
    bounds = [
        f"{sign} {getattr(m, key)}"
        for m in metadata
        for key, sign in (("gt", ">"), ("ge", "≥"), ("lt", "<"), ("le", "≤"))
        if hasattr(m, key)
    ]
    return _type_name(kind) + (f" {', '.join(bounds)}" if bounds else "")


def _type_name(kind: Any) -> str:
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is type(None):
        return "null"
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(_type_name(a) for a in arguments))
    if origin is Annotated:
        return _describe(arguments[0], [m for a in arguments[1:] for m in getattr(a, "metadata", [a])])
    if origin in (list, tuple):
        inner = dict.fromkeys(_type_name(a) for a in arguments if a is not Ellipsis)
        return f"list of {', '.join(inner)}"
    if origin is dict:
        return f"mapping to {_type_name(arguments[1])}"
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return "section"
    return {"str": "text", "float": "number", "int": "whole number", "bool": "true or false"}[kind.__name__]
