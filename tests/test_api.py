"""What the package shows to a program, and the old systems' acceptance cases through it."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

import mcp_sessions
from mcp_sessions import (
    ConfigError,
    MemorySessionStorage,
    Session,
    SessionManager,
    SessionMetadata,
    SessionStatus,
    SQLiteSessionStorage,
    get_session_manager,
    open_storage,
    set_session_manager,
)
from mcp_sessions import errors as errors_module
from tests.stores import SetClock

NAMES = {
    *("SessionManager", "Session", "SessionMetadata", "SessionStatus", "ConversationMessage", "Invocation"),
    *("MemorySessionStorage", "FileSystemSessionStorage", "SQLiteSessionStorage"),
    *("open_storage", "get_session_manager", "set_session_manager"),
}
ERRORS = {name for name, value in vars(errors_module).items() if isinstance(value, type)}


@pytest.fixture(autouse=True)
def _no_default() -> object:
    yield set_session_manager(None)
    set_session_manager(None)


# names


def test_the_public_names_are_these_and_no_others() -> None:
    assert set(mcp_sessions.__all__) == NAMES | ERRORS
    assert set(mcp_sessions.__all__) <= set(dir(mcp_sessions))
    for name in mcp_sessions.__all__:
        assert getattr(mcp_sessions, name).__name__ == name
    with pytest.raises(AttributeError, match="module 'mcp_sessions' has no attribute 'Banana'"):
        _ = mcp_sessions.Banana


def test_every_error_is_one_of_ours() -> None:
    for name in ERRORS:
        assert issubclass(getattr(mcp_sessions, name), mcp_sessions.SessionsError)


def test_importing_the_package_imports_nothing_heavy() -> None:
    program = (
        "import sys; before = set(sys.modules); import mcp_sessions; "
        "print(sorted({name.split('.')[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, encoding="utf-8", check=True, cwd=_root()
    )
    assert done.stdout.strip() == "['mcp_sessions']"


@pytest.mark.parametrize("name", ["SessionNotFoundError", "SessionManager"])
def test_using_it_imports_no_more_than_it_takes(name: str) -> None:
    program = f"import sys; from mcp_sessions import {name}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, encoding="utf-8", check=True, cwd=_root()
    )
    imported = set(done.stdout.split())
    assert not imported & {"mcp", "starlette", "uvicorn", "click", "rich", "genai_prices", "pydantic_settings"}
    assert ("pydantic" in imported) == (name == "SessionManager")


def _root() -> Path:
    return Path(__file__).parents[1]


# the default manager


def test_the_default_manager_is_made_from_the_settings_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MCP_SESSIONS_STORAGE", f"sqlite://{tmp_path}/here.db")
    monkeypatch.setenv("MCP_SESSIONS_MAX_TAGS", "2")
    monkeypatch.setenv("MCP_SESSIONS_REDACT", "pin")
    with get_session_manager() as manager:
        assert get_session_manager() is manager
        assert isinstance(manager.storage, SQLiteSessionStorage)
        assert manager.storage.path == tmp_path / "here.db"
        assert manager.limits.tags == 2
        assert manager.redactor.is_secret("pin")
        manager.create_session("a", tags=["1", "2"])
        with pytest.raises(mcp_sessions.LimitError), manager.call("tag", "a") as call:
            call.draft.alter(add_tags=["3"])


def test_many_threads_get_one_default_manager(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MCP_SESSIONS_STORAGE", "memory:")
    found: list[SessionManager] = []
    start = threading.Barrier(8)

    def ask() -> None:
        start.wait(30)
        found.append(get_session_manager())

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len({id(manager) for manager in found}) == 1
    assert len(found) == 8


def test_a_program_may_set_its_own_default() -> None:
    own = SessionManager(MemorySessionStorage())
    set_session_manager(own)
    assert get_session_manager() is own


def test_settings_that_cannot_be_used_are_said_when_they_are_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MCP_SESSIONS_STORAGE", "banana:")
    with pytest.raises(ConfigError, match="'banana:…' names no storage"):
        get_session_manager()
    monkeypatch.setenv("MCP_SESSIONS_STORAGE", "memory:")
    assert isinstance(get_session_manager().storage, MemorySessionStorage)


# the old systems' cases


def test_create_keeps_its_fields_and_makes_an_id(manager: SessionManager) -> None:
    session = manager.create_session(purpose="Debug", user_id="u", tags=["a", "b"])
    assert session.metadata.session_id.startswith("ses_")
    assert (session.metadata.status, session.metadata.purpose) == (SessionStatus.ACTIVE, "Debug")
    assert (session.metadata.user_id, session.metadata.tags) == ("u", ["a", "b"])
    with pytest.raises(ValueError, match="already exists"):
        manager.create_session(session.session_id)
    assert manager.get_session("unknown") is None


def test_linked_calls_are_counted(manager: SessionManager, clock: SetClock) -> None:
    manager.create_session("s")
    manager.link_invocation("s", "inv1", "git_tool", duration_ms=100.0)
    clock.go_on(seconds=1)
    manager.link_invocation("s", "inv2", "file_tool", None, 200.0)
    manager.link_invocation("s", "inv1", "git_tool", duration_ms=100.0)
    manager.link_invocation("s", "inv3", "git_tool")
    session = manager.get_session("s")
    assert session is not None
    assert session.invocation_ids == ["inv1", "inv2", "inv3"]
    assert session.metadata.tools_used == ["git_tool", "file_tool"]
    assert (session.metadata.total_invocations, session.metadata.total_duration_ms) == (3, 300.0)


def test_an_unknown_session_is_a_value_error(manager: SessionManager) -> None:
    with pytest.raises(ValueError, match="not found"):
        manager.link_invocation("unknown", "inv1", "git_tool")
    with pytest.raises(ValueError, match="not found"):
        manager.add_conversation_message("unknown", "user", "hello")


def test_a_conversation_keeps_its_order_and_its_links(manager: SessionManager) -> None:
    manager.create_session("s")
    manager.add_conversation_message("s", "user", "what changed?")
    manager.add_conversation_message("s", "tool", "3 commits", "git_log", "inv1")
    manager.add_conversation_message("s", "assistant", "three commits")
    session = manager.get_session("s")
    assert session is not None
    assert [message.role for message in session.conversation] == ["user", "tool", "assistant"]
    assert (session.conversation[1].tool_name, session.conversation[1].invocation_id) == ("git_log", "inv1")


def test_metadata_is_replaced_or_merged_and_completing_is_seen_on_reading(manager: SessionManager) -> None:
    manager.create_session("s", purpose="old", tags=["old"])
    manager.update_session_metadata("s", custom_metadata={"a": 1})
    manager.update_session_metadata("s", purpose="new", tags=["new"], custom_metadata={"b": 2})
    manager.complete_session("s")
    session = manager.get_session("s")
    assert session is not None
    assert (session.metadata.purpose, session.metadata.tags) == ("new", ["new"])
    assert session.metadata.custom_metadata == {"a": 1, "b": 2}
    assert session.metadata.status is SessionStatus.COMPLETED


def test_listing_filters_by_user_status_and_any_tag(manager: SessionManager, clock: SetClock) -> None:
    for number, (user, tag) in enumerate([("u1", "a"), ("u1", "b"), ("u2", "b")]):
        manager.create_session(f"s{number}", user_id=user, tags=[tag])
        clock.go_on(seconds=1)
    manager.complete_session("s0")
    assert [session.session_id for session in manager.list_sessions(user_id="u1")] == ["s0", "s1"]
    assert [session.session_id for session in manager.list_sessions(status=SessionStatus.ACTIVE)] == ["s2", "s1"]
    assert len(manager.list_sessions(tags=["a", "b"])) == 3
    assert len(manager.list_sessions(limit=2)) == 2


def test_deleting_and_cleaning_up(manager: SessionManager, clock: SetClock) -> None:
    for name in ("gone", "old"):
        manager.create_session(name)
    assert manager.delete_session("gone") is True
    assert not manager.storage.session_exists("gone")
    manager.complete_session("old")
    clock.go_on(days=60)
    manager.create_session("new")
    assert manager.cleanup_old_sessions(max_age_days=30) == ["old"]
    assert manager.storage.session_exists("new")


def test_a_round_trip_through_another_storage_object(tmp_path: Path) -> None:
    url = f"sqlite://{tmp_path}/sessions.db"
    with SessionManager(open_storage(url)) as manager:
        session = manager.create_session("s", data={"k": {"nested": [1, None]}})
        session.add_message("user", "hello")
        session.add_invocation("inv1", 100.0)
        manager.save_session(session)
    with open_storage(url) as storage:
        again = storage.load_session("s")
    assert again is not None
    assert again.to_dict() == session.to_dict()
    assert (again.data, again.invocation_ids) == ({"k": {"nested": [1, None]}}, ["inv1"])


def test_copies_are_isolated(manager: SessionManager) -> None:
    manager.create_session("s", data={"k": [1]})
    one, two = manager.get_session("s"), manager.get_session("s")
    assert one is not None
    assert two is not None
    one.data["k"].append(2)
    one.metadata.tags.append("x")
    assert (two.data, two.metadata.tags) == ({"k": [1]}, [])
    assert manager.get_value("s", "k") == [1]


def test_a_storage_alone_keeps_sessions_too(clock: SetClock) -> None:
    storage = MemorySessionStorage()
    session = Session(SessionMetadata(session_id="s", created_at=clock.now, updated_at=clock.now), clock=clock)
    session.set("k", 1)
    storage.save_session(session)
    assert storage.session_exists("s")
    assert not storage.session_exists("t")
    assert storage.delete_session("s") is True
    assert storage.delete_session("s") is False
    assert storage.load_session("s") is None
