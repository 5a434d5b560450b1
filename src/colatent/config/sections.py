"""Which sections a key may hold, derived from the types of the settings."""

import types
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, Tag


def sections_of(kind: Any, tag: str = "") -> dict[str, type[BaseModel]]:
    """Return the sections that a type allows, by tag: their ``kind``, or the text of a `Tag`."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return sections_of(arguments[0], *(m.tag for m in arguments[1:] if isinstance(m, Tag)))
    if origin in (Union, types.UnionType):
        return {t: section for a in arguments for t, section in sections_of(a).items()}
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return {tag or _kind_of(kind): kind}
    return {}


def _kind_of(section: type[BaseModel]) -> str:
    field = section.model_fields.get("kind")
    values = get_args(field.annotation) if field else ()
    return str(values[0]) if len(values) == 1 else ""


def locate(top: type[BaseModel], location: tuple[Any, ...]) -> tuple[list[str], type[BaseModel]]:
    """Return the keys that lead to a Pydantic error, and the innermost section around it.

    Args:
        top: the outermost section.
        location: of the error, as Pydantic has it: keys, and tags of unions.
    """
    kind: Any = top
    section, keys = top, []
    for part in location:
        sections = sections_of(kind)
        if len(sections) > 1 and part in sections:
            kind = sections[part]
        else:
            keys.append(str(part))
            kind = _value_of(kind, part)
        inside = list(sections_of(kind).values())
        if len(inside) == 1:
            kind = section = inside[0]
    return keys, section


def _value_of(kind: Any, key: Any) -> Any:
    """Return the type of a key's value in a section or a mapping."""
    if get_origin(kind) is dict:
        return get_args(kind)[1]
    field = kind.model_fields.get(key) if isinstance(kind, type) and issubclass(kind, BaseModel) else None
    return field.annotation if field else None
