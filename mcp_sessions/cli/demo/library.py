"""The tools of the demo: what they find out about a Python standard library, they really look up in it.

Each takes a folder of source, so that they can be tried on a small one, and returns facts that JSON can hold.
"""

from __future__ import annotations

import ast
import sysconfig
import timeit
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

# Not of the library itself: what was installed into it, tests, and two programs.
LEFT_OUT = {"site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3", "__pycache__"}
_FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)


class Place(NamedTuple):
    """Something that stands in a file, and its size: the lines of a function, the depth of a statement."""

    name: str
    where: str
    size: int


NOWHERE = Place("", "", 0)


class Module(NamedTuple):
    """What there is to know of one top-level module or package."""

    name: str
    files: int
    lines: int
    bytes: int
    functions: int
    classes: int
    longest: Place
    deepest: Place
    """A statement that stands in so many others."""
    imports: list[str]


def library_folder() -> Path:
    """Where the source of the standard library stands."""
    return Path(sysconfig.get_path("stdlib"))


def list_modules(folder: Path) -> dict[str, int]:
    """The top-level modules and packages by name, and how many source files each has."""
    counts = Counter(file.relative_to(folder).parts[0].removesuffix(".py") for file in _sources(folder))
    return dict(sorted(counts.items()))


def _sources(folder: Path) -> Iterator[Path]:
    for entry in sorted(folder.iterdir()):
        if entry.name in LEFT_OUT:
            continue
        if entry.is_dir():
            yield from _sources(entry)
        elif entry.suffix == ".py":
            yield entry


def _sources_of(module: str, folder: Path) -> Iterator[Path]:
    if (folder / module).is_dir():
        yield from _sources(folder / module)
    if (folder / f"{module}.py").is_file():
        yield folder / f"{module}.py"


def measure_module(name: str, folder: Path) -> Module:
    """Size, longest function, deepest statement and imports of a module, from its parsed source."""
    lines = size = functions = classes = count = 0
    longest = deepest = NOWHERE
    imports: set[str] = set()
    for file in _sources_of(name, folder):
        source = file.read_bytes()
        count, lines, size = count + 1, lines + len(source.splitlines()), size + len(source)
        try:
            tree = ast.parse(source)
        except (SyntaxError, ValueError):
            continue  # a template, or a test of the parser: it has lines, but no functions that count
        shown = file.relative_to(folder).as_posix()
        for node, depth in _statements(tree):
            if isinstance(node, _FUNCTION):
                functions += 1
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                longest = max(longest, Place(node.name, f"{shown}:{node.lineno}", length), key=_size)
            elif isinstance(node, ast.ClassDef):
                classes += 1
            elif isinstance(node, ast.Import):
                imports.update(alias.name.partition(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                imports.add(node.module.partition(".")[0])
            deepest = max(deepest, Place(name, f"{shown}:{node.lineno}", depth), key=_size)
    return Module(name, count, lines, size, functions, classes, longest, deepest, sorted(imports - {name}))


def _size(place: Place) -> int:
    return place.size


def _statements(tree: ast.Module) -> Iterator[tuple[ast.stmt, int]]:
    """Each statement, and in how many others it stands."""
    waiting: list[tuple[ast.stmt, int]] = [(node, 0) for node in reversed(tree.body)]
    while waiting:
        node, depth = waiting.pop()
        yield node, depth
        # `elif` is an If in the else of another one, and no deeper for a reader.
        orelse: list[ast.stmt] = getattr(node, "orelse", [])
        elif_ = isinstance(node, ast.If) and len(orelse) == 1 and isinstance(orelse[0], ast.If)
        waiting += [(child, depth + (not elif_)) for child in orelse]
        for block in (node, *getattr(node, "handlers", ()), *getattr(node, "cases", ())):
            for body in (getattr(block, "body", ()), getattr(block, "finalbody", ())):
                waiting += [(child, depth + 1) for child in body]


def find_uses(name: str, folder: Path) -> list[str]:
    """Where `package.function` is used, as file:line; also under a name that it or its package was imported as."""
    package, _, function = name.rpartition(".")
    # To parse a file takes long, so only those are that can hold one; as far as nobody writes a line in pieces.
    hints = [hint.encode() for hint in (name, f"from {package} import", f"import {package} as")]
    places: list[str] = []
    for file in _sources(folder):
        source = file.read_bytes()
        if not any(hint in source for hint in hints):
            continue
        try:
            tree = ast.parse(source)
        except (SyntaxError, ValueError):
            continue
        shown = file.relative_to(folder).as_posix()
        places += [f"{shown}:{line}" for line in _used_at(tree, package, function)]
    return places


def _used_at(tree: ast.Module, package: str, function: str) -> list[int]:
    packages, functions = {package}, set[str]()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            packages |= {alias.asname for alias in node.names if alias.name == package and alias.asname}
        elif isinstance(node, ast.ImportFrom) and node.module == package:
            functions |= {alias.asname or alias.name for alias in node.names if alias.name == function}
    lines: list[int] = []
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id=owner), attr=attribute) if attribute == function and owner in packages:
                lines.append(node.lineno)
            case ast.Name(id=known, ctx=ast.Load()) if known in functions:
                lines.append(node.lineno)
            case _:
                pass
    return sorted(lines)


def time_call(statement: str, setup: str = "pass") -> float:
    """What one call costs in microseconds: the best of five rounds of about 10 ms."""
    timer = timeit.Timer(statement, setup)
    number = 1
    while (took := timer.timeit(number)) < 0.005:
        number *= 4
    number = max(1, round(number * 0.01 / took))
    return min(timer.repeat(5, number)) / number * 1e6


def count_imports(imports: Mapping[str, Iterable[str]]) -> dict[str, int]:
    """From what each module imports: by how many each is imported, the most imported first."""
    counts = Counter(name for names in imports.values() for name in names)
    return dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))
