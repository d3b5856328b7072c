"""What is done at the same time, and ends as one."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, cast


@contextmanager
def first_error() -> Generator[None]:
    """Raise the first error of task groups by itself, as their caller knows it."""
    try:
        yield
    except ExceptionGroup as errors:
        error: Any = errors
        while isinstance(error, ExceptionGroup):
            error = cast("ExceptionGroup[Exception]", error).exceptions[0]
        raise error from error.__cause__
