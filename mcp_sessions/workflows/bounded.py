"""Expressions in a process of their own, which is ended where one takes too long.

CEL's macros go through lists within lists, and hold the interpreter while they do: no thread could end one. The
process is started with the first such expression and answers one after the other; one line of JSON each way.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import IO, Any, Self, cast

from .. import _os
from .._json import decode, encode
from ..errors import ExpressionError
from .expressions import MOST_BYTES, Expression

MOST_S = 2.0
"""Of one expression."""
_START_S = 20.0
_MOST_MEMORY = 1 << 30


class Evaluator:
    """A context manager: what evaluates, in threads, until it is closed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def evaluate(self, expression: Expression, scope: Mapping[str, Any]) -> Any:
        """What it gives. Raises ExpressionError, also after `MOST_S`."""
        question = encode({"source": expression.source, "scope": scope}).encode() + b"\n"
        with self._lock:
            process = self._process or self._start()
            timer = threading.Timer(MOST_S, process.kill)
            timer.start()
            answer = _asked(process, question)
            timer.cancel()
            if not answer:
                self._end()
                raise ExpressionError(expression.source, f"it takes over {MOST_S:g} s, or more memory than there is")
        told = cast("dict[str, Any]", decode(answer))
        if "fact" in told:
            raise ExpressionError(expression.source, told["fact"])
        return told["value"]

    def close(self) -> None:
        """End the process, if there is one."""
        with self._lock:
            self._end()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(  # noqa: S603 - this very module
            [sys.executable, "-m", __name__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        self._process = process
        timer = threading.Timer(_START_S, process.kill)
        timer.start()
        assert process.stdout is not None
        ready = process.stdout.readline()
        timer.cancel()
        if not ready:
            self._end()
            raise ExpressionError("…", "the process that evaluates expressions did not start")
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


def _asked(process: subprocess.Popen[bytes], question: bytes) -> bytes:
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(question)
        process.stdin.flush()
        return process.stdout.readline()
    except OSError:
        return b""


def main(source: IO[bytes], sink: IO[bytes]) -> None:
    """Answer questions until there are no more."""
    _os.limit_memory(_MOST_MEMORY)
    sink.write(b"ready\n")
    sink.flush()
    for line in source:
        question = decode(line)
        try:
            answer = encode({"value": Expression(question["source"]).evaluate(question["scope"])}).encode()
            if len(answer) > MOST_BYTES:
                raise ExpressionError("", f"it gives {len(answer):,} bytes; at most {MOST_BYTES:,} may be")
        except ExpressionError as error:
            answer = encode({"fact": error.fact}).encode()
        except MemoryError:
            return
        sink.write(answer + b"\n")
        sink.flush()


if __name__ == "__main__":
    main(sys.stdin.buffer, sys.stdout.buffer)
