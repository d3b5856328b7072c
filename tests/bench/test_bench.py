"""The benchmark runs, and says what was measured; what comes out is not judged here, on a machine that is not quiet."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from tests.processes import full_counts

from . import __main__ as bench
from . import commits, peers
from .__main__ import MEASURES, main


def test_a_quick_run_measures_every_row(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    rows = [[row.name for row in rows] for _, rows in MEASURES]
    if not full_counts():  # each of these starts a server or more, and they differ by their transport alone
        rows = [names for names in rows if not re.search(r"(?i)\b(http|sse)\b", names[0])]
    wanted = [name for names in rows for name in names]

    main(["--quick", "--json", str(figures), "--only", *wanted])

    measured = {result["row"]: result for result in json.loads(figures.read_text(encoding="utf-8"))}
    assert list(measured) == wanted
    for result in measured.values():
        assert result["level"] in ("storage", "call", "MCP", "CLI")
        assert result["what"]
        assert result["goal"]
        assert len(result["runs"]) == len(result["detail"]) == 1
        assert isinstance(result["ok"], bool)
    assert measured["4 processes: lost"]["figure"] == 0
    assert measured["files: 4 processes: lost"]["figure"] == 0
    assert measured["1,000 sessions by 64 threads: lost"]["figure"] == 0


def test_one_row_can_be_asked_for(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"

    main(["--quick", "--only", "sqlite commit", "--json", str(figures), "--in", str(tmp_path / "here")])

    names = [result["row"] for result in json.loads(figures.read_text(encoding="utf-8"))]
    assert names == ["sqlite commit", "sqlite commit, 64 callers"]


@pytest.mark.parametrize(("goal", "code"), [(0.0, 1), (1e9, 0)])
def test_a_check_fails_where_a_goal_is_missed(monkeypatch: pytest.MonkeyPatch, goal: float, code: int) -> None:
    row = replace(commits.COMMIT, goal=goal)
    monkeypatch.setattr(bench, "MEASURES", [(partial(commits.commit, row, "sqlite"), [row])])

    assert main(["--quick", "--check"]) == code


def test_each_peer_is_compared_or_named_as_missing(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"

    peers.main(["--quick", "--json", str(figures)])

    told: dict[str, set[str]] = {}
    for result in json.loads(figures.read_text(encoding="utf-8")):
        assert "missing" in result or result["work"] in peers.WORKS
        told.setdefault(result["peer"], set()).add(result.get("work", "missing"))
    assert list(told) == list(peers.PEERS)
