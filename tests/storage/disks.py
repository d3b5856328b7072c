"""A small disk of its own for a test: filled, freed, made read-only.

It is a file system of one megabyte where mounting is permitted. Elsewhere it is a folder: full means that this
process may write no larger files, and read-only is a matter of permissions, which bind whoever may not mount.
"""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self


class Disk:
    """An empty disk at `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._mounted = False
        self._ballast = path / "ballast"

    def take_all_but(self, free: int) -> None:
        """Leave so many bytes, more or less."""
        if self._mounted:
            stat = os.statvfs(self.path)
            self._ballast.write_bytes(b"\0" * (stat.f_bavail * stat.f_frsize - free))
        else:
            largest = max((file.stat().st_size for file in self.path.iterdir()), default=0)
            _may_write(largest + free)

    def give_back(self) -> None:
        self._ballast.unlink(missing_ok=True)
        _may_write(None)

    def read_only(self) -> None:
        if self._mounted:
            _run("mount", "-o", "remount,ro", self.path)
        else:
            for path in (*self.path.iterdir(), self.path):
                path.chmod(0o500)

    def writable(self) -> None:
        if self._mounted:
            _run("mount", "-o", "remount,rw", self.path)
        else:
            for path in (self.path, *self.path.iterdir()):
                path.chmod(0o700)

    @contextmanager
    def read_only_file(self, path: Path) -> Iterator[None]:
        """Meanwhile nobody may change this file."""
        if not self._mounted:
            path.chmod(0o400)
            yield
            path.chmod(0o600)
            return
        _run("mount", "--bind", path, path)
        try:
            _run("mount", "-o", "remount,bind,ro", path)
            yield
        finally:
            _run("umount", path)

    def __enter__(self) -> Self:
        self.path.mkdir()
        try:
            _run("mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", self.path)
            self._mounted = True
        except (OSError, subprocess.CalledProcessError):
            self._mounted = False
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.give_back()
        if self._mounted:
            _run("umount", self.path)


def _run(*command: str | Path) -> None:
    subprocess.run(command, check=True, capture_output=True)


def _may_write(size: int | None) -> None:
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most if size is None else size, most))
