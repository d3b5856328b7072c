"""README: each of its blocks is run or held against the program word by word, and it leaves out nothing."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest

from mcp_sessions import FileSystemSessionStorage, SessionManager
from mcp_sessions.cli import COMMANDS, main
from mcp_sessions.cli.demo import story
from mcp_sessions.config import Settings, sqlite_url, variable
from mcp_sessions.server import prompts
from mcp_sessions.tools import SESSION_TOOLS
from mcp_sessions.workflows import WorkflowDefinition

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
LINES = [line for kind, block in BLOCKS if kind == "sh" for line in block.splitlines()]
OURS = [line for line in LINES if line.startswith("mcp-sessions ")]
QUICK_START = [
    "python3 -m venv .venv && .venv/bin/pip install -e . && .venv/bin/mcp-sessions demo",
    'python3 -m venv .venv && .venv/bin/pip install -e ".[dev]" && .venv/bin/python -m pytest',
]
WITH_UV = ["uv run mcp-sessions demo", "uv run --extra dev python -m pytest"]
CI = [".ci/run", ".ci/run --full"]
ON_WINDOWS = [("py -m", "python3 -m"), ("; ", " && "), (".venv\\Scripts\\", ".venv/bin/")]


def blocks(kind: str) -> list[str]:
    return [block for of, block in BLOCKS if of == kind]


def run(*words: str, store: Path) -> str:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "MCP_SESSIONS_STORAGE": sqlite_url(store), "PYTHONUTF8": "1"}
    ran = subprocess.run(
        [sys.executable, *words], capture_output=True, encoding="utf-8", env=env, stdin=subprocess.DEVNULL, check=False
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def rows(heading: str) -> list[list[str]]:
    """The cells of the table under a heading."""
    section = re.search(rf"^## {heading}\n(.*?)(?=^## |\Z)", README, re.MULTILINE | re.DOTALL)
    assert section is not None
    lines = [line for line in section[1].splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_every_block_is_of_a_kind_that_is_checked_here() -> None:
    assert {kind for kind, _ in BLOCKS} == {"sh", "powershell", "python", "json", "text", "yaml"}
    assert sorted(LINES) == sorted([*QUICK_START, *WITH_UV, *CI, *OURS])


def test_the_workflow_is_one() -> None:
    (text,) = blocks("yaml")
    definition = WorkflowDefinition.from_yaml(text)
    definition.check_tools(SESSION_TOOLS)
    assert [step.kind for step in definition.spec.steps] == ["tool", "agent", "approve", "tool"]


def test_the_quick_start_is_two_commands_of_which_each_word_is_there() -> None:
    assert blocks("sh")[0].splitlines() == QUICK_START
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["requires-python"] == ">=3.11"
    assert "3.11 or newer" in README
    assert project["scripts"] == {"mcp-sessions": "mcp_sessions.cli:main"}
    assert "dev" in project["optional-dependencies"]
    assert "demo" in COMMANDS


def test_the_quick_start_on_windows_is_the_same() -> None:
    (block,) = blocks("powershell")
    for theirs, ours in ON_WINDOWS:
        block = block.replace(theirs, ours)
    assert block.splitlines() == QUICK_START


def test_ci_is_there() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert "--full)" in script.read_text(encoding="utf-8")


def test_the_python_block_runs_and_the_commands_beside_it_show_what_it_did(tmp_path: Path) -> None:
    """Each line with mcp-sessions, as it stands, over the store that the Python block leaves."""
    store = tmp_path / "sessions.db"
    (block,) = blocks("python")
    assert len([line for line in block.splitlines() if line]) <= 10
    assert run("-c", block, store=store) == "1204 1\n"
    said = {line: run("-m", "mcp_sessions", *shlex.split(line)[1:], store=store) for line in OURS}
    assert "Move billing to v2" in said["mcp-sessions ls tag:billing since:7d"]
    assert "count_invoices" in said["mcp-sessions show - --full"]
    assert json.loads(said["mcp-sessions get - invoices"]) == 1204
    assert json.loads(said["mcp-sessions ls --json"])[0]["tags"] == ["billing"]


def test_the_json_is_what_install_prints_up_to_the_path(tmp_path: Path) -> None:
    (block,) = blocks("json")
    printed = run("-m", "mcp_sessions", "install", "claude-desktop", "--print", store=tmp_path / "sessions.db")
    shown, entry = json.loads(block), json.loads(printed)["mcpServers"]["sessions"]
    entry |= {"command": "/absolute/path/to/.venv/bin/mcp-sessions", "args": ["serve"]}
    assert shown == {"mcpServers": {"sessions": entry}}


def test_what_the_demo_is_shown_to_say_is_what_it_says() -> None:
    shown, _, _ = blocks("text")
    source = Path(story.__file__).read_text(encoding="utf-8")
    checks = [line.removeprefix("ok").strip() for line in shown.splitlines() if line.startswith("ok")]
    assert len(checks) == 2
    assert [check for check in checks if f'"{check}"' not in source] == []


def test_a_store_of_files_has_what_is_shown_of_it(tmp_path: Path) -> None:
    *_, shown = blocks("text")
    with SessionManager(FileSystemSessionStorage(tmp_path / "folder")) as manager:
        manager.create_session("release-notes")
        manager.add_conversation_message("release-notes", "user", "What is new?")
        manager.link_invocation("release-notes", "inv_1", "git_log")
        with manager.call("session_query", None):
            pass
    there = [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")]
    named = re.findall(r"(?<=[ /])[a-z.-]+(?:\.jsonl?|/)(?= |$)", "\n" + shown.replace("\n", "\n "), re.MULTILINE)
    assert len(named) == 9
    assert [name for name in named if not any(path.endswith(name.rstrip("/")) for path in there)] == []
    for folder in (".history", ".store", ".index", "invocations"):
        assert f"{folder}/" in shown
        assert any(folder in Path(path).parts for path in there)


def test_the_lines_for_agents_name_tools_that_there_are() -> None:
    _, lines, _ = blocks("text")
    named = re.findall(r"session_[a-z_]+", lines)
    assert len(lines.splitlines()) == 3
    assert len(named) == 5
    assert all(name in SESSION_TOOLS for name in named)


def test_the_table_of_tools_is_the_toolbox() -> None:
    shown = [(name.strip("`"), toolset, arguments) for name, toolset, arguments, _ in rows("The tools")]
    box: list[tuple[str, str, str]] = []
    for tool in SESSION_TOOLS:
        schema = tool.input_schema()
        needed = schema.get("required", ())
        arguments = ", ".join(f"`{name}`" + ("*" if name in needed else "") for name in schema["properties"])
        box.append((tool.name, tool.toolset, arguments))
    assert shown == box


def test_the_table_of_prompts_is_what_clients_are_told() -> None:
    shown = [(name.strip("`"), arguments) for name, arguments, _ in rows("The prompts")]
    told = [
        (prompt.name, ", ".join(f"`{one.name}`" + "*" * bool(one.required) for one in prompt.arguments or ()))
        for prompt in prompts.listed(None)
    ]
    assert shown == told
    for (*_, gives), count in zip(rows("The prompts"), prompts.LAST.values(), strict=True):
        assert f"last {count} messages" in gives


def test_every_command_is_in_its_table_and_no_other() -> None:
    assert [row[0].split()[1].strip("`") for row in rows("The commands")] == list(COMMANDS)


@pytest.mark.parametrize("line", re.findall(r"`(mcp-sessions [^`]+)`", README))
def test_commands_named_in_the_text_can_be_called_so(line: str) -> None:
    name, *words = shlex.split(line)[1:]
    command = main.get_command(click.Context(main), name)
    assert command is not None
    known = {"CLIENT": "cursor", "OPERATION": "explore"}
    command.make_context(name, [known.get(word, word) for word in words])


def test_the_limits_are_those_of_the_settings() -> None:
    units = {"MiB": 1 << 20, "KiB": 1 << 10}
    for _, most, setting in rows("Limits"):
        number, _, unit = most.partition(" ")
        field = next(field for field in Settings.model_fields if variable(field) == setting.strip("`"))
        assert Settings.model_fields[field].default == int(number) * units.get(unit, 1), setting


def test_every_setting_is_documented_and_none_that_is_not_there() -> None:
    known = {variable(field) for field in Settings.model_fields}
    example = (ROOT / ".env.example").read_text(encoding="utf-8")
    assert set(re.findall(r"^#(\w+)=", example, re.MULTILINE)) == known
    assert set(re.findall(r"MCP_SESSIONS_[A-Z_]+[A-Z]", README)) <= known


def test_every_file_that_it_names_is_there() -> None:
    named = re.findall(r"`((?:[\w.]+/)+[\w.]*|[\w.]+\.(?:py|md|example))`", README)
    assert len(named) > 10
    assert [name for name in named if not (ROOT / name).exists() and name != ".ci/run"] == []


def test_every_module_that_it_names_is_there() -> None:
    for name in re.findall(r"`(?:python -m )?((?:mcp_sessions|tests)\.[\w.]+)`", README):
        assert importlib.util.find_spec(name) is not None


def test_it_names_no_path_of_the_machine_it_was_written_on() -> None:
    assert not re.search(r"/(?:root|home|work|tmp|Users)/", README)
