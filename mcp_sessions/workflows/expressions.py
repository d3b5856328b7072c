"""Expressions: CEL between `{{` and `}}`, in what the author of a workflow wrote and nowhere else.

A text that is one expression gives what that gives, with its type; in any other text it is written out, as JSON where
it is no text. What an expression gives is never read as one again. CEL has no loops and no attributes, but its macros
go through lists within lists, so an expression that uses them is evaluated by a process that can be ended: `bounded`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, cast

from .._json import check_json, encode, time_text
from ..errors import ExpressionError
from ._cel import cel

MOST_CHARS = 2_000
"""Of the text of an expression."""
MOST_MEMBERS = 100_000
"""Of a list or an object that an expression gives."""
MOST_BYTES = 1 << 20
"""Of JSON that an expression gives, and of a text that expressions are written into."""
FUNCTIONS = frozenset(
    (
        *("size", "contains", "startsWith", "endsWith", "matches", "get", "join"),
        *("string", "int", "uint", "double", "bytes", "type", "dyn", "timestamp", "duration"),
        *("getDate", "getDayOfMonth", "getDayOfWeek", "getDayOfYear", "getFullYear"),
        *("getHours", "getMilliseconds", "getMinutes", "getMonth", "getSeconds"),
    )
)
"""What expressions may call, macros (has, map, filter, all, exists, exists_one) and operators beside."""
_BEGIN = re.compile(r"\$?\{\{")
_PLAIN = re.compile(r"""[A-Za-z_]\w*(?:\.[A-Za-z_]\w*|\[(?:\d{1,9}|'[^'\\]*'|"[^"\\]*")\])*""", re.ASCII)
_PART = re.compile(r"""([A-Za-z_]\w*)|\[(?:(\d+)|'([^']*)'|"([^"]*)")\]""", re.ASCII)
_STRINGS = re.compile(r"""'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*\"""", re.DOTALL)
_STRING_OR_BRACE = re.compile(_STRINGS.pattern + "|[{}]", re.DOTALL)
_MACRO = re.compile(r"\.\s*(?:map|filter|all|exists|exists_one)\s*\(")
_STEP = re.compile(r"(?<![\w.])steps\s*(?:\.\s*([A-Za-z_]\w*)|\[\s*[\"']([A-Za-z_]\w*)[\"']\s*\])")
_INPUT = re.compile(r"(?<![\w.])inputs\s*\.\s*([A-Za-z_]\w*)")
_INPUTS = re.compile(r"(?<![\w.])inputs\b")
_SECRET = re.compile(r"(?<![\w.])secrets\s*\.\s*([A-Za-z_]\w*)")
_BOUND = re.compile(r"\.\s*(?:map|filter|all|exists|exists_one)\s*\(\s*([A-Za-z_]\w*)\s*,")
_PATH = re.compile(r"(?:^|\.)([A-Za-z_][\w-]*)|\[(\d+)\]")
_MOST_SUMS = 10
_MISSING = "there is no '{}' there; has(…) asks, context.get('a.b', x) defaults"
_NOTHING = object()


@dataclass(frozen=True)
class Expression:
    """One expression, compiled. Raises ExpressionError for a text that is none."""

    source: str

    def __post_init__(self) -> None:
        if len(self.source) > MOST_CHARS:
            raise ExpressionError(self.source, f"it has {len(self.source):,} characters; at most {MOST_CHARS:,} may be")
        if not self.source:
            raise ExpressionError(self.source, "it is empty")
        _ = self._program

    @cached_property
    def _program(self) -> cel.Program:
        try:
            return cel.compile(self.source)
        except (ValueError, RecursionError) as error:
            fault = str(error).splitlines() or [""]
            raise ExpressionError(self.source, fault[0].partition("ERROR: <input>:1:")[2] or fault[0]) from None

    @cached_property
    def names(self) -> frozenset[str]:
        """The variables it reads, those of its own macros too."""
        return frozenset(self._program.variables())

    @cached_property
    def free(self) -> frozenset[str]:
        """The variables that are to be there: those of its own macros are not known from others of their name."""
        return self.names - frozenset(_BOUND.findall(_STRINGS.sub("''", self.source)))

    @cached_property
    def steps(self) -> frozenset[str]:
        """The ids of the steps it reads."""
        return frozenset(one or other for one, other in _STEP.findall(self.source))

    @cached_property
    def inputs(self) -> frozenset[str]:
        """The inputs that it reads by name."""
        return frozenset(_INPUT.findall(_STRINGS.sub("''", self.source)))

    @cached_property
    def reads_inputs_by_name(self) -> bool:
        """Whether it reads no inputs but those that it names."""
        return len(_INPUTS.findall(self.source)) == len(_INPUT.findall(self.source))

    @cached_property
    def secrets(self) -> frozenset[str]:
        """The secrets that it reads by name."""
        return frozenset(_SECRET.findall(_STRINGS.sub("''", self.source)))

    @cached_property
    def functions(self) -> frozenset[str]:
        """What it calls."""
        return frozenset(name for name in self._program.references()["functions"] if name.isidentifier())

    @cached_property
    def path(self) -> tuple[str | int, ...] | None:
        """Of one that only says where something stands: the names and places that lead there."""
        if _PLAIN.fullmatch(self.source) is None or not self.names:
            return None
        parts = _PART.findall(self.source)
        return tuple(int(place) if place else name or single or double for name, place, single, double in parts)

    @cached_property
    def heavy(self) -> bool:
        """Whether it may take long, or make much out of little."""
        text = _STRINGS.sub("''", self.source)
        return (
            _MACRO.search(text) is not None
            or text.count("+") > _MOST_SUMS
            or bool({"matches", "join"} & self.functions)
        )

    def evaluate(self, scope: Mapping[str, Any]) -> Any:
        """What it gives, as JSON. Raises ExpressionError; has no limit of time.

        CEL takes over whole what a variable holds, so what only says where something stands is looked up here.
        """
        if self.path is not None:
            return self._checked(self._at(scope, self.path))
        context = cel.Context({name: scope[name] for name in self.names if name in scope})
        context.add_function("get", look_up)  # context.get('a.b', default)
        context.add_function("join", _joined)
        try:
            value = self._program.execute(context)
        except KeyError as error:
            raise ExpressionError(self.source, _MISSING.format(error.args[0])) from None
        except (TypeError, ValueError, RuntimeError, OverflowError, IndexError, ZeroDivisionError) as error:
            raise ExpressionError(self.source, (str(error).splitlines() or [repr(error)])[0]) from None
        return self._checked(value)

    def _at(self, value: Any, path: tuple[str | int, ...]) -> Any:
        for part in path:
            if isinstance(value, Mapping if isinstance(part, str) else list):
                try:
                    value = cast("Any", value)[part]
                    continue
                except (KeyError, IndexError):
                    pass
            raise ExpressionError(self.source, _MISSING.format(part))
        return value

    def _checked(self, value: Any) -> Any:
        try:
            return check_json(_as_json(value))
        except ValueError as error:
            raise ExpressionError(self.source, f"what it gives {error}") from None


Evaluate = Callable[[Expression], Any]


def _as_json(value: Any) -> Any:
    """The value of CEL as JSON: times as ISO 8601, durations as seconds. Raises ValueError."""
    if isinstance(value, dict | list):
        members = cast("dict[Any, Any] | list[Any]", value)
        if len(members) > MOST_MEMBERS:
            raise ValueError(f"has {len(members):,} members; at most {MOST_MEMBERS:,} may be")
        if isinstance(members, dict):
            return {name: _as_json(member) for name, member in members.items()}
        return [_as_json(member) for member in members]
    if isinstance(value, datetime):
        return time_text(value)
    return value.total_seconds() if isinstance(value, timedelta) else value


def look_up(value: Any, path: Any, default: Any = None) -> Any:
    """What stands at a path such as `steps.plan.result.parts[0]`, or the default where nothing does."""
    if not isinstance(path, str) or not path or _PATH.sub("", path):
        return default
    for name, index in _PATH.findall(path):
        if index:
            members = cast("list[Any]", value) if isinstance(value, list) else []
            value = members[int(index)] if int(index) < len(members) else _NOTHING
        else:
            value = cast("dict[str, Any]", value).get(name, _NOTHING) if isinstance(value, dict) else _NOTHING
        if value is _NOTHING:
            return default
    return value


def _joined(members: Any, between: Any = "") -> str:
    """`list.join(', ')`: texts, and other members as JSON."""
    if not isinstance(members, list) or not isinstance(between, str):
        raise ValueError("join: it joins the members of a list with a text, as in names.join(', ')")
    return between.join(
        member if isinstance(member, str) else encode(_as_json(member)) for member in cast("list[Any]", members)
    )


Part = str | Expression


@dataclass(frozen=True)
class Template:
    """What an author wrote, with the expressions in it: a text, a number, a list or an object of such."""

    written: Any
    parts: tuple[Part, ...] = ()
    """Of a text that has expressions in it."""
    members: Mapping[str, Template] | Sequence[Template] | None = None

    @classmethod
    def of(cls, written: Any) -> Template:
        """Raises ExpressionError for an expression that is none."""
        if isinstance(written, str):
            parts = tuple(_parts(written))
            if sum(not isinstance(part, str) or bool(part.strip()) for part in parts) == 1:
                parts = tuple(part for part in parts if isinstance(part, Expression)) or parts
            return cls(written, parts if any(isinstance(part, Expression) for part in parts) else ())
        if isinstance(written, Mapping):
            fields = cast("Mapping[str, Any]", written)
            return cls(written, members={name: cls.of(member) for name, member in fields.items()})
        if isinstance(written, list | tuple):
            return cls(written, members=[cls.of(member) for member in cast("Sequence[Any]", written)])
        return cls(written)

    def expressions(self) -> Iterator[Expression]:
        """All that are in it."""
        yield from (part for part in self.parts if isinstance(part, Expression))
        for member in self._members():
            yield from member.expressions()

    def resolve(self, evaluate: Evaluate) -> Any:
        """The value, its expressions evaluated. Raises ExpressionError."""
        if self.parts:
            values = [evaluate(part) if isinstance(part, Expression) else part for part in self.parts]
            return values[0] if len(values) == 1 else self._joined(values)
        if isinstance(self.members, Mapping):
            return {name: member.resolve(evaluate) for name, member in self.members.items()}
        if self.members is not None:
            return [member.resolve(evaluate) for member in self.members]
        return self.written

    def _members(self) -> Sequence[Template]:
        members = self.members or ()
        return list(members.values()) if isinstance(members, Mapping) else members

    def _joined(self, values: Sequence[Any]) -> str:
        text = "".join(value if isinstance(value, str) else "" if value is None else encode(value) for value in values)
        if len(text) > MOST_BYTES:
            raise ExpressionError(
                str(self.written), f"it makes {len(text):,} characters; at most {MOST_BYTES:,} may be"
            )
        return text


def _parts(text: str) -> Iterator[Part]:
    done = 0
    while (begin := _BEGIN.search(text, done)) and (end := _end_of(text, begin.end())) >= 0:
        if begin.start() > done:
            yield text[done : begin.start()]
        yield Expression(text[begin.end() : end].strip())
        done = end + 2
    if done < len(text):
        yield text[done:]


def _end_of(text: str, begin: int) -> int:
    """Where the `}}` stands that ends an expression; -1 where none does. Strings and objects may hold others."""
    depth = 0
    for match in _STRING_OR_BRACE.finditer(text, begin):
        if match[0] == "{":
            depth += 1
        elif match[0] == "}" and depth:
            depth -= 1
        elif match[0] == "}" and text.startswith("}}", match.start()):
            return match.start()
    return text.find("}}", begin)  # what is no expression ends with the first
