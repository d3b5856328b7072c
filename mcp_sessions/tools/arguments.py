"""What tools take: the types of their arguments, and the flat schema in which hosts read them.

Schemas are built from the signature, not from pydantic's: hosts stumble over `$ref`, `title`, null-unions and
unions at the root, so optional means not required, enums are inline, arrays have items.
"""

from __future__ import annotations

import types
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import FailFast

from ..models import Id, Json, Text


@dataclass(frozen=True)
class Arg:
    """What the signature alone does not say of an argument."""

    description: str = ""
    hidden: bool = False
    """Accepted, but not advertised: for programs, so that models cannot invent it."""
    blank: bool = False
    """An empty text means that it was left out, where a host cannot leave it out."""


class FirstFault(FailFast):
    """One wrong item of a list is told: to describe half a million of them takes ten seconds."""

    def __hash__(self) -> int:  # as `X | None` asks of all that is in X
        return hash(self.fail_fast)


SessionId = Annotated[Id, Arg(blank=True)]
Name = Annotated[Text, Arg(blank=True)]
Texts = Annotated[list[Text], FirstFault()]
Tags = Texts
Role = Literal["user", "assistant", "system", "tool", "human", "ai", "developer"]
Status = Literal["active", "completed", "failed", "abandoned"]
Ending = Literal["completed", "failed", "abandoned"]
RecordStatus = Literal["running", "ok", "error", "cancelled", "interrupted"]
Cursor = Annotated[Text, Arg(blank=True)]
Time = Annotated[Text, Arg(blank=True)]
JsonObject = dict[str, Json]
HIDDEN = Arg(hidden=True)

_ANY_JSON: dict[str, Any] = {
    "description": "Any JSON. Pass objects as objects, not as quoted JSON.",
    "anyOf": [
        {"type": "string"},
        {"type": "number"},
        {"type": "boolean"},
        {"type": "object"},
        {"type": "array", "items": {}},
        {"type": "null"},
    ],
}
_SIMPLE = {str: "string", int: "integer", float: "number", bool: "boolean"}


def required(annotation: Any) -> tuple[Any, list[Arg]]:
    """A type without `| None` and without metadata, and our part of the metadata, outermost first."""
    args: list[Arg] = []
    while True:
        if annotation is Json:
            return annotation, args
        origin = get_origin(annotation)
        if origin is Annotated:
            inner, *metadata = get_args(annotation)
            args += [one for one in metadata if isinstance(one, Arg)]
            annotation = inner
        elif origin in (Union, types.UnionType):
            (annotation,) = (one for one in get_args(annotation) if one is not type(None))
        else:
            return annotation, args


def is_hidden(annotation: Any) -> bool:
    """Whether an argument is for programs only."""
    return any(arg.hidden for arg in required(annotation)[1])


def blank_is_absent(annotation: Any) -> bool:
    """Whether an empty text stands for an argument left out: ids, enums, times, names, cursors, and all that can be
    no text.
    """
    kind, args = required(annotation)
    return any(arg.blank for arg in args) or get_origin(kind) is Literal or not can_be_text(annotation)


def can_be_text(annotation: Any) -> bool:
    """Whether a text is a value of the type; if not, a text must be JSON that was quoted."""
    kind, _ = required(annotation)
    return kind is str or kind is Json or get_origin(kind) is Literal


def schema_of(annotation: Any) -> dict[str, Any]:
    """The flat schema of an argument."""
    kind, args = required(annotation)
    schema = dict(_ANY_JSON) if kind is Json else _schema(kind)
    for arg in reversed(args):
        if arg.description:
            schema["description"] = arg.description
    return schema


def _schema(kind: Any) -> dict[str, Any]:
    origin = get_origin(kind)
    if origin is Literal:
        # The other words for roles are understood, but one word for each is enough to be told.
        words = [word for word in get_args(kind) if kind is not Role or word not in ("human", "ai", "developer")]
        return {"type": "string", "enum": words}
    if origin is list:
        return {"type": "array", "items": schema_of(get_args(kind)[0])}
    if origin is dict:
        return {"type": "object"}
    return {"type": _SIMPLE[kind]}
