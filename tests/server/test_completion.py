"""Completion: ids, tags and keys as they are typed, and never more than a hundred."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from mcp import Client, MCPError
from mcp.shared.uri_template import UriTemplate
from mcp.types import (
    INVALID_PARAMS,
    CompleteRequestParams,
    Completion,
    CompletionArgument,
    PromptReference,
    ResourceTemplateReference,
    TextResourceContents,
)

from mcp_sessions.server.adapter import build_server
from mcp_sessions.server.completion import complete
from mcp_sessions.tools import SESSION_TOOLS
from tests.server.conftest import TOOLSETS, Door
from tests.tools.desk import Desk

RESUME = PromptReference(name="resume_session")
SUMMARIZE = PromptReference(name="summarize_session")
SESSION = ResourceTemplateReference(uri="session:///{session_id}")
MESSAGES = ResourceTemplateReference(uri="session:///{session_id}/messages")
MESSAGE = ResourceTemplateReference(uri="session:///{session_id}/messages/{seq}")
VALUE = ResourceTemplateReference(uri="session:///{session_id}/data/{key}")
Ref = PromptReference | ResourceTemplateReference


async def completed(client: Client, ref: Ref, name: str, typed: str = "", **context: str) -> Completion:
    return (await client.complete(ref, {"name": name, "value": typed}, context or None)).completion


def make(desk: Desk, *sessions: tuple[str, str, Sequence[str]]) -> None:
    """Sessions (id, purpose, tags), each a second after the one before."""
    for name, purpose, tags in sessions:
        desk.clock.go_on(seconds=1)
        desk("session_create", session_id=name, purpose=purpose, tags=list(tags))


@pytest.mark.parametrize("ref", [RESUME, SUMMARIZE, SESSION, MESSAGES, MESSAGE, VALUE], ids=str)
async def test_ids_come_newest_first_by_their_beginning_then_by_words(desk: Desk, mode: str, ref: Ref) -> None:
    make(
        desk,
        ("ses_move", "Nothing", []),
        ("ses_cafe", "Move the Café", ["x"]),
        ("other", "Move billing", ["stripe"]),
        ("ses_z", "Billing", []),
    )
    desk("session_complete", session_id="other")
    async with Client(build_server(desk.manager, SESSION_TOOLS, TOOLSETS), mode=mode) as client:
        assert client.server_capabilities is not None
        assert client.server_capabilities.completions is not None
        for typed, found in (
            ("", ["ses_z", "other", "ses_cafe", "ses_move"]),
            ("ses_", ["ses_z", "ses_cafe", "ses_move"]),
            ("ses_m", ["ses_move"]),
            ("o", ["other", "ses_cafe", "ses_move"]),
            ("move", ["other", "ses_cafe", "ses_move"]),
            ("BILLING move", ["other"]),
            ("cafÉ", ["ses_cafe"]),
            ("stripe", ["other"]),
            ("%", []),
            ("nothing at all", []),
            ("\0", []),
        ):
            completion = await completed(client, ref, "session_id", typed)
            assert sorted(completion.values) == sorted(found), typed
            assert (completion.total, completion.has_more) == (len(found), False)
            if typed in ("", "ses_", "o"):
                assert completion.values == found
    assert "completion" not in {record.tool_name for record in desk.records()}


async def test_of_more_than_a_hundred_the_newest_are_given(door: Door, desk: Desk) -> None:
    make(desk, *((f"s{number:03}", "job", []) for number in range(100)))
    hundred = await completed(door.client, RESUME, "session_id", "s")
    assert hundred.values == [f"s{number:03}" for number in range(99, -1, -1)]
    assert (hundred.total, hundred.has_more) == (100, False)
    make(desk, *((f"s{number:03}", "job", ["t"]) for number in range(100, 120)))
    more = await completed(door.client, RESUME, "session_id", "s")
    assert more.values == [f"s{number:03}" for number in range(119, 19, -1)]
    assert (more.total, more.has_more) == (None, True)
    by_word = await completed(door.client, RESUME, "session_id", "job")
    assert by_word.values == more.values
    assert (by_word.total, by_word.has_more) == (120, True)
    tagged = await completed(door.client, RESUME, "session_id", "s", tag="t")
    assert tagged.values == [f"s{number:03}" for number in range(119, 99, -1)]


async def test_tags_are_those_of_active_sessions_last_used_first(desk: Desk, mode: str) -> None:
    make(desk, ("a", "", ["red", "Blue"]), ("b", "", ["infrared"]), ("c", "", ["redis", "red"]), ("d", "", ["gone"]))
    desk("session_complete", session_id="d")
    async with Client(build_server(desk.manager, SESSION_TOOLS, TOOLSETS), mode=mode) as client:
        assert (await completed(client, RESUME, "tag")).values == ["redis", "red", "infrared", "Blue"]
        assert (await completed(client, RESUME, "tag", "red")).values == ["redis", "red", "infrared"]
        assert (await completed(client, RESUME, "tag", "b")).values == ["Blue"]
        assert (await completed(client, RESUME, "tag", "gone")).values == []


async def test_keys_are_those_of_the_session_named_before(desk: Desk, mode: str) -> None:
    desk("session_create", session_id="a", data={"plan": 1, "next/plan é": 2, ".hidden": 3, "x": 4})
    desk("session_create", session_id="b", data={f"k{number:03}": 1 for number in range(130)})
    async with Client(build_server(desk.manager, SESSION_TOOLS, TOOLSETS), mode=mode) as client:
        assert (await completed(client, VALUE, "key", "plan", session_id="a")).values == ["plan", "next/plan é"]
        assert sorted((await completed(client, VALUE, "key", session_id="a")).values) == ["next/plan é", "plan", "x"]
        for nobody in ({}, {"session_id": ""}, {"session_id": "nobody"}, {"session_id": "../a"}, {"session_id": "\0"}):
            completion = await completed(client, VALUE, "key", "p", **nobody)
            assert (completion.values, completion.total, completion.has_more) == ([], 0, False)
        many = await completed(client, VALUE, "key", "k", session_id="b")
        assert many.values == [f"k{number:03}" for number in range(100)]
        assert (many.total, many.has_more) == (130, True)


async def test_a_number_is_completed_with_nothing(door: Door, desk: Desk) -> None:
    desk.prepare()
    assert (await completed(door.client, MESSAGE, "seq", "1", session_id="a")).values == []


@pytest.mark.parametrize("name", ["session_id", "tag"])
async def test_what_is_too_long_to_have_been_typed_is_completed_with_nothing(door: Door, desk: Desk, name: str) -> None:
    desk.manager.create_session("s", tags=["s"])
    for typed, found in (("s", ["s"]), ("s " * 500_000, [])):
        result = await door.client.complete(PromptReference(name="resume_session"), {"name": name, "value": typed})
        assert result.completion.values == found


async def test_a_completed_key_makes_a_uri_that_can_be_read(door: Door, desk: Desk) -> None:
    """Expanding the template encodes the value, so encoding it before that would be once too often."""
    desk("session_create", session_id="a", data={"100% é/?#": "found"})
    (key,) = (await completed(door.client, VALUE, "key", "100%", session_id="a")).values
    uri = UriTemplate.parse(VALUE.uri).expand({"session_id": "a", "key": key})
    (content,) = (await door.client.read_resource(uri)).contents
    assert isinstance(content, TextResourceContents)
    assert content.text == '"found"'


async def test_where_a_session_is_pinned_its_keys_are_meant(desk: Desk) -> None:
    desk("session_create", session_id="a", data={"plan": 1})
    desk("session_create", session_id="b", data={"place": 1})
    async with Client(build_server(desk.manager, SESSION_TOOLS, TOOLSETS, "a")) as client:
        assert (await completed(client, VALUE, "key", "p")).values == ["plan"]
        assert (await completed(client, VALUE, "key", "p", session_id="b")).values == ["place"]


@pytest.mark.parametrize(
    ("ref", "name", "sentence"),
    [
        (PromptReference(name="resume"), "session_id", "Unknown prompt 'resume': did you mean 'resume_session'?"),
        (RESUME, "id", "Unknown argument of resume_session 'id': known: session_id, tag."),
        (RESUME, "key", "Unknown argument of resume_session 'key': known: session_id, tag."),
        (SUMMARIZE, "tag", "Unknown argument of summarize_session 'tag': known: session_id."),
        (ResourceTemplateReference(uri="session:///a"), "key", "Unknown resource template 'session:///a': "),
        (ResourceTemplateReference(uri=""), "key", "Unknown resource template '': known: session:///{session_id}, "),
        (SESSION, "key", "Unknown argument of session:///{session_id} 'key': known: session_id."),
    ],
    ids=str,
)
async def test_what_there_is_not_is_refused_with_what_there_is(
    desk: Desk, mode: str, ref: Ref, name: str, sentence: str
) -> None:
    async with Client(build_server(desk.manager, SESSION_TOOLS, TOOLSETS), mode=mode) as client:
        with pytest.raises(MCPError) as caught:
            await completed(client, ref, name)
    assert caught.value.error.code == INVALID_PARAMS
    assert caught.value.error.message.startswith(sentence)


@pytest.mark.parametrize(("ref", "name"), [(RESUME, "session_id"), (RESUME, "tag"), (VALUE, "key")])
def test_nothing_of_other_users_completes(desk: Desk, ref: Ref, name: str) -> None:
    for user in ("ana", "bob"):
        desk("session_create", session_id=f"of-{user}", user_id=user, tags=[f"of-{user}"], data={f"of-{user}": 1})

    def seen(user: str | None, of: str) -> list[str]:
        argument = CompletionArgument(name=name, value="of")
        params = CompleteRequestParams(ref=ref, argument=argument, context={"arguments": {"session_id": f"of-{of}"}})
        return complete(desk.manager, params, as_user=user).completion.values

    assert seen("ana", "ana") == ["of-ana"]
    assert seen("ana", "bob") == ([] if name == "key" else ["of-ana"])
    assert seen("carl", "ana") == []
    assert "of-bob" in seen(None, "bob")
