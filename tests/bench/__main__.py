"""The benchmark: `python -m tests.bench [--check] [--json FILE] [--only ROW…] [--quick] [--in DIR]`.

Every figure is a ratio to a control of the same run, or says its unit; the median of three runs stands beside its
goal. The directory decides which disk is measured, and keeps the big stores for the next time.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import commits, files, listings, serving, slow, workflows
from .measure import Row
from .stores import QUICK, Ground, Measure, Scale

MEASURES: list[tuple[Measure, list[Row]]] = [
    *commits.MEASURES,
    *listings.MEASURES,
    *files.MEASURES,
    *serving.MEASURES,
    *slow.MEASURES,
    *workflows.MEASURES,
]


def run(directory: Path, scale: Scale, only: Sequence[str] = ()) -> list[dict[str, Any]]:
    """The rows whose names have one of the words of `only`, or all, measured."""
    ground = Ground(directory, scale)
    results: list[dict[str, Any]] = []
    try:
        for measure, rows in MEASURES:
            wanted = [row for row in rows if not only or any(word in row.name for word in only)]
            if not wanted:
                continue
            runs = [measure(ground) for _ in range(scale.runs)]
            for row in wanted:
                figures = [one.figures[row.name] for one in runs]
                figure = statistics.median(figures)
                results.append(
                    {
                        "row": row.name,
                        "level": row.level,
                        "what": row.what,
                        "goal": row.told_goal(),
                        "figure": round(figure, 3),
                        "ok": row.reached(figure),
                        "runs": [round(one, 3) for one in figures],
                        "detail": [dict(one.detail) for one in runs],
                    }
                )
                print(line(results[-1]), flush=True)
    finally:
        ground.close()
    return results


def line(result: dict[str, Any]) -> str:
    """A row of the table."""
    runs = " ".join(f"{one:.2f}" for one in result["runs"])
    verdict = "ok  " if result["ok"] else "MISS"
    return f"{verdict} {result['level']:<8}{result['row']:<38}{result['figure']:>9.2f}  {result['goal']:<15}[{runs}]"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and tell by the exit code whether all goals were reached."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--check", action="store_true", help="exit 1 where a goal is missed")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    parser.add_argument("--only", nargs="+", default=[], metavar="ROW", help="rows whose name has one of these")
    parser.add_argument("--quick", action="store_true", help="tiny counts: shows that it works, measures nothing")
    parser.add_argument("--in", dest="directory", type=Path, metavar="DIR", help="a directory to measure in, kept")
    given = parser.parse_args(arguments)
    scale = QUICK if given.quick else Scale()
    with tempfile.TemporaryDirectory() as temporary:
        directory = given.directory or Path(temporary)
        directory.mkdir(parents=True, exist_ok=True)
        results = run(directory.resolve(), scale, given.only)
    if given.json is not None:
        given.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    missed = [result["row"] for result in results if not result["ok"]]
    verdict = f" Missed: {', '.join(missed)}." if missed else ""
    print(f"{len(results) - len(missed)} of {len(results)} goals reached.{verdict}")
    return 1 if missed and given.check else 0


if __name__ == "__main__":
    sys.exit(main())
