"""Findings: runs of the demo's tools, each with its real arguments, outcome and duration, and what is said of it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from ..text import counted
from . import library
from .library import Module

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
    """What one run of a tool found out: for the record, as a message, and under a key."""

    tool: str
    arguments: dict[str, Any]
    duration_ms: float
    said: str
    key: str
    value: Any

    @property
    def result(self) -> str:
        """What came out, as the record keeps it."""
        return json.dumps(self.value)


def listed(folder: Path) -> tuple[dict[str, list[Path]], Finding]:
    """The files of each module. Raises FileNotFoundError where there is no source."""
    files, took = _timed(library.list_modules, folder)
    count = sum(map(len, files.values()))
    if not count:
        raise FileNotFoundError(f"{folder} has no Python source: this Python came without it.")
    said = f"{len(files):,} modules and packages in {count:,} files under {folder}"
    value = {"modules": len(files), "files": count, "folder": str(folder)}
    return files, Finding("list_modules", {"folder": str(folder)}, took, said, "library", value)


def measured(name: str, files: Iterable[Path], folder: Path) -> tuple[Module, Finding]:
    """One module."""
    module, took = _timed(library.measure_module, name, files, folder)
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
    return module, Finding("measure_module", {"module": name}, took, _told(module), f"module.{name}", value)


def imported(modules: Sequence[Module]) -> tuple[list[tuple[str, int]], Finding]:
    """By how many modules each is imported, the most imported first."""
    ranked, took = _timed(library.count_imports, modules)
    said = "Most imported: " + ", ".join(f"{name} by {count}" for name, count in ranked[:10]) + "."
    return ranked, Finding("count_imports", {"modules": len(modules)}, took, said, "imports", dict(ranked[:20]))


def used(name: str, modules: Mapping[str, Iterable[Path]], folder: Path) -> tuple[list[str], Finding]:
    """The places where a function is used."""
    places, took = _timed(library.find_uses, name, modules, folder)
    said = f"{name} is used at {counted(len(places), 'place')}: {', '.join(places[:8])}"
    value = {"places": len(places), "first": places[:5]}
    return places, Finding("find_uses", {"name": name}, took, said, f"uses.{name}", value)


def timed(name: str) -> tuple[float, Finding]:
    """What a call costs, in microseconds."""
    statement, setup = TIMED[name]
    micros, took = _timed(library.time_call, statement, setup)
    said = f"{name}: `{statement}` costs {micros:.3g} microseconds"
    arguments = {"statement": statement, "setup": setup}
    return micros, Finding("time_call", arguments, took, said, f"cost.{name}", round(micros, 4))


def _timed(tool: Callable[..., T], *arguments: Any) -> tuple[T, float]:
    """What a tool returns, and how many milliseconds it took."""
    began = time.perf_counter()
    result = tool(*arguments)
    return result, (time.perf_counter() - began) * 1000


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
