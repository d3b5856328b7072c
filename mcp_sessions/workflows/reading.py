"""YAML as JSON values that know their lines.

Scalars are read as YAML 1.2 reads them: `yes`, `012` and dates are texts. A key that stands twice, and text that
unfolds into more than it is, are refused.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any, cast

import yaml

from ..errors import WorkflowDefinitionError

MOST_BYTES = 1 << 20
MOST_NODES = 50_000
MOST_DEPTH = 64
_STRING = "tag:yaml.org,2002:str"
_KINDS = "map", "seq", "str", "int", "float", "bool", "null", "timestamp", "merge", "value"
_TAGS = {f"tag:yaml.org,2002:{kind}" for kind in _KINDS}
_NULL = re.compile(r"~|null|Null|NULL|")
_TRUE = re.compile(r"true|True|TRUE")
_FALSE = re.compile(r"false|False|FALSE")
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]*)")
_EXPONENT = re.compile(r"[-+]?[0-9]+[eE][-+]?[0-9]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")


class Lines(dict[str, Any]):
    """An object, with the lines of its keys, and its own."""

    def __init__(self, line: int, lines: dict[str, int] | None = None) -> None:
        super().__init__()
        self.line = line
        self.lines: dict[str, int] = lines or {}

    def put(self, key: str, value: Any, line: int) -> None:
        """A member, and where it stands."""
        self[key] = value
        self.lines[key] = line

    def renamed(self, old: str, new: str) -> None:
        """Give a member another name; its line stays."""
        self.put(new, self.pop(old), self.lines.get(old, self.line))


class Listed(list[Any]):
    """A list, with the lines of its members, and its own."""

    def __init__(self, line: int) -> None:
        super().__init__()
        self.line = line
        self.lines: list[int] = []


def read(text: str, name: str) -> Any:
    """The value of a YAML text (or JSON, which is YAML). Raises WorkflowDefinitionError, `name` and line in front."""
    if len(text.encode(errors="replace")) > MOST_BYTES:
        raise WorkflowDefinitionError([f"{name}: over {MOST_BYTES:,} bytes, which no workflow needs."])
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = 1 if mark is None else mark.line + 1
        raise WorkflowDefinitionError([f"{name}:{line}: Invalid YAML: {error.problem or error.context}."]) from None
    except (yaml.YAMLError, ValueError) as error:
        raise WorkflowDefinitionError([f"{name}:1: Invalid YAML: {' '.join(str(error).split())}."]) from None
    except RecursionError:
        raise WorkflowDefinitionError([f"{name}: Invalid YAML: nested too deep."]) from None
    if node is None:
        raise WorkflowDefinitionError([f"{name}:1: it is empty. Begin with `name:` and `steps:`."])
    return _Reader(name).value(node)


def line_of(value: Any, path: Sequence[str | int]) -> int:
    """The line of what stands at a path in a value that was read, or of the last of it that is there; 0: none."""
    line = cast("int", getattr(value, "line", 0))
    for part in path:
        if isinstance(value, Lines) and part in value:
            line, value = value.lines.get(str(part), line), value[str(part)]
        elif isinstance(value, Listed) and isinstance(part, int) and part < len(value):
            line, value = (value.lines[part] if part < len(value.lines) else line), value[part]
        else:
            break
    return line


class _Reader:
    def __init__(self, name: str) -> None:
        self.name = name
        self.nodes = 0

    def value(self, node: yaml.Node, depth: int = 0) -> Any:
        self.nodes += 1
        if self.nodes > MOST_NODES or depth > MOST_DEPTH:
            raise self._fault(node, f"over {MOST_NODES:,} values, or nested over {MOST_DEPTH} deep, with its aliases")
        if node.tag not in _TAGS:
            raise self._fault(node, f"the tag {node.tag} means nothing here")
        if isinstance(node, yaml.MappingNode):
            return self._object(node, depth)
        if isinstance(node, yaml.SequenceNode):
            members = Listed(_line(node))
            for member in cast("list[yaml.Node]", node.value):
                members.append(self.value(member, depth + 1))
                members.lines.append(_line(member))
            return members
        return self._scalar(cast("yaml.ScalarNode", node))

    def _object(self, node: yaml.MappingNode, depth: int) -> Lines:
        fields = Lines(_line(node))
        for key, member in cast("list[tuple[yaml.Node, yaml.Node]]", node.value):
            if not isinstance(key, yaml.ScalarNode):
                raise self._fault(key, 'a key is no text; an expression stands in quotes, as in "{{ inputs.x }}"')
            name = cast("str", key.value)
            if name in fields:
                raise self._fault(key, f"the key '{name}' stands twice, in line {fields.lines[name]} too")
            fields.put(name, self.value(member, depth + 1), _line(key))
        return fields

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        text = cast("str", node.value)
        # YAML 1.1, which the parser speaks, takes 1e3 for a text.
        if node.style is not None or (node.tag == _STRING and not _EXPONENT.fullmatch(text)):
            return text
        if _NULL.fullmatch(text):
            return None
        if _TRUE.fullmatch(text) or _FALSE.fullmatch(text):
            return text.lower() == "true"
        if _INTEGER.fullmatch(text) and len(text) < 300:
            return int(text)
        if _FLOAT.fullmatch(text) and math.isfinite(float(text)):
            return float(text)
        return text

    def _fault(self, node: yaml.Node, fact: str) -> WorkflowDefinitionError:
        return WorkflowDefinitionError([f"{self.name}:{_line(node)}: {fact}."])


def _line(node: yaml.Node) -> int:
    return node.start_mark.line + 1
