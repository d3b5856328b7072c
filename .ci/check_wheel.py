"""Fail when a file of the package is missing from the wheel: python .ci/check_wheel.py WHEEL."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path


def main() -> int:
    package = Path("mcp_sessions")
    ours = {path.as_posix() for path in package.rglob("*") if path.is_file() and path.suffix != ".pyc"}
    with zipfile.ZipFile(sys.argv[1]) as wheel:
        missing = sorted(ours - set(wheel.namelist()))
    for path in missing:
        print(f"{path} is not in the wheel")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
