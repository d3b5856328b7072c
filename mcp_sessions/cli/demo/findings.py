"""Findings: runs of the demo's tools, each with its real arguments, outcome and duration, and what is said of it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from ..text import counted
from . import library
from .library import Module, Place

T = TypeVar("T")
USED = ("os.replace", "functools.wraps", "contextlib.suppress", "time.monotonic", "struct.unpack", "os.fsync")
TIMED = {
    "json.dumps": ("json.dumps(value)", "import json; value = {'key': list(range(20))}"),
    "json.loads": ("json.loads(text)", "import json; text = json.dumps({'key': list(range(20))})"),
    "re.search": ("search(text)", "import re; search = re.compile(r'[a-z]+=(\\d+)').search; text = 'x ' * 50 + 'n=42'"),
    "copy.deepcopy": ("copy.deepcopy(value)", "import copy; value = {'key': list(range(20))}"),
    "os.stat": ("os.stat('.')", "import os"),
    "hashlib.sha256": ("hashlib.sha256(data).digest()", "import hashlib; data = bytes(1024)"),
    "datetime.now": ("datetime.now(UTC)", "from datetime import datetime, UTC"),
    "pathlib.Path": ("Path('a') / 'b'", "from pathlib import Path"),
}


class Finding(NamedTuple):
    """What one run of a tool found out: for the record, as a message, and, in short, under a key."""

    tool: str
    arguments: dict[str, Any]
    duration_ms: float
    result: str
    """All that came out, as JSON."""
    said: str
    key: str
    value: Any


def listed(folder: Path) -> tuple[dict[str, int], Finding]:
    """The modules, and how many files each has. Raises FileNotFoundError where there is no source."""
    modules, run = _run(library.list_modules, folder=folder)
    if not modules:
        raise FileNotFoundError(f"{folder} has no Python source: this Python came without it.")
    value = {"modules": len(modules), "files": sum(modules.values()), "folder": str(folder)}
    said = f"{value['modules']:,} modules and packages in {value['files']:,} files under {folder}"
    return modules, Finding(*run, said, "library", value)


def measured(name: str, folder: Path) -> tuple[Module, Finding]:
    """One module."""
    module, run = _run(library.measure_module, name=name, folder=folder)
    value = {
        "lines": module.lines,
        "bytes": module.bytes,
        "files": module.files,
        "functions": module.functions,
        "classes": module.classes,
        "longest": module.longest.name,
        "longest_lines": module.longest.size,
        "depth": module.deepest.size,
    }
    return module, Finding(*run, _told(module), f"module.{name}", value)


def imported(modules: Sequence[Module]) -> tuple[list[tuple[str, int]], Finding]:
    """By how many modules each is imported, the most imported first."""
    counts, run = _run(library.count_imports, imports={module.name: module.imports for module in modules})
    ranked = list(counts.items())
    said = "Most imported: " + ", ".join(f"{name} by {count}" for name, count in ranked[:10]) + "."
    return ranked, Finding(*run, said, "imports", dict(ranked[:20]))


def used(name: str, folder: Path) -> tuple[list[str], Finding]:
    """The places where a function is used."""
    places, run = _run(library.find_uses, name=name, folder=folder)
    said = f"{name} is used at {counted(len(places), 'place')}: {', '.join(places[:8])}"
    return places, Finding(*run, said, f"uses.{name}", {"places": len(places), "first": places[:5]})


def timed(name: str) -> tuple[float, Finding]:
    """What a call costs, in microseconds."""
    statement, setup = TIMED[name]
    micros, run = _run(library.time_call, statement=statement, setup=setup)
    said = f"{name}: `{statement}` costs {micros:.3g} microseconds"
    return micros, Finding(*run, said, f"cost.{name}", round(micros, 4))


def _run(tool: Callable[..., T], **arguments: Any) -> tuple[T, tuple[str, dict[str, Any], float, str]]:
    """What a tool returns, and what the record of its call takes."""
    began = time.perf_counter()
    result = tool(**arguments)
    duration_ms = (time.perf_counter() - began) * 1000
    told = {name: str(value) if isinstance(value, Path) else value for name, value in arguments.items()}
    return result, (tool.__name__, told, duration_ms, as_json(result))


def as_json(result: Any) -> str:
    """What a tool returned."""
    if isinstance(result, Module):
        parts = result._asdict()
        result = {name: part._asdict() if isinstance(part, Place) else part for name, part in parts.items()}
    return json.dumps(result)


def _told(module: Module) -> str:
    parts = [
        f"{module.name}: {module.lines:,} lines, {module.bytes:,} bytes in {counted(module.files, 'file')}",
        f"{counted(module.functions, 'function')}, {counted(module.classes, 'class', 'classes')}",
    ]
    if module.longest.size:
        parts.append(
            f"the longest function is {module.longest.name}, {module.longest.size:,} lines, at {module.longest.where}"
        )
    if module.deepest.size:
        parts.append(f"nested {module.deepest.size} deep at {module.deepest.where}")
    if module.imports:
        parts.append(f"imports {', '.join(module.imports)}")
    return "; ".join(parts) + "."
