"""`mcp-sessions doctor`: what it looks at, and what it says when that is not as it should be."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import apsw
import pytest

from mcp_sessions import FileSystemSessionStorage, SessionManager
from mcp_sessions.cli.clients import CLIENTS, config_path
from mcp_sessions.config import sqlite_url
from mcp_sessions.errors import StorageError
from mcp_sessions.models import Change, Failure, Invocation, InvocationStatus
from mcp_sessions.reads import LATE
from mcp_sessions.storage import SQLiteSessionStorage
from tests.processes import Child
from tests.storage.disks import Disk
from tests.storage.legacy_tree import metadata, save
from tests.stores import DURABLE, open_store

from .conftest import Run
from .programs import call_slowly


def examined(run: Run) -> dict[str, dict[str, Any]]:
    """The findings, by what was looked at; the exit status fits them."""
    result = run("doctor", "--json")
    report = json.loads(result.stdout)
    faults = [finding for finding in report["findings"] if finding["level"] == "fault"]
    assert (result.exit_code, report["ok"]) == ((1, False) if faults else (0, True))
    assert all(finding["next"] for finding in faults)
    return {finding["what"]: finding for finding in report["findings"]}


def test_before_the_first_session_all_is_well_and_nothing_is_made(place: Path, run: Run) -> None:
    found = examined(run)
    assert found["store"]["level"] == "ok"
    assert found["store"]["detail"] == f"sqlite://{place}: not yet created; the first session makes it"
    assert not place.parent.exists()


def test_a_sound_store_is_told_about(manager: SessionManager, run: Run) -> None:
    manager.create_session("s")
    manager.add_conversation_message("s", "user", "hello")
    found = examined(run)
    assert {"mcp-sessions", "Python", "settings", "store", "store version", "integrity", "running calls"} <= set(found)
    assert found[f"SQLite {apsw.sqlite_lib_version()}"]["detail"] == "no known fault"
    assert found["contents"]["detail"].startswith("1 sessions, 1 messages")
    assert {finding["level"] for what, finding in found.items() if what != "clients"} == {"ok"}


def test_each_line_has_level_and_what_and_faults_their_next_step(manager: SessionManager, run: Run) -> None:
    lines = run("doctor").stdout.splitlines()
    assert all(line.startswith(("ok       ", "warning  ", "         -> ")) for line in lines)
    at = lines.index("warning  clients: none starts mcp-sessions")
    assert lines[at + 1] == "         -> mcp-sessions install CLIENT"


def test_a_setting_that_cannot_be_used_is_a_fault_and_not_the_end(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MCP_SESSIONS_PORT", "high")
    found = examined(run)
    assert found["settings"]["level"] == "fault"
    assert "MCP_SESSIONS_PORT" in found["settings"]["detail"]
    assert set(CLIENTS) <= set(found)
    assert run("doctor").stderr == "1 fault found.\n"


def test_a_file_of_another_program_is_a_fault(place: Path, run: Run) -> None:
    place.parent.mkdir()
    place.write_text("no database at all " * 100, encoding="utf-8")
    assert "it is not a SQLite file" in examined(run)["store"]["detail"]


def test_a_newer_store_is_a_fault_that_says_to_upgrade(place: Path, manager: SessionManager, run: Run) -> None:
    manager.close()
    connection = apsw.Connection(str(place))
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    found = examined(run)["store"]
    assert "version 99" in found["detail"]
    assert found["next"] == "python -m pip install --upgrade mcp-sessions"


def test_a_damaged_file_is_a_fault(place: Path, run: Run) -> None:
    with SessionManager(SQLiteSessionStorage(place)) as manager:
        for number in range(20):
            manager.create_session(f"s{number}", purpose="words " * 200)
    content = bytearray(place.read_bytes())
    for page in range(4096 * 2, len(content), 4096):
        content[page + 8 : page + 1000] = b"\xff" * 992
    place.write_bytes(content)
    result = run("doctor", "--json")
    assert result.exit_code == 1
    findings = json.loads(result.stdout)["findings"]
    faults = [finding for finding in findings if finding["level"] == "fault"]
    assert faults
    for fault in faults:
        assert "mcp-sessions import sessions FILE --to URL" in fault["next"]
        assert "doctor" not in fault["detail"]


def test_a_damaged_search_index_is_a_fault_that_a_new_store_mends(
    tmp_path: Path, place: Path, manager: SessionManager, run: Run
) -> None:
    manager.create_session("s")
    manager.add_conversation_message("s", "user", "hello")
    assert manager.search("hello").items
    manager.close()
    connection = apsw.Connection(str(place))
    connection.execute("UPDATE search_data SET block = zeroblob(length(block)) WHERE id > 10")
    connection.close()
    found = examined(run)
    assert "mcp-sessions import sessions FILE --to URL" in found["the search index is damaged"]["next"]
    assert found["contents"]["detail"].startswith("1 sessions, 1 messages")
    assert found["running calls"]["level"] == "ok"
    new = tmp_path / "new.db"
    assert run("import", "sessions", str(place), "--to", sqlite_url(new)).exit_code == 0
    with SessionManager(SQLiteSessionStorage(new)) as mended:
        assert mended.search("hello").items


def test_a_full_disk_is_a_fault_and_the_rest_is_told_all_the_same(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "disk" / "sessions.db"
    monkeypatch.setenv("MCP_SESSIONS_STORAGE", sqlite_url(place))
    with Disk(place.parent) as disk, SessionManager(SQLiteSessionStorage(place)) as manager:
        manager.create_session("s")
        disk.take_all_but(100_000)
        with pytest.raises(StorageError):
            while True:
                manager.add_conversation_message("s", "user", "x" * 3000)
        found = examined(run)
        assert {what for what, finding in found.items() if finding["level"] == "fault"} == {"search index not checked"}
        assert "Make room, then retry" in found["search index not checked"]["detail"]
        assert found["integrity"]["level"] == found["running calls"]["level"] == "ok"
        disk.give_back()
        assert "search index not checked" not in examined(run)


def test_a_head_that_miscounts_is_a_fault(place: Path, manager: SessionManager, run: Run) -> None:
    manager.create_session("s")
    manager.add_conversation_message("s", "user", "hello")
    manager.close()
    connection = apsw.Connection(str(place))
    connection.execute("UPDATE sessions SET message_count = 7")
    connection.close()
    found = examined(run)["heads that miscount their messages"]
    assert (found["level"], found["detail"]) == ("fault", "1")


@pytest.fixture(params=DURABLE)
def lasting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[SessionManager]:
    """A manager of another caller, on the same store of either kind."""
    url = f"file://{tmp_path}/sessions" if request.param == "files" else sqlite_url(tmp_path / "sessions.db")
    monkeypatch.setenv("MCP_SESSIONS_STORAGE", url)
    with SessionManager(open_store(request.param, tmp_path)) as manager:
        yield manager


@pytest.fixture
def slow(lasting: SessionManager) -> Iterator[Child]:
    """A process in the middle of a slow call."""
    lasting.create_session("s")
    with Child(call_slowly) as child:
        assert child.hear() == "running"
        yield child


def test_a_call_at_work_is_shown_and_left_alone(lasting: SessionManager, slow: Child, run: Run) -> None:
    found = examined(run)
    (record,) = lasting.invocations("s", status="running").items
    assert found["running calls"]["detail"].startswith(
        f"1; explore\x1b[2J {record.invocation_id} of session s, agent:x"
    )
    assert found["locks"]["detail"].startswith("1 held by live processes")
    assert "interrupted call" not in found
    assert "explore\\x1b[2J" in run("doctor").stdout


def test_a_call_whose_process_died_is_shown_and_marked(lasting: SessionManager, slow: Child, run: Run) -> None:
    slow.kill()
    found = examined(run)
    assert found["interrupted call"]["level"] == "warning"
    assert "s, agent:x" in found["interrupted call"]["detail"]
    assert found["running calls"]["detail"] == "0"
    assert found["locks"]["detail"] == "0 held by live processes, 1 of dead ones taken away"
    (record,) = lasting.invocations("s", status="interrupted").items
    assert record.error is not None
    assert record.error.type == "Interrupted"
    again = examined(run)
    assert "interrupted call" not in again
    assert again["interrupted calls on record"]["detail"].startswith("1; ")


@pytest.mark.parametrize("lasting", ["files"], indirect=True)
def test_a_call_at_work_is_left_alone_where_the_index_is_made_anew(
    tmp_path: Path, lasting: SessionManager, slow: Child, run: Run
) -> None:
    """It was marked as interrupted: the lock of its owner was gone with the index."""
    shutil.rmtree(tmp_path / "sessions" / ".index")
    found = examined(run)
    assert found["running calls"]["detail"].startswith("1; ")
    assert "interrupted call" not in found
    slow.kill()
    assert "s, agent:x" in examined(run)["interrupted call"]["detail"]


@pytest.mark.parametrize("lasting", ["files"], indirect=True)
def test_repair_that_makes_the_index_anew_says_what_servers_have_to_do(
    tmp_path: Path, lasting: SessionManager, run: Run
) -> None:
    lasting.create_session("s")
    with closing(apsw.Connection(str(tmp_path / "sessions" / ".index" / "index.db"))) as index:
        index.execute("UPDATE sessions SET message_count = 7")
    lines = run("doctor", "--repair").stdout.splitlines()
    (anew,) = (number for number, line in enumerate(lines) if "the index was made anew from the logs" in line)
    assert lines[anew + 1].endswith("restart the servers that had the store open: until then they refuse every call")
    with pytest.raises(StorageError, match="restart this process"):
        lasting.set_value("s", "k", 1)


def test_records_of_reads_that_came_late_are_shown(manager: SessionManager, run: Run) -> None:
    now = datetime.now(UTC)
    late = Invocation(
        invocation_id="inv-late",
        tool_name=LATE,
        kind="session",
        status=InvocationStatus.ERROR,
        started_at=now,
        error=Failure(type="StorageError", message="the disk is full"),
    )
    manager.storage.commit(None, Change(at=now, records=(late,)))
    found = examined(run)["records of reads were written late"]
    assert found["level"] == "warning"
    assert "the disk is full" in found["detail"]


def test_a_client_that_starts_what_is_not_there_is_a_fault(place: Path, run: Run) -> None:
    file = config_path(CLIENTS["cursor"])
    file.parent.mkdir(parents=True)
    file.write_text(
        json.dumps({"mcpServers": {"sessions": {"command": "/nowhere/mcp-sessions", "args": ["serve"]}}}),
        encoding="utf-8",
    )
    found = examined(run)["cursor"]
    assert found["level"] == "fault"
    assert "/nowhere/mcp-sessions, which does not exist" in found["detail"]
    assert found["next"].endswith("mcp-sessions install cursor")


def test_a_client_that_starts_it_is_well(place: Path, run: Run) -> None:
    assert run("install", "cursor").exit_code == 0
    found = examined(run)
    assert found["cursor"]["level"] == "ok"
    assert "sessions starts" in found["cursor"]["detail"]
    assert "clients" not in found


def test_a_damaged_log_is_told_and_repair_moves_the_rest_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    monkeypatch.setenv("MCP_SESSIONS_STORAGE", f"file://{tmp_path}/sessions")
    with SessionManager(FileSystemSessionStorage(tmp_path / "sessions")) as manager:
        manager.create_session("s")
        for value in (1, 2):
            manager.set_value("s", "k", value)
    log = tmp_path / "sessions" / "s" / "log.jsonl"
    log.write_bytes(log.read_bytes().replace(b'"value":1', b'"value":7'))
    found = examined(run)["a log that is not in order"]
    assert found["detail"].startswith(f"{log}: line 2 is damaged")
    assert "mcp-sessions doctor --repair" in found["next"]
    result = run("doctor", "--repair")
    assert result.exit_code == 0
    assert f"a log was put in order: {log}; what followed is in {log.with_name('log.damaged-2')}" in result.stdout
    assert examined(run)["ends of logs that were moved away"]["level"] == "warning"


def test_each_fault_of_a_store_of_files_has_a_next_step_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    folder = tmp_path / "sessions"
    monkeypatch.setenv("MCP_SESSIONS_STORAGE", f"file://{folder}")
    with SessionManager(FileSystemSessionStorage(folder)) as manager:
        for session_id in "st":
            manager.create_session(session_id)
            manager.add_conversation_message(session_id, "user", "hello")
    (folder / "link").symlink_to(folder / "s")
    save(folder, {**metadata("old"), "status": "lost"})
    with closing(apsw.Connection(str(folder / ".index" / "index.db"))) as index:
        index.execute("DELETE FROM messages WHERE rowid = (SELECT max(rowid) FROM messages)")
        index.execute("UPDATE sessions SET revision = 9 WHERE session_id = 's'")
    found = examined(run)
    assert found["heads that miscount their messages"]["next"].startswith("mcp-sessions doctor --repair makes the ind")
    assert found["a log that is not in order"]["next"] == "mcp-sessions doctor --repair brings it into the index again"
    assert found["in the place of a session is a link"]["next"].startswith("remove it")
    old = found["a session of the old layout"]
    assert f'{folder / "old" / "metadata.json"}: status is "lost"' in old["detail"]
    assert old["next"] == "mend it; the next opening takes it over"
    run("doctor", "--repair")
    (folder / "link").unlink()
    save(folder, metadata("old"))
    assert {finding["level"] for what, finding in examined(run).items() if what != "clients"} == {"ok"}


def test_a_view_that_was_changed_by_hand_is_told_and_repair_writes_it_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    monkeypatch.setenv("MCP_SESSIONS_STORAGE", f"file://{tmp_path}/sessions")
    with SessionManager(FileSystemSessionStorage(tmp_path / "sessions")) as manager:
        manager.create_session("s")
        manager.set_value("s", "k", "mine")
    view = tmp_path / "sessions" / "s" / "data.json"
    view.write_text("{}", encoding="utf-8")
    found = examined(run)["views that do not tell what their log does"]
    assert (found["level"], found["detail"]) == ("warning", f"1: {view}")
    assert "mcp-sessions doctor --repair" in found["next"]
    assert f"views were written anew: {view}" in run("doctor", "--repair").stdout
    assert json.loads(view.read_text(encoding="utf-8")) == {"k": "mine"}
    assert "views that do not tell what their log does" not in examined(run)


def test_a_session_whose_log_is_gone_is_a_fault_that_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    monkeypatch.setenv("MCP_SESSIONS_STORAGE", f"file://{tmp_path}/sessions")
    with SessionManager(FileSystemSessionStorage(tmp_path / "sessions")) as manager:
        manager.create_session("s")
    (tmp_path / "sessions" / "s" / "log.jsonl").unlink()
    found = examined(run)["sessions without their log"]
    assert (found["level"], found["detail"]) == ("fault", f"1: {tmp_path / 'sessions' / 's'}")
    assert found["next"] == "put log.jsonl back from a copy, or move the folder away"
