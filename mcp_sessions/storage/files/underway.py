"""Which logs were written last, and by whom: where that was another process, it may have died in the middle.

Written under the gate, and never synced: after a power cut every log is looked at anyway.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from ..._json import decode, encode
from ..._os import read_at, write_at
from ...session import new_id


class Underway:
    """A small file of the store."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._me = new_id("prc")
        self._mine = b""
        self._fd = -1

    def others(self) -> list[str] | None:
        """The logs that another process wrote last; None where that is not told as it should be."""
        fd = self._fd if self._fd >= 0 else self._open()
        there = read_at(fd, len(self._mine) or 1, 0)
        if there == self._mine:
            return []
        try:
            return list(map(str, decode(read_at(fd, os.fstat(fd).st_size, 0).partition(b"\n")[0])[1:]))
        except (ValueError, TypeError):
            return None

    def begin(self, names: Iterable[str]) -> None:
        """These are about to be written."""
        mine = encode([self._me, *names]).encode() + b"\n"
        if mine != self._mine:
            write_at(self._fd if self._fd >= 0 else self._open(), mine, 0)
            self._mine = mine

    def leave(self, names: Iterable[str] | None) -> None:
        """Whoever comes next has to look at these; None: at all."""
        self._mine = b""
        left = b"?" if names is None else encode(["", *names]).encode()
        write_at(self._fd if self._fd >= 0 else self._open(), left + b"\n", 0)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _open(self) -> int:
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
        self._fd = os.open(self._path, flags, 0o600)
        return self._fd
