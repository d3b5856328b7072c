"""Executors: how programs and models are asked, what is made of their answers, and what is left of them: nothing."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from mcp_sessions._os import end_tree
from mcp_sessions.agents import AgentConfig, AgentTool, Answer, Scripted, executor_for
from mcp_sessions.agents.executors import process
from mcp_sessions.agents.executors.models import ModelExecutor
from mcp_sessions.errors import ExecutorError, InvalidArgumentError, StorageError
from mcp_sessions.models import MOST_TOKENS, tokens
from tests.agents.fakes import EVENTS, RESULT, Fake, commands, gone, lines
from tests.processes import until

pytestmark = pytest.mark.anyio
OUTPUTS = {"claude": json.dumps(RESULT), "codex": lines(*EVENTS), "copilot": "\n● It is in auth.py:3.\n\n"}
TEXT = "It is in auth.py:3."


async def answered(cli: str, prompt: str = "Where?", **config: Any) -> Answer:
    return await executor_for(AgentConfig(cli_type=cli, **config)).run(prompt)


@pytest.mark.parametrize(
    ("cli", "config", "argv"),
    [
        ("claude", {}, ["--print", "--output-format", "json"]),
        (
            "claude",
            {
                "skip_permissions": True,
                "model": "sonnet",
                "working_directories": ["/a", "/b c"],
                "additional_cli_args": ["--max-turns", "3"],
            },
            [
                *("--print", "--output-format", "json", "--dangerously-skip-permissions", "--model", "sonnet"),
                *("--add-dir", "/a", "--add-dir", "/b c", "--max-turns", "3"),
            ],
        ),
        ("codex", {}, ["exec", "--json", "--skip-git-repo-check", "--sandbox", "read-only", "-"]),
        (
            "codex",
            {
                "skip_permissions": True,
                "model": "gpt-5",
                "working_directories": ["/a"],
                "additional_cli_args": ["--ephemeral"],
            },
            [
                *("exec", "--json", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox"),
                *("--model", "gpt-5", "--add-dir", "/a", "--ephemeral", "-"),
            ],
        ),
        ("copilot", {}, ["--silent", "--no-color", "--no-ask-user"]),
        (
            "copilot",
            {"skip_permissions": True, "model": "gemini-3.0-pro", "working_directories": ["/a"]},
            [
                *("--silent", "--no-color", "--no-ask-user", "--allow-all-tools", "--model", "gemini-3.0-pro"),
                *("--add-dir", "/a"),
            ],
        ),
    ],
)
async def test_each_program_is_called_by_a_list_and_gets_the_prompt_on_stdin(
    cli: str, config: dict[str, Any], argv: list[str], programs: Path, tmp_path: Path
) -> None:
    fake = Fake(programs, cli, stdout=OUTPUTS[cli])
    prompt = "Where is `login`? $(touch pwned) 'ü"
    assert (await answered(cli, prompt, **config)).text.endswith(TEXT)
    assert fake.seen["argv"] == argv
    assert fake.seen["stdin"] == prompt
    assert fake.seen["cwd"] == str(tmp_path)
    assert all(path.name == "bin" for path in tmp_path.iterdir())  # noqa: ASYNC240 - nobody else waits


@pytest.mark.parametrize("cli", OUTPUTS)
async def test_a_prompt_of_a_megabyte_arrives_whole(cli: str, programs: Path) -> None:
    fake = Fake(programs, cli, stdout=OUTPUTS[cli])
    prompt = "0123456789abcdef" * 65_536
    await answered(cli, prompt)
    assert fake.seen["stdin"] == prompt


@pytest.mark.parametrize("written", [RESULT, [{"type": "system"}, RESULT], None])
async def test_what_claude_reports_is_taken_as_it_is(written: Any, programs: Path) -> None:
    Fake(programs, "claude", stdout=json.dumps(written) if written else lines({"type": "system"}, RESULT))
    answer = await answered("claude")
    assert answer == Answer(TEXT, "claude-sonnet-4-5", tokens(325, 60, 300, 20), 0.0787, RESULT)
    assert answer.raw == RESULT


async def test_what_claude_does_not_report_is_not_made_up(programs: Path) -> None:
    Fake(programs, "claude", stdout=json.dumps({"type": "result", "result": "a", "usage": {"input_tokens": "many"}}))
    assert await answered("claude", model="opus") == Answer(
        "a", "opus", raw={"type": "result", "result": "a", "usage": {"input_tokens": "many"}}
    )


@pytest.mark.parametrize(
    "usage",
    [
        {"input_tokens": True, "output_tokens": 1},
        {"input_tokens": -1, "output_tokens": 1},
        {"input_tokens": 10**30, "output_tokens": 1},
        {"input_tokens": 1},
        {"input_tokens": 1, "output_tokens": float("nan")},
        [],
        None,
    ],
)
async def test_numbers_that_cannot_be_are_taken_for_none(usage: Any, programs: Path) -> None:
    for cost in (-1, "1", True, 1e30, float("nan"), float("inf")):
        Fake(programs, "claude", stdout=json.dumps({**RESULT, "usage": usage, "total_cost_usd": cost}))
        answer = await answered("claude")
        assert (answer.text, answer.usage, answer.cost) == (TEXT, None, None)
    Fake(programs, "codex", stdout=lines(*EVENTS[:-1], {"type": "turn.completed", "usage": usage}))
    assert (await answered("codex")).usage is None


async def test_of_codex_the_last_message_is_the_answer_and_its_tokens_are_counted(programs: Path) -> None:
    Fake(programs, "codex", stdout="not JSON\n" + lines(*EVENTS, ["neither"], {"type": "new.event"}))
    answer = await answered("codex", model="gpt-5")
    assert (answer.text, answer.model, answer.usage, answer.cost) == (TEXT, "gpt-5", tokens(120, 45, 100), None)
    assert answer.raw.endswith('{"type": "new.event"}\n')


async def test_what_codex_overcomes_is_no_failure(programs: Path) -> None:
    Fake(programs, "codex", stdout=lines({"type": "error", "message": "Reconnecting... 1/5"}, *EVENTS))
    assert (await answered("codex")).text == TEXT


async def test_copilot_reports_nothing_and_so_nothing_is_told(programs: Path) -> None:
    Fake(programs, "copilot", stdout=OUTPUTS["copilot"])
    assert await answered("copilot") == Answer("● It is in auth.py:3.")


@pytest.mark.parametrize(
    ("cli", "stdout", "told"),
    [
        ("claude", json.dumps({**RESULT, "is_error": True, "result": "Credit balance is too low"}), "Credit balance"),
        ("claude", json.dumps({"type": "result", "subtype": "error_max_turns", "is_error": True}), "error_max_turns"),
        ("claude", "Not logged in", "gave no answer. Its output begins: 'Not logged in'"),
        ("claude", "[" * 100_000, "gave no answer"),
        ("claude", json.dumps({**RESULT, "result": ""}), "it says nothing"),
        (
            "claude",
            json.dumps({**RESULT, "is_error": True, "result": "no " * 9999}),
            r"did not answer: (no ){100,166}no?$",
        ),
        ("claude", "", "gave no answer"),
        ("codex", lines({"type": "turn.failed", "error": {"message": "quota"}}), "did not answer: quota"),
        ("codex", lines(*EVENTS[:3], {"type": "error", "message": "no network"}), "no network"),
        ("codex", lines(*EVENTS[:3]), "gave no answer"),
        ("copilot", " \n", "gave no answer"),
    ],
)
async def test_what_is_no_answer_is_an_error(cli: str, stdout: str, told: str, programs: Path) -> None:
    Fake(programs, cli, stdout=stdout)
    with pytest.raises(ExecutorError, match=told):
        await answered(cli)


async def test_tokens_that_are_too_many_together_are_taken_for_none(programs: Path) -> None:
    usage = {"input_tokens": MOST_TOKENS, "cache_read_input_tokens": 1, "output_tokens": 1}
    Fake(programs, "claude", stdout=json.dumps({**RESULT, "usage": usage}))
    assert (await answered("claude")).usage is None


@pytest.mark.parametrize("cli", ["claude", "codex"])
async def test_a_line_ends_where_json_says_so_and_half_an_emoji_is_text(cli: str, programs: Path) -> None:
    text = "one\u2028two\x85three"
    said: dict[str, Any] = {
        "claude": {**RESULT, "result": text},
        "codex": {"type": "item.completed", "item": {"type": "agent_message", "text": text}},
    }[cli]
    Fake(programs, cli, stdout=json.dumps(said, ensure_ascii=False) + "\n")
    assert (await answered(cli)).text == text
    Fake(programs, cli, stdout=lines(said).replace("three", "\\ud83d"))
    assert (await answered(cli)).text == "one\u2028two\x85\ud83d"


async def test_an_error_tells_no_key_that_the_program_was_given(
    programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-12345")
    error = {**RESULT, "is_error": True, "result": "sk-ant-12345 is no key"}
    Fake(programs, "claude", stdout=json.dumps(error), code=1, stderr="tried sk-ant-12345")
    with pytest.raises(ExecutorError) as failed:
        await answered("claude")
    assert "sk-ant" not in str(failed.value) + failed.value.stderr
    assert "tried [redacted]" in str(failed.value)


@pytest.mark.parametrize(
    "stdout", ["debug: the key is sk-ant-12345", json.dumps({**RESULT, "is_error": True, "result": "bad sk-ant-12345"})]
)
async def test_an_error_of_a_program_that_ends_well_tells_no_key_either(
    stdout: str, programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-12345")
    Fake(programs, "claude", stdout=stdout)
    with pytest.raises(ExecutorError, match=r"\[redacted\]") as failed:
        await answered("claude")
    assert "sk-ant" not in repr(failed.value) + repr(failed.value.answer)


async def test_a_value_too_short_for_a_key_is_left_in_errors(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COPILOT_TOKEN", "on")
    Fake(programs, "copilot", code=1, stderr="no connection")
    with pytest.raises(ExecutorError, match="no connection"):
        await answered("copilot")


async def deny(_text: str) -> None:
    raise BrokenPipeError("the terminal is gone")


@pytest.mark.parametrize(
    ("written", "plan", "config", "heard", "told"),
    [
        (lines(RESULT), {"hangs": True}, {"timeout": 1.5}, None, r"timed out after 1\.5 seconds and was ended\.$"),
        (lines(RESULT) + "x" * 9000, {}, {"max_output_bytes": 9000}, None, r"more than 9,000 bytes"),
        (
            lines({"type": "stream_event", "event": {"delta": {"type": "text_delta", "text": "It"}}}, RESULT),
            {},
            {},
            deny,
            r"not heard to its end \(BrokenPipeError: the terminal is gone\)\.$",
        ),
    ],
)
async def test_what_a_program_had_answered_before_it_was_ended_is_told_with_the_error(
    written: str, plan: dict[str, Any], config: dict[str, Any], heard: Any, told: str, programs: Path
) -> None:
    Fake(programs, "claude", stdout=written, **plan)
    with pytest.raises(ExecutorError, match=told) as failed:
        await executor_for(AgentConfig(cli_type="claude", **config)).run("Where?", on_text=heard)
    assert isinstance(failed.value.answer, Answer)
    assert (failed.value.answer.text, failed.value.answer.cost) == (TEXT, 0.0787)
    assert isinstance(failed.value.__cause__, BrokenPipeError) == (heard is not None)


async def test_what_a_failed_answer_cost_is_told_with_the_error(programs: Path) -> None:
    Fake(programs, "claude", stdout=json.dumps({**RESULT, "is_error": True, "result": "No."}), code=1, stderr="bye")
    with pytest.raises(ExecutorError) as failed:
        await answered("claude")
    assert str(failed.value) == "claude failed with exit code 1: claude did not answer: No.\nbye"
    assert isinstance(failed.value.answer, Answer)
    assert failed.value.answer.cost == 0.0787


@pytest.mark.parametrize("cli", OUTPUTS)
async def test_a_program_that_fails_is_an_error_with_exit_code_and_stderr(cli: str, programs: Path) -> None:
    Fake(programs, cli, code=3, stderr="x" * 10_000 + "cannot reach the model\n")
    with pytest.raises(ExecutorError, match=f"{cli} failed with exit code 3: x+cannot reach the model") as failed:
        await answered(cli)
    assert failed.value.exit_code == 3
    assert failed.value.stderr.endswith("cannot reach the model")
    assert len(failed.value.stderr) < 8193


async def test_a_program_gets_the_usual_variables_its_own_and_those_that_are_named(
    programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ANTHROPIC_API_KEY", "OPENAI_API_KEY", "GH_TOKEN", "DATABASE_PASSWORD", "TEAM_A", "TEAM_B", "LC_ALL"):
        monkeypatch.setenv(name, "there")
    monkeypatch.setenv("MCP_SESSIONS_STORAGE", "memory://")
    fakes = {cli: Fake(programs, cli, stdout=stdout) for cli, stdout in OUTPUTS.items()}
    own = {"claude": "ANTHROPIC_API_KEY", "codex": "OPENAI_API_KEY", "copilot": "GH_TOKEN"}
    for cli, fake in fakes.items():
        await answered(cli, env=["TEAM_*"])
        there = {name for name, value in fake.seen["env"].items() if value == "there"}
        assert there == {own[cli], "TEAM_A", "TEAM_B", "LC_ALL"}
        assert fake.seen["env"]["PATH"] == os.environ["PATH"]
        assert "MCP_SESSIONS_STORAGE" not in fake.seen["env"]


async def test_a_program_runs_where_it_is_told_to(programs: Path, tmp_path: Path) -> None:
    fake = Fake(programs, "copilot", stdout="a")
    (tmp_path / "code").mkdir()
    await answered("copilot", cwd=str(tmp_path / "code"))
    assert fake.seen["cwd"] == str(tmp_path / "code")
    for path in ("nowhere", "bin/copilot"):
        with pytest.raises(InvalidArgumentError, match="is no directory"):
            await answered("copilot", cwd=tmp_path / path)


async def test_a_program_that_is_not_there_is_named_and_so_is_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ExecutorError, match=r"claude was not found at .*/nowhere. Install it, or say where it is"):
        await answered("claude", cli_path=tmp_path / "nowhere")
    with monkeypatch.context() as without:
        without.setenv("PATH", str(tmp_path))
        with pytest.raises(
            ExecutorError, match=r"claude was not found on the PATH of this process.*env in the client's"
        ):
            await answered("claude")
    fake = Fake(tmp_path / "else", "my-claude", stdout=OUTPUTS["claude"])
    assert (await answered("claude", cli_path=fake.path)).text == TEXT
    monkeypatch.chdir(tmp_path)
    assert (await answered("claude", cli_path="else/my-claude", cwd=tmp_path / "else")).text == TEXT
    (tmp_path / "text").write_text("no program", encoding="utf-8")
    (tmp_path / "text").chmod(0o755)
    with pytest.raises(ExecutorError, match=r"claude could not be started from /.*/text: Exec"):
        await answered("claude", cli_path=tmp_path / "text")


@pytest.mark.parametrize(("cli", "model"), [("claude", "gpt-5"), ("codex", "claude-opus-4.5"), ("codex", "gemini-3")])
def test_a_model_of_another_family_is_refused(cli: str, model: str) -> None:
    with pytest.raises(InvalidArgumentError, match=f"{cli} has no model '{model}'"):
        executor_for(AgentConfig(cli_type=cli, model=model))


async def test_a_program_that_takes_too_long_is_ended_with_all_that_it_started(programs: Path) -> None:
    fake = Fake(programs, "claude", children=True, hangs=True)
    with pytest.raises(ExecutorError, match=r"claude timed out after 1.5 seconds"):
        await answered("claude", timeout=1.5)
    assert len(fake.started()) == 3
    assert all(map(gone, fake.started()))


async def test_a_call_that_is_cancelled_leaves_no_process(programs: Path) -> None:
    fake = Fake(programs, "codex", children=True, hangs=True)
    async with anyio.create_task_group() as group:
        group.start_soon(answered, "codex")
        await anyio.to_thread.run_sync(fake.started)
        group.cancel_scope.cancel()
    assert all(map(gone, fake.started()))


async def test_a_call_that_is_cancelled_while_its_program_is_being_started_leaves_no_process(programs: Path) -> None:
    """The program was ended, and what it had started by then went on."""
    fake = Fake(programs, "codex", deaf=True, children=True, hangs=True)
    async with anyio.create_task_group() as group:
        group.start_soon(answered, "codex")
        while not any(str(fake.path) in command for command in commands()):
            await anyio.lowlevel.checkpoint()
        started = fake.started()  # meanwhile the loop stands, so nobody has heard of the process
        group.cancel_scope.cancel()
    assert all(map(gone, started))


async def test_an_agent_that_a_program_starts_ends_with_that_program(
    programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(process.MARK, "run_outer")
    fake = Fake(programs, "codex", children=True, hangs=True)
    async with anyio.create_task_group() as group:
        group.start_soon(answered, "codex")
        started = await anyio.to_thread.run_sync(fake.started)
        end_tree(started[0], "run_outer")
        assert all(map(gone, started))  # before the loop hears of it, and ends them itself
        group.cancel_scope.cancel()


async def test_what_a_program_leaves_behind_ends_with_its_answer(programs: Path) -> None:
    """It holds stdout open, which then never ends."""
    fake = Fake(programs, "copilot", children=True, stdout="done")
    assert (await answered("copilot")).text == "done"
    assert all(map(gone, fake.started()))


async def test_a_program_that_writes_without_end_is_ended(programs: Path) -> None:
    fake = Fake(programs, "copilot", stdout="x" * 100_000, times=100, children=True)
    with pytest.raises(ExecutorError, match=r"more than 1,000,000 bytes \(max_output_bytes\)"):
        await answered("copilot", max_output_bytes=1_000_000)
    assert not any(str(fake.path) in command for command in commands())
    assert all(map(gone, fake.started()))


async def test_a_program_need_not_read_what_it_is_told(programs: Path) -> None:
    Fake(programs, "copilot", deaf=True, stdout="No.")
    assert (await answered("copilot", "x" * 1_000_000)).text == "No."


def said(text: str) -> Any:
    return {"type": "stream_event", "event": {"type": "content_block_delta", "delta": text_delta(text)}}


def text_delta(text: str) -> Any:
    return {"type": "text_delta", "text": text}


def said_anew(kind: str) -> Any:
    return {"type": "stream_event", "event": {"type": "content_block_start", "content_block": {"type": kind}}}


@pytest.mark.parametrize(
    ("cli", "stdout", "pieces"),
    [
        (
            "claude",
            lines(
                {"type": "system", "subtype": "init"},
                said_anew("text"),
                said("I look."),
                said_anew("tool_use"),
                said_anew("text") | {"parent_tool_use_id": "toolu_1"},
                said("I am its helper.") | {"parent_tool_use_id": "toolu_1"},
                said_anew("text") | {"parent_tool_use_id": None},
                said("It is "),
                said("in auth.py:3."),
                RESULT,
            ),
            ["I look.", "\n", "It is ", "in auth.py:3."],
        ),
        ("codex", lines(*EVENTS), ["I look.\n", "It is in auth.py:3.\n"]),
        ("copilot", "It is\nin auth.py:3.\n", ["It is\n", "in auth.py:3.\n"]),
        ("copilot", "It is\n\nin auth.py:3.", ["It is\n", "\n", "in auth.py:3.\n"]),
    ],
)
async def test_an_answer_is_told_as_it_comes(cli: str, stdout: str, pieces: list[str], programs: Path) -> None:
    fake = Fake(programs, cli, stdout=stdout)
    heard: list[str] = []

    async def hear(text: str) -> None:
        heard.append(text)

    await executor_for(AgentConfig(cli_type=cli)).run("Where?", on_text=hear)
    assert heard == pieces
    if cli == "claude":
        assert fake.seen["argv"][1:5] == ["--output-format", "stream-json", "--verbose", "--include-partial-messages"]


async def test_who_listens_may_take_longer_than_the_program(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it had not heard half a second after the end of the program, it never heard."""
    monkeypatch.setattr(process, "LINGER_S", 0.05)
    Fake(programs, "copilot", stdout="one\ntwo\nthree\n")
    heard: list[str] = []

    async def hear(text: str) -> None:
        await anyio.sleep(0.1)
        heard.append(text)

    await executor_for(AgentConfig(cli_type="copilot")).run("Where?", on_text=hear)
    assert heard == ["one\n", "two\n", "three\n"]


async def test_how_long_a_listener_takes_is_not_the_programs_time(tmp_path: Path) -> None:
    program = tmp_path / "copilot"
    program.write_text("#!/bin/sh\ncat > /dev/null\necho one\necho two\n", encoding="utf-8")
    program.chmod(0o755)
    heard: list[str] = []

    async def hear(text: str) -> None:
        await anyio.sleep(2.1)
        heard.append(text)

    await executor_for(AgentConfig(cli_path=program, timeout=2)).run("Where?", on_text=hear)
    assert heard == ["one\n", "two\n"]


async def test_programs_take_no_tools_of_ours() -> None:
    async def call(_arguments: Mapping[str, Any]) -> None: ...

    with pytest.raises(InvalidArgumentError, match="cannot use tools"):
        await executor_for(AgentConfig(cli_type="codex")).run("q", tools=[AgentTool("t", "d", {}, call)])


# models


def tool(call: Any) -> AgentTool:
    schema = {"type": "object", "properties": {"key": {"type": "string"}}, "required": ["key"]}
    return AgentTool("look", "Look it up.", schema, call)


async def test_a_model_answers_uses_tools_and_reports_its_tokens() -> None:
    calls: list[Mapping[str, Any]] = []
    heard: list[str] = []

    async def look(arguments: Mapping[str, Any]) -> Any:
        calls.append(arguments)
        return {"color": "red"}

    async def hear(text: str) -> None:
        heard.append(text)

    executor = executor_for(AgentConfig(executor="model:test"))
    answer = await executor.run("q", tools=[tool(look)], on_text=hear)
    assert executor.name == "model:test"
    assert calls == [{"key": "a"}]
    assert "".join(heard) == answer.text == '{"look":{"color":"red"}}'
    assert answer.model == "test"
    assert answer.usage is not None
    assert answer.usage["input"] > 0
    assert answer.cost is None
    assert [message.kind for message in answer.raw][:2] == ["request", "response"]


async def test_a_model_is_told_what_was_wrong_with_its_call() -> None:
    from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart
    from pydantic_ai.models.function import AgentInfo, FunctionModel

    async def refuse(arguments: Mapping[str, Any]) -> Any:
        if arguments["key"] == "wrong":
            raise InvalidArgumentError("key 'wrong' is none.")
        return "ok"

    def act(messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
        told = str(messages[-1])
        if "is none" in told:
            return ModelResponse(parts=[ToolCallPart("look", {"key": "right"})])
        return ModelResponse(parts=[TextPart("done") if "ok" in told else ToolCallPart("look", {"key": "wrong"})])

    assert (await ModelExecutor(FunctionModel(act)).run("q", tools=[tool(refuse)])).text == "done"


async def test_what_keeps_a_model_from_answering_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    from pydantic_ai import models
    from pydantic_ai.messages import ModelMessage, ModelResponse
    from pydantic_ai.models.function import AgentInfo, FunctionModel

    async def forever(_messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
        await anyio.sleep_forever()
        raise AssertionError

    async def broken(_arguments: Mapping[str, Any]) -> Any:
        raise StorageError("the disk is full")

    monkeypatch.setattr(models, "ALLOW_MODEL_REQUESTS", False)
    with pytest.raises(ExecutorError, match=r"timed out after 0\.05 seconds"):
        await ModelExecutor(FunctionModel(forever), timeout_s=0.05).run("q")
    for name in ("no-such-provider:x", "openai:gpt-4o", ""):
        with pytest.raises(ExecutorError, match=rf"model:{name} (cannot be asked|did not answer)"):
            await ModelExecutor(name).run("q")
    with pytest.raises(StorageError):
        await ModelExecutor("test").run("q", tools=[tool(broken)])


REPLIES: list[tuple[str, str, Any]] = [
    (
        "anthropic:claude-haiku-4-5",
        "ANTHROPIC",
        (
            {
                "type": "message_start",
                "message": {
                    "id": "msg_1",
                    "type": "message",
                    "role": "assistant",
                    "model": "claude-haiku-4-5",
                    "content": [],
                    "usage": {"input_tokens": 7, "output_tokens": 0},
                },
            },
            {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": TEXT}},
            {"type": "content_block_stop", "index": 0},
            {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}},
            {"type": "message_stop"},
        ),
    ),
    (
        "openai-chat:gpt-4o",
        "OPENAI",
        {
            "id": "c_1",
            "object": "chat.completion",
            "created": 1,
            "model": "gpt-4o",
            "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": TEXT}}],
            "usage": {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9},
        },
    ),
]
"""How providers answer: a tuple of events, or an object."""


@pytest.mark.parametrize(("model", "variable", "reply"), REPLIES)
async def test_the_extra_brings_what_the_providers_of_the_readme_need(
    model: str, variable: str, reply: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    class Provider(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
            self.send_response(200)
            streams = isinstance(reply, tuple)
            self.send_header("Content-Type", "text/event-stream" if streams else "application/json")
            self.end_headers()
            events = [f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in reply] if streams else []
            self.wfile.write("".join(events or [json.dumps(reply)]).encode())

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Provider) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setenv(f"{variable}_API_KEY", "key")
        monkeypatch.setenv(f"{variable}_BASE_URL", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        try:
            answer = await ModelExecutor(model).run("Where is it?")
        finally:
            await anyio.to_thread.run_sync(server.shutdown)
            thread.join()
    assert (answer.text, answer.model, answer.usage) == (TEXT, model.partition(":")[2], tokens(7, 2))
    assert "Where is it?" in asked[0]


@pytest.mark.parametrize("error", [ValueError("a bad reply"), RuntimeError("a bad reply")], ids=repr)
async def test_whatever_a_provider_raises_is_an_error_that_keeps_its_tokens(error: Exception) -> None:
    from pydantic_ai.messages import ModelMessage, ModelResponse, ToolCallPart
    from pydantic_ai.models.function import AgentInfo, FunctionModel

    async def look(_arguments: Mapping[str, Any]) -> Any:
        return "ok"

    def act(messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
        if len(messages) > 1:
            raise error
        return ModelResponse(parts=[ToolCallPart("look", {"key": "a"})])

    with pytest.raises(ExecutorError, match="did not answer: a bad reply") as failed:
        await ModelExecutor(FunctionModel(act)).run("q", tools=[tool(look)])
    assert failed.value.__cause__ is error
    assert isinstance(failed.value.answer, Answer)
    assert failed.value.answer.usage is not None


async def test_what_a_model_says_is_told_from_its_first_word() -> None:
    from collections.abc import AsyncIterator

    from pydantic_ai.messages import ModelMessage
    from pydantic_ai.models.function import AgentInfo, FunctionModel

    async def say(_messages: list[ModelMessage], _info: AgentInfo) -> AsyncIterator[str]:
        yield "It is "
        yield "there."

    heard: list[str] = []

    async def hear(text: str) -> None:
        heard.append(text)

    assert (await ModelExecutor(FunctionModel(stream_function=say)).run("q", on_text=hear)).text == "It is there."
    assert heard == ["It is ", "there."]


async def test_of_a_model_that_fails_the_tokens_are_told_and_its_own_timeout_is_not_ours() -> None:
    from pydantic_ai.messages import ModelMessage, ModelResponse, ToolCallPart
    from pydantic_ai.models.function import AgentInfo, FunctionModel

    async def look(_arguments: Mapping[str, Any]) -> Any:
        return "ok"

    def act(messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
        if len(messages) > 1:
            raise TimeoutError("no route to it")
        return ModelResponse(parts=[ToolCallPart("look", {"key": "a"})])

    with pytest.raises(ExecutorError, match="did not answer: no route to it") as failed:
        await ModelExecutor(FunctionModel(act), timeout_s=60).run("q", tools=[tool(look)])
    assert isinstance(failed.value.answer, Answer)
    assert failed.value.answer.usage is not None
    assert failed.value.answer.usage["input"] > 0
    with pytest.raises(ExecutorError) as failed:
        await ModelExecutor("no-such-provider:x").run("q")
    assert failed.value.answer is None


# scripts


async def test_a_script_gives_its_answers_and_raises_its_errors() -> None:
    script = Scripted(["one", Answer("two", cost=1.0), ExecutorError("three")])
    assert (await script.run("a")).text == "one"
    assert (await script.run("b")).cost == 1.0
    for told in ("three", "no answer left"):
        with pytest.raises(ExecutorError, match=told):
            await script.run("c")
    assert script.prompts == ["a", "b", "c", "c"]


def test_that_nothing_is_left_is_looked_for() -> None:
    """`gone` itself: a process that is there is not."""
    assert not gone(os.getpid())
    child = os.fork()
    if child == 0:
        os._exit(0)
    until(lambda: gone(child))
    os.waitpid(child, 0)
    assert gone(child)
