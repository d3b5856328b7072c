"""The manage toolset: update, unset, fork, export, delete."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from mcp_sessions import (
    ConversationMessage,
    InvalidArgumentError,
    Invocation,
    SessionManager,
    SessionMetadata,
    SessionNotFoundError,
)
from mcp_sessions.models import Change, InvocationQuery, NewMessage, Page, Value, View, Want
from mcp_sessions.storage import MemorySessionStorage, SQLiteSessionStorage
from mcp_sessions.storage.whole import EVERYTHING
from mcp_sessions.tools import SESSION_TOOLS
from tests.stores import SetClock
from tests.tools.desk import Desk


def test_an_update_changes_what_is_given_and_nothing_else(prepared: Desk) -> None:
    head = prepared("session_update", session_id="a", add_tags=["x", "billing"], remove_tags=["none"])
    assert (head["tags"], head["purpose"]) == (["billing", "x"], "Move billing")
    head = prepared("session_update", session_id="a", purpose="New", tags=["y"], metadata={"m": 1})
    assert (head["tags"], head["purpose"], head["custom_metadata"]) == (["y"], "New", {"m": 1})
    assert prepared("session_update", session_id="a", metadata={"n": 2})["custom_metadata"] == {"m": 1, "n": 2}


def test_an_ended_session_is_reopened(prepared: Desk) -> None:
    prepared("session_complete", session_id="a")
    head = prepared("session_update", session_id="a", reopen=True)
    assert head["status"] == "active"
    assert "ended_at" not in head
    prepared("session_set", session_id="a", key="k", value=1)


@pytest.mark.parametrize("nothing", [{}, {"reopen": False}])
def test_an_update_of_nothing_says_what_could_be_changed(prepared: Desk, nothing: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError, match="Nothing to change: give purpose"):
        prepared("session_update", session_id="a", **nothing)


def test_keys_are_removed_and_named(prepared: Desk) -> None:
    assert prepared("session_unset", session_id="a", keys=["plan", "none"])["removed"] == ["plan"]
    assert prepared("session_get", session_id="a")["data"] == {"next_step": "tests"}
    assert prepared.head().message_count == 3


def test_all_keys_are_removed_but_the_internal_ones(prepared: Desk) -> None:
    prepared("session_set", session_id="a", key=".internal", value=1)
    assert sorted(prepared("session_unset", session_id="a", keys=[], all=True)["removed"]) == ["next_step", "plan"]
    assert prepared("session_get", session_id="a", key=".internal")["found"]


def test_unset_without_a_key_removes_nothing(prepared: Desk) -> None:
    with pytest.raises(InvalidArgumentError, match="Name the keys"):
        prepared("session_unset", session_id="a", keys=[])
    assert len(prepared("session_get", session_id="a")["data"]) == 2


def test_a_fork_has_the_messages_and_the_data_as_of_then(prepared: Desk) -> None:
    prepared("session_set", session_id="a", key="plan", value="later")
    prepared("session_add_message", session_id="a", role="user", content="later")
    head = prepared("session_fork", session_id="a", at_seq=3, new_session_id="b")
    assert (head["session_id"], head["parent_id"], head["message_count"]) == ("b", "a", 3)
    assert (head["total_invocations"], head["estimated_cost"], head["tags"]) == (0, 0.0, ["billing"])
    whole = prepared("session_fork", session_id="a")
    assert (whole["message_count"], whole["last_seq"]) == (4, 4)
    assert (
        prepared("session_messages", session_id="b")["messages"]
        == (prepared("session_messages", session_id="a")["messages"][1:])
    )
    assert prepared("session_get", session_id="a")["data"]["plan"] == "later"
    assert [record.tool_name for record in prepared.records("b")] == ["session_fork", "session_messages"][::-1]


def test_a_fork_beyond_the_last_message_is_refused(prepared: Desk) -> None:
    with pytest.raises(InvalidArgumentError, match="4"):
        prepared("session_fork", session_id="a", at_seq=4)


def test_a_deletion_without_confirmation_shows_what_would_go(prepared: Desk) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        prepared("session_delete", session_id="a")
    assert str(caught.value) == (
        'Nothing deleted. This would remove session a "Move billing" for good: 3 messages, 2 keys, and the records of '
        "its calls. If the user wants that, call again with confirm=true."
    )
    assert prepared.head().message_count == 3


def test_a_deletion_removes_everything_and_is_on_record(prepared: Desk) -> None:
    prepared("session_fork", session_id="a", new_session_id="b")
    assert prepared("session_delete", session_id="a", confirm=True) == {"session_id": "a", "deleted": True}
    with pytest.raises(SessionNotFoundError):
        prepared("session_get", session_id="a")
    assert [hit["session_id"] for hit in prepared("session_search", text="stripe")["hits"]] == ["b"]
    assert prepared.head("b").parent_id == "a"
    deletions = prepared.records(tool="session_delete")
    assert [record.session_id for record in deletions] == [None]
    assert [record.result for record in deletions] == [{"session_id": "a", "deleted": True}]


# export


def everything(desk: Desk, session_id: str) -> View:
    want = Want(prefix="", messages=EVERYTHING, order="oldest", records=EVERYTHING)
    view = desk.manager.view(session_id, want)
    internal = desk.manager.view(session_id, Want(prefix="."))
    return view.model_copy(update={"data": {**view.data, **internal.data}, "names": []})


def exported(document: dict[str, Any]) -> View:
    return View(
        metadata=SessionMetadata.from_dict(document["metadata"]),
        messages=[ConversationMessage(**message) for message in document["messages"]],
        data={key: Value(**value) for key, value in document["data"].items()},
        records=[Invocation(**record) for record in document["invocations"]],
    )


def test_a_session_made_again_from_its_json_counts_nothing_twice(prepared: Desk) -> None:
    def count() -> None:
        prepared.manager.record_usage("a", cost=0.5, invocation_id="usage")
        prepared.manager.link_invocation("a", "linked", "tool", duration_ms=5)

    count()
    view = exported(json.loads(prepared("session_export", session_id="a")["content"]))
    prepared.manager.delete_session("a")
    prepared.manager.storage.restore(view)
    before = prepared.manager.metadata("a")
    count()
    assert prepared.manager.metadata("a") == before


def test_an_exported_session_can_be_made_again_from_its_json(prepared: Desk) -> None:
    prepared("session_set", session_id="a", key=".internal", value={"deep": [None, 1.5, "é"]})
    prepared(
        "session_add_message",
        session_id="a",
        role="assistant",
        content="x\u2028y",
        payload={"openai": {"id": 1}},
        input_tokens=1,
    )
    much = {"a": [1] * 2000}
    prepared("session_record_invocation", session_id="a", tool_name="x", error="it broke", arguments=much)
    prepared("session_update", session_id="a", metadata=much)
    prepared("session_complete", session_id="a", summary="Done.")
    result = prepared("session_export", session_id="a")
    assert result["format"] == "json"
    assert "next_cursor" not in result
    view = exported(json.loads(result["content"]))
    with MemorySessionStorage() as other:
        other.restore(view)
        again = other.read("a", Want(prefix="", messages=EVERYTHING, order="oldest", records=EVERYTHING))
        internal = other.read("a", Want(prefix="."))
    original = everything(prepared, "a")
    assert (again.metadata, again.messages) == (original.metadata, original.messages)
    assert {**again.data, **internal.data} == original.data
    assert [record.to_dict() for record in again.records] == [record.to_dict() for record in original.records]


def test_an_export_for_a_host_comes_in_pieces_that_join(prepared: Desk) -> None:
    for number in range(40):
        prepared("session_add_message", session_id="a", role="user", content=f'{number} "\\\n\x01😀' * 100)
    whole = {form: prepared("session_export", session_id="a", format=form) for form in ("json", "markdown")}
    for form, one in whole.items():
        pieces: list[str] = []
        more: dict[str, str] = {}
        while more is not None:
            piece = prepared.call("session_export", {"session_id": "a", "format": form, **more}, room=5_000)
            assert len(json.dumps(piece, ensure_ascii=False)) <= 5_000
            pieces.append(piece["content"])
            more = {"cursor": piece["next_cursor"]} if "next_cursor" in piece else None
        assert "".join(pieces) == one["content"]
        assert len(pieces) > 5


class Counting(SQLiteSessionStorage):
    """Tells how many rows were read from it."""

    rows = 0

    def read(self, session_id: str, want: Want) -> View:
        view = super().read(session_id, want)
        self.rows += len(view.messages) + len(view.data) + len(view.records)
        return view

    def invocations(self, query: InvocationQuery, cursor: str | None = None) -> Page[Invocation]:
        page = super().invocations(query, cursor)
        self.rows += len(page.items)
        return page


@pytest.mark.parametrize("form", ["json", "markdown"])
def test_all_pieces_of_an_export_read_each_row_about_once(tmp_path: Path, form: str) -> None:
    """Each piece read and wrote out the whole session."""
    with Counting(tmp_path / "s.db", durability="process") as storage, SessionManager(storage) as manager:
        manager.create_session("a", data={f"k{number:04}": "v" * 100 for number in range(2_000)})
        said = [
            ConversationMessage(message_id=f"m{number}", role="user", content="x" * 400, timestamp=manager.clock())
            for number in range(4_000)
        ]
        new = tuple(NewMessage(message=message) for message in said)
        records = [manager.linked(None, "work", arguments={"a": "x" * 200}) for _ in range(2_000)]
        storage.commit("a", Change(at=manager.clock(), messages=new, records=tuple(records)))
        desk = Desk(manager, SetClock())
        whole = desk("session_export", session_id="a", format=form)["content"]
        storage.rows = 0
        pieces: list[str] = []
        peaks: list[int] = []
        cursor: dict[str, str] | None = {}
        while cursor is not None:
            tracemalloc.start()
            piece = desk.call("session_export", {"session_id": "a", "format": form, **cursor}, room=40_000)
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
            pieces.append(piece["content"])
            cursor = {"cursor": piece["next_cursor"]} if "next_cursor" in piece else None
        assert "".join(pieces) == whole
        assert len(pieces) > 30
        assert storage.rows <= 8_000 + 2 * 16 * len(pieces)
        assert max(peaks) < 1_000_000


def test_a_session_that_changes_while_its_first_piece_is_read_is_begun_anew(tmp_path: Path) -> None:
    class Changing(SQLiteSessionStorage):
        """Is written to by somebody else after its third read."""

        reads = 0

        def read(self, session_id: str, want: Want) -> View:
            view = super().read(session_id, want)
            self.reads += 1
            if self.reads == 3:
                manager.add_conversation_message("a", "user", "from somebody else")
            return view

    with Changing(tmp_path / "s.db", durability="process") as storage, SessionManager(storage) as manager:
        manager.create_session("a")
        for number in range(10):
            manager.add_conversation_message("a", "user", f"message {number}")
        storage.reads = 0
        piece = SESSION_TOOLS.invoke(manager, "session_export", {"session_id": "a"}, room=40_000)
        document = json.loads(piece["content"])
        assert document["metadata"]["message_count"] == len(document["messages"]) == 11


@pytest.mark.parametrize("change", ["a message", "a recorded call"])
def test_pieces_of_two_states_are_never_joined(prepared: Desk, change: str) -> None:
    asked = {"session_id": "a"}
    cursor = prepared.call("session_export", asked, room=1_000)["next_cursor"]
    if change == "a message":
        prepared("session_add_message", session_id="a", role="user", content="more")
    else:
        prepared("session_record_invocation", session_id="a", tool_name="x")
    with pytest.raises(InvalidArgumentError, match="changed since the first piece"):
        prepared.call("session_export", {**asked, "cursor": cursor}, room=1_000)


def test_markdown_reads_as_the_session_went(prepared: Desk) -> None:
    content = prepared("session_export", session_id="a", format="markdown")["content"]
    lines = content.splitlines()
    assert lines[0] == "# Move billing"
    for line in (
        "- session: a",
        "- status: active",
        "## 1. user, 2026-11-22T10:00:00+00:00",
        "Move billing to Stripe",
        "## 3. tool (grep), 2026-11-22T10:00:00+00:00",
        "### plan",
        '{"step":1}',
        "- git_log ok, 12.5 ms",
    ):
        assert line in lines


def test_markdown_keeps_its_shape_whatever_is_in_it(desk: Desk) -> None:
    desk("session_create", session_id="a", purpose="one\n# two")
    desk("session_set", session_id="a", key="k\n# three", value="``` and ```` here")
    desk("session_add_message", session_id="a", role="user", content="```python\nprint()  # never closed")
    desk("session_add_message", session_id="a", role="user", content="~~~\nclosed\n~~~~\n    ```indented")
    lines = desk("session_export", session_id="a", format="markdown")["content"].splitlines()
    assert "# one # two" in lines
    assert "### k # three" in lines
    at = lines.index('"``` and ```` here"')
    assert (lines[at - 1], lines[at + 1]) == ("`````json", "`````")
    at = lines.index("print()  # never closed")
    assert lines[at + 1] == "```"
    at = lines.index("    ```indented")
    assert lines[at + 1] == ""
