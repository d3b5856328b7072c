"""Programs of others that need Node 22, in the folder where npm installed them and it."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.processes import LONG_S


class UnexpectedError(Exception):
    """A client met what it does not expect. The text is all that is known of it."""


@dataclass(frozen=True)
class Node:
    """What is installed in a folder."""

    folder: Path

    def run(self, program: str, *args: str, exits: int | None = 0) -> subprocess.CompletedProcess[str]:
        """Run a program to its end. Raises UnexpectedError where it does not end, or `exits` otherwise."""
        binary = self.folder / "node_modules" / "node" / "bin"
        try:
            ran = subprocess.run(
                [binary / "node", self.folder / program, *args],
                capture_output=True,
                encoding="utf-8",
                check=False,
                stdin=subprocess.DEVNULL,
                timeout=LONG_S,
                env={**os.environ, "PATH": f"{binary}{os.pathsep}{os.environ['PATH']}", "HOME": str(self.folder)},
            )
        except subprocess.TimeoutExpired as error:
            raise UnexpectedError(f"{error}\n{error.stdout}\n{error.stderr}") from error
        if exits not in (None, ran.returncode):
            raise UnexpectedError(f"{program} {' '.join(args)}\nended with {ran.returncode}\n{ran.stdout}{ran.stderr}")
        return ran
