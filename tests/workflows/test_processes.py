"""Runs in real processes: killed, suspended, started twice, answered from elsewhere."""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path

import anyio
import pytest

from mcp_sessions import SessionManager, open_storage
from mcp_sessions.workflows import WorkflowEngine, WorkflowStatus, claims
from mcp_sessions.workflows import engine as engines
from tests.processes import Child, Children, full_counts, until
from tests.workflows import programs

ROUNDS = 40 if full_counts() else 4
ONCE = {f"{what}-{n}": 1 for what in ("begin", "end") for n in range(1, 6)}


@pytest.fixture(params=["sqlite", "files"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"sqlite://{tmp_path}/s.db" if request.param == "sqlite" else f"file://{tmp_path}/sessions"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


def lines(log: Path) -> list[str]:
    return log.read_text(encoding="utf-8").split() if log.exists() else []


def test_a_run_killed_in_its_third_step_goes_on_there(url: str, log: Path) -> None:
    with Child(programs.run, url, str(log), programs.FIVE, 3) as first:
        until(lambda: "begin-3" in lines(log))
        first.kill()
    with Child(programs.run, url, str(log)) as second:
        assert second.hear() == ["completed", {"last": 50}]
        second.ends_well()
    assert Counter(lines(log)) == {**ONCE, "begin-3": 2}
    with SessionManager(open_storage(url)) as manager:
        assert [record.result for record in manager.invocations("r1", "act", "ok").items] == [50, 40, 30, 20, 10]
        assert len(manager.invocations("r1").items) == 5


def is_so_far(log: Path, enough: int, child: Child) -> bool:
    return len(lines(log)) >= enough or child.process.poll() is not None


def test_a_run_killed_at_any_moment_has_each_finished_step_once(url: str, log: Path) -> None:
    kills = 0
    for moment in range(ROUNDS):
        with Child(programs.run, url, str(log), programs.FIVE, 0, f"r{moment}") as child:
            until(partial(is_so_far, log, len(lines(log)) + moment % 10, child))
            kills += child.process.poll() is None
            child.kill()
    with SessionManager(open_storage(url)) as manager:
        for moment in range(ROUNDS):
            engine = WorkflowEngine(manager, toolbox=programs.toolbox(str(log)))
            with_run = manager.storage.session_exists(f"r{moment}")
            result = anyio.run(engine.resume, f"r{moment}") if with_run else None
            if result is not None:
                assert (result.status, result.outputs) == (WorkflowStatus.COMPLETED, {"last": 50})
                done = manager.invocations(f"r{moment}", "act", "ok").items
                assert sorted(one.result for one in done) == [10, 20, 30, 40, 50]
    assert kills > 0


def test_a_suspended_process_is_taken_over_and_finishes_nothing_when_it_wakes(
    url: str, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not full_counts():
        monkeypatch.setattr(claims, "SILENT_S", 2.0)  # of the process that takes over; else 30 s
    with Child(programs.run, url, str(log), programs.FIVE, 3) as first:
        until(lambda: "begin-3" in lines(log))
        first.suspend()
        with SessionManager(open_storage(url)) as manager:
            engine = WorkflowEngine(manager, toolbox=programs.toolbox(str(log)))
            result = anyio.run(engine.resume, "r1")
            assert result.status is WorkflowStatus.COMPLETED
            Path(f"{log}.go").touch()
            first.go_on()
            assert first.hear() == ["WorkflowTakenOverError", None]
            first.ends_well()
            after = engine.status("r1")
        assert after == result
    with SessionManager(open_storage(url)) as manager:
        assert len(manager.invocations("r1", "act", "ok").items) == 5
        assert manager.get_value("r1", "step.s3") == 30


def test_two_processes_that_start_the_same_run_run_each_step_once(url: str, log: Path) -> None:
    with Children() as children:
        both = [children.start(programs.run, url, str(log)) for _ in range(2)]
        for child in both:
            assert child.hear() == ["completed", {"last": 50}]
            child.ends_well()
    assert Counter(lines(log)) == ONCE


def test_an_approval_is_answered_from_another_process_after_a_restart(url: str, log: Path) -> None:
    text = "name: w\nsteps: [{id: ok, approve: 'Go?'}, {id: a, if: steps.ok.result.approved, tool: act, with: {n: 1}}]"
    for _ in range(2):  # asked for again, it waits again
        with Child(programs.run, url, str(log), text) as child:
            assert child.hear() == ["waiting", {}]
            child.ends_well()
    assert lines(log) == []
    with Child(programs.respond, url, str(log), "ok", True) as other:
        assert other.hear() == ["completed", {}]
        other.ends_well()
    assert lines(log) == ["begin-1", "end-1"]


def test_fifty_runs_at_once_lose_nothing(url: str, log: Path) -> None:
    async def all_of_them(engine: WorkflowEngine) -> list[WorkflowStatus]:
        statuses: list[WorkflowStatus] = []
        definition = engines.as_definition(
            {"name": "five", "steps": [{"id": f"s{n}", "tool": "act", "with": {"n": n}} for n in range(1, 6)]}
        )

        async def one(number: int) -> None:
            statuses.append((await engine.execute(definition, None, f"r{number}")).status)

        async with anyio.create_task_group() as group:
            for number in range(50):
                group.start_soon(one, number)
        return statuses

    with SessionManager(open_storage(url)) as manager:
        engine = WorkflowEngine(manager, toolbox=programs.toolbox(str(log)))
        assert Counter(anyio.run(all_of_them, engine)) == {WorkflowStatus.COMPLETED: 50}
        assert Counter(lines(log)) == dict.fromkeys(ONCE, 50)
        assert len(engine.list_runs(limit=100)) == 50
        assert manager.check() == [one for one in manager.check() if one.level == "ok"]


def test_a_run_that_a_full_disk_ended_goes_on_in_the_same_process(tmp_path: Path) -> None:
    with Child(programs.run_on_a_full_disk, f"{tmp_path}/s.db") as child:
        assert child.hear() == "StorageError"
        assert child.hear() == {"a": 1}  # without waiting for itself to fall silent
        assert child.end() == 0
