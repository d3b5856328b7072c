"""Fail when a test was skipped (or expected to fail) whose reason is not listed.

    python .ci/check_skips.py JUNIT_XML SKIPS

A line of SKIPS is `file::test | reason`. It stands for all cases of a parametrised test.
"""

from __future__ import annotations

import sys
from pathlib import Path
from xml.etree import ElementTree as ET


def skipped(junit_xml: Path) -> dict[str, str]:
    """What was skipped: `file::test` -> the message of the skip; a file skipped whole stands for itself."""
    found: dict[str, str] = {}
    for case in ET.parse(junit_xml).iter("testcase"):
        skip = case.find("skipped")
        if skip is None:
            continue
        file, name = case.get("file", ""), case.get("name", "").split("[")[0]
        module = file.removesuffix(".py").replace("/", ".")
        nesting = case.get("classname", "").removeprefix(module).strip(".")
        parts = [file, *nesting.split("."), name if name != module else ""]
        found["::".join(part for part in parts if part)] = skip.get("message", "")
    return found


def listed(skips: Path) -> set[str]:
    """The tests that may be skipped. Raises ValueError for a line without a reason."""
    tests: set[str] = set()
    for line in skips.read_text(encoding="utf-8").splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        test, _, reason = line.partition("|")
        if not reason.strip():
            raise ValueError(f"{skips}: no reason after '|' in: {line}")
        tests.add(test.strip())
    return tests


def main() -> int:
    junit_xml, skips = map(Path, sys.argv[1:])
    unlisted = {test: why for test, why in skipped(junit_xml).items() if test not in listed(skips)}
    for test, why in unlisted.items():
        print(f"{test} was skipped ({why}), and its reason is not listed in {skips}")
    return 1 if unlisted else 0


if __name__ == "__main__":
    sys.exit(main())
