"""Expressions over items, in a process that is ended when they take too long.

Author and data together can make one that takes hours, a regular expression in it too, and CEL holds the interpreter
meanwhile: no thread could end it. So one process is asked for all items of an operation: JSON in, JSON out.
"""

from __future__ import annotations

import faulthandler
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ... import _os
from ..._json import decode, encode
from ...errors import ExpressionError, InvalidArgumentError
from ..expressions import FUNCTIONS, Expression

MOST_S = 20.0
MOST_CHARS = 1 << 24
"""Of JSON that all items together give."""
_MOST_MEMORY = 1 << 30


def check_expression(source: str, names: frozenset[str]) -> None:
    """Raise ValueError for what is no expression over these names."""
    expression = Expression(source)
    for name in sorted(expression.free - names):
        raise ValueError(f"reads '{name}', which is not known: there are {', '.join(sorted(names))}")
    for name in sorted(expression.functions - FUNCTIONS):
        raise ValueError(f"calls '{name}', which is no function")


def evaluate_each(source: str, scopes: Sequence[Mapping[str, Any]], **shared: Any) -> list[Any]:
    """What an expression gives in each scope, which has what is shared too: a value, or an ExpressionError for none.

    Starts a process, which takes about 0.1 s. Raises InvalidArgumentError where all take too long or make too much.
    """
    if not scopes:
        return []
    question = encode({"source": source, "scopes": scopes, "shared": shared, "seconds": 2 * MOST_S}).encode()
    try:
        asked = subprocess.run(  # noqa: S603 - this very module, which gets the expression as data
            [sys.executable, "-c", f"from {__name__} import main; main()"],
            input=question,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=MOST_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise _refusal(source, f"takes over {MOST_S:g} s") from None
    if asked.returncode:
        why = f"takes over {_MOST_MEMORY >> 30} GiB of memory, or {sys.executable} does not start"
        raise _refusal(source, f"{why} (exit status {asked.returncode})")
    answers = decode(asked.stdout)
    if answers is None:
        raise _refusal(source, f"makes over {MOST_CHARS:,} characters of JSON")
    return [ExpressionError(source, answer["fact"]) if "fact" in answer else answer["value"] for answer in answers]


def _refusal(source: str, fact: str) -> InvalidArgumentError:
    return InvalidArgumentError(
        f"'{source[:120]}' {fact}, for all items together. Simplify it, or give the operation fewer or shorter items.",
        argument="config",
    )


def main() -> None:
    """Answer one question."""
    question = decode(sys.stdin.buffer.read())
    faulthandler.dump_traceback_later(question["seconds"], exit=True)  # when nobody is left to end this process
    _os.limit_memory(_MOST_MEMORY)
    answers: list[str] | None = []
    chars = 0
    expression, shared = Expression(question["source"]), question["shared"]
    for answer in _answers(expression, ({**shared, **scope} for scope in question["scopes"])):
        chars += len(answer)
        if chars > MOST_CHARS:
            answers = None
            break
        answers.append(answer)
    sys.stdout.buffer.write(b"null" if answers is None else f"[{','.join(answers)}]".encode())


def _answers(expression: Expression, scopes: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    for scope in scopes:
        try:
            yield encode({"value": expression.evaluate(scope)})
        except ExpressionError as error:
            yield encode({"fact": error.fact})
