"""Which logs are being written: so that whoever comes after a process that died in the middle knows where to look.

Written and cleared under the gate, and never synced: after a power cut every log is looked at anyway.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from ..._json import decode, encode
from ..._os import write_at

_NONE, _SOME = b"0", b"1"


class Underway:
    """A small file of the store."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1

    def names(self) -> list[str] | None:
        """The logs that somebody was writing and did not finish; None where that is not told as it should be."""
        fd = self._open()
        os.lseek(fd, 0, os.SEEK_SET)
        first = os.read(fd, 1)
        if first in (_NONE, b""):
            return []
        try:
            length = os.fstat(fd).st_size
            return list(map(str, decode(os.read(fd, length).partition(b"\n")[0])))
        except (ValueError, TypeError):
            return None

    def begin(self, names: Iterable[str]) -> None:
        """These are about to be written."""
        write_at(self._open(), _SOME + encode(list(names)).encode() + b"\n", 0)

    def end(self) -> None:
        """Nothing is."""
        write_at(self._open(), _NONE, 0)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _open(self) -> int:
        if self._fd < 0:
            flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
            self._fd = os.open(self._path, flags, 0o600)
        return self._fd
