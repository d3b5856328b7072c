"""Expressions in a process of their own, which is ended where one takes too long.

CEL's macros go through lists within lists, and hold the interpreter while they do: no thread could end one. The
process is started with the first such expression and answers one question after the other; one line of JSON each way.
"""

from __future__ import annotations

import faulthandler
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import IO, Any, Self, cast

from .. import _os
from .._json import decode, encode
from ..errors import ExpressionError, InvalidArgumentError
from .expressions import MOST_BYTES, Expression

MOST_S = 2.0
"""Of one expression."""
MOST_FOR_EACH_S = 20.0
"""Of one expression over many items."""
MOST_BYTES_FOR_EACH = 1 << 24
"""Of JSON that all items together give."""
_START_S = 20.0
_MOST_MEMORY = 1 << 30


class Evaluator:
    """A context manager: what evaluates, in threads, until it is closed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def evaluate(self, expression: Expression, scope: Mapping[str, Any]) -> Any:
        """What it gives. Raises ExpressionError, also after `MOST_S`."""
        answers = self._asked(expression.source, [scope], {}, MOST_S, MOST_BYTES)
        if answers is None:
            raise ExpressionError(expression.source, f"it takes over {MOST_S:g} s, or more memory than there is")
        if not answers:
            raise ExpressionError(expression.source, f"it gives too much: at most {MOST_BYTES:,} bytes may be")
        return _value(expression.source, answers[0], fails=True)

    def evaluate_each(
        self, expression: Expression, scopes: Sequence[Mapping[str, Any]], shared: Mapping[str, Any]
    ) -> list[Any]:
        """What it gives in each scope, which has what is shared too: a value, or an ExpressionError for none.

        Raises InvalidArgumentError where all take too long or make too much.
        """
        answers = self._asked(expression.source, scopes, shared, MOST_FOR_EACH_S, MOST_BYTES_FOR_EACH)
        if not answers:
            fact = (
                f"takes over {MOST_FOR_EACH_S:g} s, or more memory than there is"
                if answers is None
                else f"makes over {MOST_BYTES_FOR_EACH:,} bytes of JSON"
            )
            raise InvalidArgumentError(
                f"'{expression.source[:120]}' {fact}, for all items together. Simplify it, or give the operation "
                "fewer or shorter items.",
                argument="config",
            )
        return [_value(expression.source, answer) for answer in answers]

    def close(self) -> None:
        """End the process, if there is one."""
        with self._lock:
            self._end()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _asked(
        self,
        source: str,
        scopes: Sequence[Mapping[str, Any]],
        shared: Mapping[str, Any],
        seconds: float,
        most_bytes: int,
    ) -> list[dict[str, Any]] | None:
        """What the process answers for each scope, nothing where that is too much; None where it had to be ended."""
        asked = {"source": source, "scopes": scopes, "shared": shared, "seconds": seconds, "bytes": most_bytes}
        question = encode(asked).encode() + b"\n"
        with self._lock:
            process = self._process or self._start(source)
            overdue = threading.Event()
            timer = threading.Timer(seconds, lambda: (overdue.set(), process.kill()))
            timer.start()
            answer = _answer(process, question)
            timer.cancel()
            timer.join()
            if not answer or overdue.is_set():
                self._end()
        return cast("list[dict[str, Any]]", decode(answer)) if answer else None

    def _start(self, source: str) -> subprocess.Popen[bytes]:
        # -P: what it imports is not looked for in the directory in which somebody happens to be
        command = [sys.executable, "-P", "-m", __name__]
        process = subprocess.Popen(  # noqa: S603 - this very module
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        self._process = process
        timer = threading.Timer(_START_S, process.kill)
        timer.start()
        assert process.stdout is not None
        ready = process.stdout.readline()
        timer.cancel()
        if not ready:
            self._end()
            raise ExpressionError(source, f"{sys.executable}, which evaluates expressions, did not start")
        return process

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        for stream in (process.stdin, process.stdout):
            with suppress(OSError):
                cast("IO[bytes]", stream).close()
        process.wait()


def _answer(process: subprocess.Popen[bytes], question: bytes) -> bytes:
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(question)
        process.stdin.flush()
        return process.stdout.readline()
    except OSError:
        return b""


def _value(source: str, answer: dict[str, Any], *, fails: bool = False) -> Any:
    if "fact" not in answer:
        return answer["value"]
    error = ExpressionError(source, answer["fact"])
    if fails:
        raise error
    return error


def main(source: IO[bytes], sink: IO[bytes]) -> None:
    """Answer questions until there are no more."""
    _os.limit_memory(_MOST_MEMORY)
    sink.write(b"ready\n")
    sink.flush()
    for line in source:
        question = decode(line)
        faulthandler.dump_traceback_later(2 * question["seconds"], exit=True)  # when nobody is left to end it
        try:
            answers = _joined(question)
        except MemoryError:
            return
        faulthandler.cancel_dump_traceback_later()
        sink.write(answers + b"\n")
        sink.flush()


def _joined(question: Mapping[str, Any]) -> bytes:
    answers: list[str] = []
    left = question["bytes"]
    for answer in _answers(question["source"], ({**question["shared"], **scope} for scope in question["scopes"])):
        left -= len(answer.encode())
        if left < 0:
            return b"[]"
        answers.append(answer)
    return f"[{','.join(answers)}]".encode()


def _answers(source: str, scopes: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    expression = Expression(source)
    for scope in scopes:
        try:
            yield encode({"value": expression.evaluate(scope)})
        except ExpressionError as error:
            yield encode({"fact": error.fact})


if __name__ == "__main__":
    main(sys.stdin.buffer, sys.stdout.buffer)
