"""Agents over sessions: what they ask, what is kept of it, and what is left where it fails."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from mcp_sessions import FileSystemSessionStorage, MemorySessionStorage, SessionManager
from mcp_sessions.agents import (
    AgentConfig,
    AgentTool,
    Answer,
    CLIType,
    DecomposeAgent,
    ExploreAgent,
    ExploreAgentConfig,
    Scripted,
    SpecializedAgent,
    explore_codebase,
)
from mcp_sessions.agents.prompts import turns
from mcp_sessions.errors import (
    ExecutorError,
    InvalidArgumentError,
    InvocationConflictError,
    LimitError,
    SessionEndedError,
    SessionNotFoundError,
)
from mcp_sessions.models import ConversationMessage, Invocation, tokens
from tests.agents.fakes import RESULT, Fake

pytestmark = pytest.mark.anyio
QA = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]


class Greeter(SpecializedAgent):
    def get_system_prompt(self) -> str:
        return "Be kind."

    def prepare_context(self, **about: Any) -> str | None:
        return f"It is {about['day']}." if about else None


def greeter(script: Any, manager: SessionManager | None = None, **config: Any) -> Greeter:
    return Greeter(AgentConfig(executor=Scripted(script), **config), manager)


def asked(agent: SpecializedAgent) -> list[str]:
    assert isinstance(agent.executor, Scripted)
    return agent.executor.prompts


def records(agent: SpecializedAgent, **query: Any) -> list[Invocation]:
    """Oldest first."""
    return agent.session_manager.invocations(agent.session_id, **query).items[::-1]


def test_an_agent_asks_copilot_in_the_default_session_and_leaves_permissions_alone() -> None:
    agent = Greeter()
    assert (agent.config.cli_type, agent.executor.name) == (CLIType.COPILOT, "copilot")
    assert not agent.config.skip_permissions
    assert agent.session_id == "default"
    assert agent.session_manager.metadata("default").purpose == "Greeter session"
    assert repr(agent) == "Greeter(executor='copilot', model=None, session_id='default')"


async def test_what_is_asked_and_answered_is_one_turn_of_the_history() -> None:
    with greeter(["a"]) as agent:
        assert await agent.invoke("q") == "a"
        assert agent.get_session_history() == QA


async def test_a_prompt_has_its_parts_in_order_and_instructions_in_each() -> None:
    with greeter(["hello", "fine"]) as agent:
        await agent.invoke("hi", "It rains.")
        await agent.invoke("how?", day="Monday")
        assert asked(agent) == [
            "# System Instructions\nBe kind.\n\n---\n\n# Context\nIt rains.\n\n---\n\n# Query\nhi",
            (
                "# System Instructions\nBe kind.\n\n---\n\n"
                "# Conversation History\n**User**: hi\n\n**Assistant**: hello\n\n---\n\n"
                "# Context\nIt is Monday.\n\n---\n\n# Query\nhow?"
            ),
        ]


async def test_without_the_history_nothing_is_told_of_it_and_nothing_goes_into_it() -> None:
    with greeter(["a", "b", "c", "d", "e"]) as agent:
        await agent.invoke("q")
        assert await agent.invoke("alone", include_history=False) == "b"
        assert await agent.batch_invoke(["1", "2", "3"]) == ["c", "d", "e"]
        assert agent.get_session_history() == QA
        assert not any("History" in prompt for prompt in asked(agent))
        assert len(records(agent)) == 5


async def test_what_just_fits_in_a_prompt_is_told() -> None:
    with greeter(["a", "b", "c"]) as agent:
        await agent.invoke("q")
        await agent.invoke("q")
        whole = asked(agent)[1]
    for room, told in ((len(whole), True), (len(whole) - 1, False)):
        with greeter(["a", "b"], max_prompt_chars=room) as agent:
            await agent.invoke("q")
            await agent.invoke("q")
            assert ("Conversation History" in asked(agent)[1]) == told
            assert len(asked(agent)[1]) <= room


async def test_what_a_prompt_may_have_is_bounded_and_the_newest_turns_are_kept_whole() -> None:
    with greeter([f"answer {number} " + "x" * 500 for number in range(20)], max_prompt_chars=3000) as agent:
        for number in range(20):
            await agent.invoke(f"question {number}")
        last = asked(agent)[-1]
        assert len(last) <= 3000
        assert last.startswith("# System Instructions\nBe kind.")
        told = [number for number in range(20) if f"question {number}\n" in last]
        assert told == list(range(told[0], 19))
        assert len(told) == 5
        for number in told:
            assert f"**User**: question {number}\n\n**Assistant**: answer {number} {'x' * 500}" in last
        assert len(agent.get_session_history()) == 40


async def test_no_message_is_read_beyond_what_has_room_in_a_prompt(manager: SessionManager) -> None:
    manager.create_session("s")
    for _ in range(50):
        manager.add_conversation_message("s", "assistant", "x" * 100)
    read: list[int] = []

    def messages() -> Iterator[ConversationMessage]:
        for message in manager.messages("s", 50).items:
            read.append(message.seq)
            yield message

    assert list(turns(messages(), 1000)) == []
    assert read == list(range(50, 39, -1))


async def test_a_text_is_no_list_of_questions() -> None:
    with greeter(["a"]) as agent:
        with pytest.raises(InvalidArgumentError, match="prompts is one text"):
            await agent.batch_invoke("why?")
        assert asked(agent) == []


async def test_a_question_longer_than_the_bound_is_asked_whole() -> None:
    with greeter(["a", "b"], max_prompt_chars=100) as agent:
        await agent.invoke("q")
        await agent.invoke("x" * 1_000_000)
        assert asked(agent)[1].endswith("# Query\n" + "x" * 1_000_000)


async def test_a_question_that_cannot_be_kept_is_not_asked() -> None:
    with greeter(["a"]) as agent:
        with pytest.raises(LimitError):
            await agent.invoke("x" * 2_000_000)
        with pytest.raises(LimitError):
            await agent.invoke("x" * 2_000_000, include_history=False)
        for context in ("\ud83d", "x" * (17 << 20)):
            with pytest.raises((InvalidArgumentError, LimitError), match="context"):
                await agent.invoke("q", context)
        assert asked(agent) == []


@pytest.mark.parametrize("instructions", [None, "\ud83d"])
async def test_instructions_that_nobody_can_be_told_are_named(
    instructions: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Greeter, "get_system_prompt", lambda _self: instructions)
    with greeter(["a"]) as agent:
        with pytest.raises(InvalidArgumentError, match=r"get_system_prompt\(\)"):
            await agent.invoke("q")
        assert asked(agent) == []


async def test_an_answer_that_cannot_be_kept_is_on_record_with_its_cost() -> None:
    with greeter([Answer("x" * 2_000_000, cost=0.5), Answer("half an emoji: \ud83d", "m" * 5000)]) as agent:
        with pytest.raises(ExecutorError, match="answered 2,000,000 bytes"):
            await agent.invoke("q")
        (record,) = records(agent)
        assert (record.status, record.cost) == ("error", 0.5)
        assert record.result["chars"] == 2_000_002  # as JSON
        assert await agent.invoke("q") == "half an emoji: ?"


async def test_each_question_is_on_record_with_time_tokens_and_cost_in_the_commit_of_its_messages() -> None:
    answer = Answer("a", "gpt-4o", tokens(1000, 10, 400), 0.25, {"any": "thing"})
    with greeter([answer]) as agent:
        await agent.invoke("q", "c")
        (record,) = records(agent)
        assert (record.tool_name, record.caller, record.kind, record.status) == (
            *("greeter", "agent:greeter", "work", "ok"),
        )
        assert (record.model, record.token_usage, record.cost, record.cost_source) == (
            *("gpt-4o", tokens(1000, 10, 400), 0.25, "reported"),
        )
        assert record.arguments == {"context": "c"}
        assert record.refs == {"arguments.prompt": "message:1", "result": "message:2"}
        assert record.result is None
        assert record.duration_ms is not None
        messages = agent.session_manager.messages("default", order="oldest").items
        head = agent.session_manager.metadata("default")
        assert (head.revision, record.revision, head.estimated_cost) == (2, 2, 0.25)
        assert {message.invocation_id for message in messages} == {record.invocation_id}
        assert (messages[1].model, messages[1].token_usage) == ("gpt-4o", tokens(1000, 10, 400))


async def test_what_is_no_message_stands_in_the_record() -> None:
    with greeter(["a"]) as agent:
        await agent.invoke("q", include_history=False)
        (record,) = records(agent)
        assert (record.arguments, record.result, record.refs) == (
            *({"prompt": "q", "include_history": False}, "a", None),
        )


async def test_a_price_that_is_not_reported_is_estimated_and_never_nothing() -> None:
    with greeter([Answer("a", "gpt-4o", tokens(1000, 10)), Answer("b", "no-such-model", tokens(5, 5))]) as agent:
        await agent.batch_invoke(["1", "2"])
        known, unknown = records(agent)
        assert known.cost
        assert known.cost_source == "estimated"
        assert (unknown.cost, unknown.cost_source) == (None, "unknown")
        assert agent.session_manager.metadata("default").unpriced_invocations == 1


async def test_an_answer_that_tells_no_price_counts_as_one_of_which_it_is_not_known() -> None:
    failed = ExecutorError("No.", answer=None)
    with greeter(["a", failed, Answer("b", cost=float("nan")), Answer("c", cost=1e7), Answer("d", cost="1")]) as agent:
        await agent.invoke("q")
        with pytest.raises(ExecutorError):
            await agent.invoke("q")
        await agent.batch_invoke(["q", "q", "q"])
        assert [record.cost for record in records(agent)] == [None] * 5
        head = agent.session_manager.metadata("default")
        assert (head.unpriced_invocations, head.estimated_cost) == (5, 0)


async def test_a_call_that_fails_leaves_its_record_with_its_cost_and_no_message() -> None:
    spent = ExecutorError("It did not work.", exit_code=1, answer=Answer("Half of it.", "gpt-4o", tokens(1, 1), 0.5))
    with greeter([spent, "Error: is the name of the class."]) as agent:
        with pytest.raises(ExecutorError, match="did not work"):
            await agent.invoke("q")
        assert agent.get_session_history() == []
        (record,) = records(agent)
        assert (record.status, record.cost, record.result) == ("error", 0.5, "Half of it.")
        assert record.error is not None
        assert record.error.type == "ExecutorError"
        await agent.invoke("why?")  # an answer is an answer, whatever it begins with
        assert agent.get_session_history()[1]["content"] == "Error: is the name of the class."


def complete(manager: SessionManager) -> None:
    manager.complete_session("default")


def delete(manager: SessionManager) -> None:
    manager.delete_session("default")


def recreate(manager: SessionManager) -> None:
    manager.delete_session("default")
    manager.create_session("default")


@pytest.mark.parametrize("meanwhile", [complete, delete, recreate])
async def test_an_answer_for_which_the_session_is_no_longer_there_is_kept_in_its_record(meanwhile: Any) -> None:
    long = "A paid answer. " * 1000

    def act(_prompt: str, _tools: Sequence[AgentTool]) -> Answer:
        meanwhile(agent.session_manager)
        return Answer(long, cost=0.5)

    with greeter(act) as agent:
        with pytest.raises((SessionEndedError, SessionNotFoundError)) as failed:
            await agent.invoke("q")
        assert "What was answered is kept as the result of its record." in failed.value.__notes__
        (record,) = agent.session_manager.invocations().items
        assert (record.status, record.cost, record.result) == ("error", 0.5, long)


class Foreign:
    """An executor that somebody wrote in a hurry."""

    name = "foreign"

    def __init__(self, answer: Any) -> None:
        self._answer = answer

    async def run(self, _prompt: str, **_how: Any) -> Any:
        return self._answer


@pytest.mark.parametrize(
    ("answer", "told", "cost"),
    [
        ("text", "foreign answered with str, which is no Answer", None),
        (None, "foreign answered with NoneType, which is no Answer", None),
        (Answer(None, cost=0.5), "foreign answered without a text", 0.5),  # pyright: ignore[reportArgumentType]
        (Answer(" \n", cost=0.5), "foreign answered without a text", 0.5),
    ],
)
async def test_what_is_no_answer_of_an_executor_is_an_error_that_keeps_its_cost(
    answer: Any, told: str, cost: float | None
) -> None:
    with Greeter(AgentConfig(executor=Foreign(answer))) as agent:
        with pytest.raises(ExecutorError, match=told):
            await agent.invoke("q")
        assert [(record.status, record.cost) for record in records(agent)] == [("error", cost)]
        assert agent.get_session_history() == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"model": 5},
        {"usage": {"input": 1}},
        {"usage": [1, 1, 0, 0]},
        {"usage": tokens(1, 1) | {"input": 1.5}},
        {"usage": tokens(10**12 + 1, 1)},
    ],
)
async def test_of_what_is_reported_wrongly_the_rest_is_kept(wrong: dict[str, Any]) -> None:
    report: dict[str, Any] = {"model": "gpt-4o", "usage": tokens(3, 2), "cost": 0.5}
    with Greeter(AgentConfig(executor=Foreign(Answer("a", **(report | wrong))))) as agent:
        assert await agent.invoke("q") == "a"
        (record,) = records(agent)
        assert record.cost == 0.5
        assert record.model == ("foreign" if "model" in wrong else "gpt-4o")
        assert record.token_usage == (None if "usage" in wrong else tokens(3, 2))


async def test_a_call_that_is_cancelled_leaves_its_record_and_no_message() -> None:
    begun = anyio.Event()

    async def forever(_prompt: str, _tools: Sequence[AgentTool]) -> str:
        begun.set()
        await anyio.sleep_forever()
        raise AssertionError

    with greeter(forever) as agent:
        async with anyio.create_task_group() as group:
            group.start_soon(agent.invoke, "q")
            await begun.wait()
            assert [record.status for record in records(agent)] == ["running"]
            group.cancel_scope.cancel()
        assert [record.status for record in records(agent)] == ["cancelled"]
        assert agent.get_session_history() == []


async def test_turns_of_one_session_never_mix() -> None:
    async def slow(prompt: str, _tools: Sequence[AgentTool]) -> str:
        await anyio.lowlevel.checkpoint()
        return prompt.rpartition("\n")[2] + "!"

    with greeter(slow) as agent:
        async with anyio.create_task_group() as group:
            for number in range(20):
                group.start_soon(agent.invoke, f"{number}")
        said = [message["content"] for message in agent.get_session_history()]
        assert said[1::2] == [f"{question}!" for question in said[::2]]
        assert sorted(said[::2], key=int) == [f"{number}" for number in range(20)]


async def test_sessions_of_one_agent_are_apart() -> None:
    with greeter(["a", "b"]) as agent:
        await agent.invoke("q")
        agent.set_session("other")
        assert agent.get_session_history() == []
        await agent.invoke("p")
        assert "**User**" not in asked(agent)[1]
        assert agent.get_session_history("default") == QA
        assert agent.get_session_history("other")[0]["content"] == "p"


@pytest.mark.parametrize("path", [str, Path])
async def test_an_agent_on_files_goes_on_after_a_restart_and_what_it_cleared_stays_cleared(
    tmp_path: Path, path: type
) -> None:
    where = {"session_storage_path": path(tmp_path / "kept"), "session_id": "s"}
    with greeter(["a"], **where) as agent:
        await agent.invoke("q")
    assert (tmp_path / "kept" / "s" / "conversation.jsonl").read_text(encoding="utf-8").count("\n") == 2
    with greeter(["b"], **where) as agent:
        assert agent.get_session_history() == QA
        await agent.invoke("again")
        assert "**Assistant**: a" in asked(agent)[0]
        agent.clear_session_history()
        assert agent.get_session_history() == []
    with greeter(["c"], **where) as agent:
        assert agent.get_session_history() == []
        await agent.invoke("new")
        assert asked(agent)[0].count("**") == 0
        agent.clear_session_history()
        agent.clear_session_history()


async def test_agents_share_a_manager_that_is_handed_in(manager: SessionManager) -> None:
    manager.create_session("s")
    manager.add_conversation_message("s", "user", "I am Ada.")
    manager.add_conversation_message("s", "assistant", "Noted.")
    manager.add_conversation_message("s", "tool", "42", tool_name="count")
    with greeter(["Ada"], manager, session_id="s") as agent:
        await agent.invoke("Who am I?")
        assert "# Conversation History\n**User**: I am Ada.\n\n**Assistant**: Noted.\n\n---" in asked(agent)[0]
    assert manager.metadata("s").message_count == 5  # and it is still open


async def test_another_users_session_is_not_gone_on_with(manager: SessionManager) -> None:
    manager.create_session("s", user_id="ada")
    with pytest.raises(SessionNotFoundError):
        Greeter(AgentConfig(executor=Scripted([]), session_id="s"), manager, as_user="bob")
    agent = Greeter(AgentConfig(executor=Scripted(["a"]), session_id="s"), manager, as_user="ada")
    await agent.invoke("q")
    assert records(agent)[0].user_id == "ada"


async def test_nobody_is_asked_for_a_session_that_has_ended() -> None:
    with greeter(["a"]) as agent:
        agent.session_manager.complete_session("default")
        with pytest.raises(SessionEndedError):
            await agent.invoke("q")
        assert asked(agent) == []
        assert agent.session_manager.metadata("default").unpriced_invocations == 0


@pytest.mark.parametrize(
    "config",
    [
        {"cli_type": "claude", "cli_path": "nowhere"},
        {"cli_type": "claude", "cli_path": "bin/text"},
        {"cli_type": "claude", "cli_path": sys.executable, "cwd": "nowhere"},
        {"executor": "model:no-such-provider:x"},
    ],
)
async def test_where_nobody_could_be_asked_nothing_has_an_unknown_price(
    config: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/text").write_text("no program", encoding="utf-8")
    (tmp_path / "bin/text").chmod(0o755)
    with Greeter(AgentConfig(**config)) as agent:
        with pytest.raises((ExecutorError, InvalidArgumentError)):
            await agent.invoke("q")
        assert agent.session_manager.metadata("default").unpriced_invocations == 0
        (record,) = records(agent)
        assert (record.status, record.model) == ("error", None)


async def test_the_same_call_is_made_once() -> None:
    with greeter(["a"]) as agent:
        assert await agent.invoke("q", invocation_id="1") == "a"
        assert await agent.invoke("q", invocation_id="1") == "a"
        assert len(asked(agent)) == 1
        with pytest.raises(InvocationConflictError):
            await agent.invoke("other", invocation_id="1")
        with pytest.raises(InvocationConflictError):
            await agent.invoke("q", include_history=False, invocation_id="1")
        with greeter(["b"], agent.session_manager, model="gpt-5") as other, pytest.raises(InvocationConflictError):
            await other.invoke("q", invocation_id="1")
        assert agent.get_session_history() == QA


async def test_an_executor_is_told_its_session_and_where_it_is_if_it_is_there(tmp_path: Path) -> None:
    config = {"include_session_in_prompt": True, "session_storage_path": tmp_path, "session_id": "Mine"}
    with greeter(["a"], **config) as agent:
        await agent.invoke("q")
        told = asked(agent)[0]
        assert "Be kind.\n\nYour session: Mine\nIts folder: " in told
    (folder,) = re.findall("Its folder: (.*)", told)
    assert (Path(folder) / "conversation.jsonl").exists()
    with SessionManager(MemorySessionStorage()) as manager, greeter(["a"], manager, **config) as agent:
        await agent.invoke("q")
        assert "Your session: Mine\n\n---" in asked(agent)[0]


async def test_what_an_executor_calls_is_on_record_under_its_call() -> None:
    async def calling(_prompt: str, tools: Sequence[AgentTool]) -> str:
        get, put = tools
        await put.call({"key": "color", "value": "red"})
        return (await get.call({"key": "color"}))["value"]

    with greeter(calling, tools=["session_get", "session_set"]) as agent:
        assert await agent.invoke("q") == "red"
        agent.session_manager.reads.flush()
        by_tool = {record.tool_name: record for record in records(agent)}
        put, get, call = (by_tool[name] for name in ("session_set", "session_get", "greeter"))
        assert {put.caller, get.caller, call.caller} == {"agent:greeter"}
        assert {put.parent_id, get.parent_id} == {call.invocation_id}
        assert call.parent_id is None


async def test_what_is_lent_works_for_the_callers_user_in_the_session_of_the_call(manager: SessionManager) -> None:
    manager.create_session("theirs", user_id="bob")

    async def calling(_prompt: str, tools: Sequence[AgentTool]) -> str:
        (put,) = tools
        await put.call({"key": "n", "value": 1, "expected_version": "0"})  # as models write numbers
        with pytest.raises(SessionNotFoundError):
            await put.call({"session_id": "theirs", "key": "n", "value": 1})
        return "done"

    config = AgentConfig(executor=Scripted(calling), tools=["session_set"], session_id="mine")
    await Greeter(config, manager, as_user="ada").invoke("q")
    assert manager.metadata("mine").user_id == "ada"
    assert manager.get_value("mine", "n") == 1


async def test_a_model_uses_the_tools_of_sessions(manager: SessionManager) -> None:
    config = AgentConfig(executor="model:test", tools=["session_query", "session_get"], session_id="s")
    with ExploreAgent(config, manager) as agent:
        answer = json.loads(await agent.explore("q"))
    assert answer["session_get"]["session_id"] == "s"
    manager.reads.flush()
    call, *reads = sorted(records(agent), key=lambda record: record.started_at)
    assert [record.tool_name for record in reads] == ["session_get"]
    reads += manager.invocations(tool="session_query").items
    assert [(record.parent_id, record.caller) for record in reads] == [(call.invocation_id, "agent:explore")] * 2


def test_tools_that_are_not_there_and_executors_that_cannot_use_any_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="no tool 'hammer'"):
        greeter([], tools=["hammer"], session_storage_path=tmp_path / "kept")
    assert not (tmp_path / "kept").exists()
    with pytest.raises(InvalidArgumentError, match="claude cannot use tools"):
        Greeter(AgentConfig(cli_type="claude", tools=["session_get"]))


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"modell": "x"}, "modell"),
        ({"model": "--dangerous"}, "'--dangerous' is no name of a model: letters"),
        ({"model": "gpt-5\n"}, "is no name of a model"),
        ({"cli_type": "vim"}, "cli_type"),
        ({"executor": Scripted}, "Scripted is the class: give an executor of it"),
        ({"executor": "vim"}, "claude, codex, copilot"),
        ({"executor": "model:test", "model": "other"}, "is the model already"),
        ({"session_id": "../up"}, "session_id"),
        ({"timeout": 0}, "timeout"),
        ({"additional_cli_args": ("a\0",)}, "additional_cli_args.*NUL, which no program can be given"),
        ({"session_storage_path": ""}, "session_storage_path.*an empty text is no directory"),
        ({"session_storage_path": "~no-such-user/kept"}, "session_storage_path.*~no-such-user"),
        ({"working_directories": ("\ud800",)}, "working_directories.*half of a surrogate pair"),
    ],
)
def test_a_configuration_that_cannot_be_is_refused(config: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidArgumentError, match=told):
        Greeter(AgentConfig(**config))


def test_no_list_is_an_empty_one_and_a_store_may_be_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    config = AgentConfig(working_directories=None, additional_cli_args=None, session_storage_path="~/kept")
    assert (config.working_directories, config.additional_cli_args) == ((), ())
    with Greeter(config):
        assert (tmp_path / "kept" / "default").is_dir()


# exploring


@pytest.mark.parametrize(
    ("operation", "about", "asks"),
    [
        ("explore", ("Why?",), "Why?"),
        ("find_implementation", ("login",), "Find the implementation of: login"),
        ("analyze_structure", (), "Analyze the structure of: the whole codebase"),
        ("analyze_structure", ("db",), "Analyze the structure of: db"),
        ("find_usage", ("User",), "Find all usages of: User"),
        ("explain_flow", ("a request",), "Explain the flow of: a request"),
    ],
)
async def test_each_operation_asks_its_question(operation: str, about: tuple[str, ...], asks: str) -> None:
    with ExploreAgent(AgentConfig(executor=Scripted(["Because."]))) as agent:
        assert await getattr(agent, operation)(*about, codebase_path=Path("/code")) == "Because."
        assert f"# Query\n{asks}" in asked(agent)[0]
        assert "# Context\nCodebase Path: /code\n" in asked(agent)[0]
        assert records(agent)[0].caller == "agent:explore"
        assert agent.get_session_history()[0]["content"].startswith(asks)


async def test_an_explorer_refuses_what_it_does_not_know() -> None:
    with ExploreAgent(ExploreAgentConfig(executor=Scripted(["a"]))) as agent:
        with pytest.raises(InvalidArgumentError, match="Unknown argument 'codebas_path': there is codebase_path"):
            await agent.explore("q", codebas_path="shop")
        assert asked(agent) == []


async def test_one_question_about_a_codebase_is_asked_where_it_is(programs: Path, tmp_path: Path) -> None:
    fake = Fake(programs, "claude", stdout=json.dumps(RESULT))
    assert await explore_codebase("Where?", tmp_path, model="haiku") == RESULT["result"]
    assert fake.seen["cwd"] == str(tmp_path)
    assert "haiku" in fake.seen["argv"]
    assert f"Codebase Path: {tmp_path}" in fake.seen["stdin"]
    assert fake.seen["stdin"].endswith("# Query\nWhere?")
    with pytest.raises(InvalidArgumentError, match="cli_type"):
        await explore_codebase("Where?", cli_type="vim")


async def test_a_directory_that_nobody_can_be_told_is_named() -> None:
    with ExploreAgent(AgentConfig(executor=Scripted(["a"]), cwd=Path("/caf\udce9"))) as agent:
        with pytest.raises(InvalidArgumentError, match=r"Current Directory: /caf\\udce9' is not UTF-8"):
            await agent.explore("q")


async def test_an_explorer_is_told_where_to_look(tmp_path: Path) -> None:
    config = ExploreAgentConfig(
        executor=Scripted(["a"]),
        cwd=tmp_path,
        working_directories=[tmp_path / "lib"],
        search_paths=["src", Path("lib")],
        file_extensions=[".rb"],
        ignore_patterns=["tmp"],
        max_file_size=10,
    )
    with ExploreAgent(config) as agent:
        await agent.explore("q")
        told = asked(agent)[0]
        for words in (
            f"Working Directories: {tmp_path}/lib",
            f"Current Directory: {tmp_path}",
            "Search Paths: src, lib",
        ):
            assert words in told
        assert ".rb; none over 10 bytes" in told
        assert "Pass over: tmp." in told


# taking apart


def decomposition(*ids: str, **more: Any) -> str:
    subtopics = [{"id": i, "title": "t", "exploration_task": "e", "importance": "high", **more} for i in ids]
    return json.dumps({"reasoning": "r", "subtopic_count": len(ids), "subtopics": subtopics})


@pytest.mark.parametrize(
    "answer",
    [
        decomposition("a", "b"),
        f"```json\n{decomposition('a', 'b')}\n```",
        f"Here it is:\n```\n{decomposition('a', 'b')}\n```\nDone.",
        f"Sure! {decomposition('a', 'b')} Anything else?",
        f"As {{this}}:\n```json\n{decomposition('a', 'b')}\n```\nor {{that}}.",
    ],
)
async def test_a_question_is_taken_apart_into_checked_subtopics(answer: str) -> None:
    with DecomposeAgent(AgentConfig(executor=Scripted([answer]))) as agent:
        found = await agent.decompose("How does it work?")
        assert [subtopic.id for subtopic in found.subtopics] == ["a", "b"]
        assert (found.reasoning, found.subtopic_count) == ("r", 2)
        assert found.model_dump()["subtopic_count"] == 2
        assert agent.get_session_history() == []


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        ("I cannot.", "no JSON object"),
        ("{broken", "no JSON object"),
        (decomposition("a"), "1 subtopics, not 2 to 6"),
        (decomposition(*"abcdefg"), "7 subtopics"),
        (decomposition("a", "a"), "one id"),
        (decomposition("a", "b", importance="huge"), "importance"),
        ("[1]", "no JSON object"),
        ("[" * 100_000, "no JSON object"),
        pytest.param('{"a":[1],"b":' * 400_000 + "}", "no JSON object", id="many braces"),
    ],
)
async def test_an_answer_that_is_none_is_asked_for_once_more_and_then_refused(answer: str, fault: str) -> None:
    with DecomposeAgent(AgentConfig(executor=Scripted([answer, decomposition("a", "b"), answer, answer]))) as agent:
        assert (await agent.decompose("q")).subtopic_count == 2
        assert fault in asked(agent)[1]
        with pytest.raises(ExecutorError, match=fault):
            await agent.decompose("q")
        assert [record.status for record in records(agent)] == ["ok"] * 4


async def test_a_question_that_is_asked_once_more_is_another_call_and_each_is_made_once() -> None:
    heard: list[str] = []

    async def hear(text: str) -> None:
        heard.append(text)

    with DecomposeAgent(AgentConfig(executor=Scripted(["No.", decomposition("a", "b")]))) as agent:
        first, again = [await agent.decompose("q", invocation_id="one", on_text=hear) for _ in range(2)]
        assert first == again
        assert len(asked(agent)) == len(records(agent)) == len(heard) == 2


def test_a_range_that_is_none_is_refused() -> None:
    agent = DecomposeAgent(AgentConfig(executor=Scripted([])))
    with pytest.raises(InvalidArgumentError, match="no range"):
        anyio.run(agent.decompose, "q", 3, 2)


def test_a_store_of_files_is_one_that_others_read(tmp_path: Path) -> None:
    with greeter(["a"], session_storage_path=tmp_path / "kept", session_id="s") as agent:
        anyio.run(agent.invoke, "q")
    with FileSystemSessionStorage(tmp_path / "kept") as storage:
        assert [finding.level for finding in storage.check()] == ["ok"] * len(storage.check())
