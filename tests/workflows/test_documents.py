"""docs/workflows.md: each workflow in it runs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mcp_sessions import SessionManager, SQLiteSessionStorage
from mcp_sessions.agents import Scripted
from mcp_sessions.workflows import WorkflowDefinition, WorkflowEngine, WorkflowStatus
from mcp_sessions.workflows.model import KINDS
from tests.processes import ROOT

pytestmark = pytest.mark.anyio
TEXT = (ROOT / "docs" / "workflows.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```yaml\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
NAMES = re.findall(r"^name: (\S+)", "".join(BLOCKS), re.MULTILINE)
OUTPUTS = {
    "release-notes": {"published": True},
    "values": {"total": 40},
    "transforms": {"names": ["Ada"]},
    "loops": {"good": [4, 3], "failed": 1},
    "cases": {"big": None, "small": "small"},
    "parent": {"twice": 8},
    "gives-up": {"why": "This is as far as it goes."},
}
PARTS = {"subtopics": [{"id": x, "title": x, "exploration_task": "Look.", "importance": "low"} for x in "ab"]}


def answer(prompt: str, _tools: Any) -> str:
    if "subtopics" in prompt:
        return json.dumps(PARTS)
    return '{"title": "1.0", "body": "All of it."}'


@pytest.mark.parametrize(("name", "text"), [*zip(NAMES, BLOCKS, strict=True)], ids=NAMES)
async def test_a_workflow_of_the_document_runs(
    name: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for file, block in zip(NAMES, BLOCKS, strict=True):
        (tmp_path / f"{file}.yaml").write_text(block, encoding="utf-8")
    program = tmp_path / "bin" / "mcp-sessions"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m mcp_sessions "$@"\n', encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    shared = {"MCP_SESSIONS_STORAGE": f"sqlite://{tmp_path}/other.db", "PYTHONPATH": str(ROOT)}
    with SessionManager(SQLiteSessionStorage(tmp_path / "s.db", durability="process")) as manager:
        engine = WorkflowEngine(manager, executors={"claude": Scripted(answer)})
        definition = WorkflowDefinition.from_file(tmp_path / f"{name}.yaml")
        if definition.spec.servers:  # a server gets of our environment what every program gets
            text = text.replace("args: [serve]", f"args: [serve], env: {json.dumps(shared)}")
            definition = WorkflowDefinition.from_yaml(text, base=tmp_path)
        given = {"n": 4} if name == "child" else {}
        result = await engine.execute(definition, given, "r1")
        while result.status is WorkflowStatus.WAITING:
            result = await engine.respond("r1", next(iter(result.waiting_for)), True, "fine")
    partial = {"loops", "gives-up"}
    assert result.status is (WorkflowStatus.PARTIAL if name in partial else WorkflowStatus.COMPLETED), result.error
    assert {key: result.outputs[key] for key in OUTPUTS.get(name, {})} == OUTPUTS.get(name, {})


def test_each_kind_of_step_has_its_section_and_an_example() -> None:
    sections = dict(re.findall(r"^### (\w+)\n(.*?)(?=^##|\Z)", TEXT, re.MULTILINE | re.DOTALL))
    assert list(sections) == list(KINDS)
    assert [
        kind for kind, text in sections.items() if not re.search(rf"\b{kind}:", text) or "```yaml" not in text
    ] == []


def test_the_program_of_the_document_runs(tmp_path: Path) -> None:
    (program,) = re.findall(r"^```python\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
    env = {**os.environ, "PYTHONPATH": str(ROOT), "MCP_SESSIONS_STORAGE": f"sqlite://{tmp_path}/s.db"}
    ran = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, encoding="utf-8", check=True)
    assert ran.stdout.startswith("completed 2 ses_")


def test_without_its_packages_it_says_what_to_install_and_a_server_has_the_other_tools(tmp_path: Path) -> None:
    without = "import sys; sys.modules['cel'] = None; "
    env = {**os.environ, "PYTHONPATH": str(ROOT), "MCP_SESSIONS_STORAGE": f"sqlite://{tmp_path}/s.db"}
    command = without + "from mcp_sessions.cli import main; main(['workflow', 'run', 'x.yaml'])"
    ran = subprocess.run([sys.executable, "-c", command], env=env, capture_output=True, encoding="utf-8", check=False)
    assert (ran.returncode, "pip install 'mcp-sessions[workflows]'" in ran.stderr) == (2, True), ran.stderr
    listed = without + (
        "from contextlib import ExitStack; from mcp_sessions.cli.toolbox import toolbox; "
        "from mcp_sessions.config import Settings; "
        "print([tool.name for tool in toolbox(Settings(toolsets='automation'), ExitStack())][16:])"
    )
    ran = subprocess.run([sys.executable, "-c", listed], env=env, capture_output=True, encoding="utf-8", check=True)
    assert ran.stdout == "['agent_invoke']\n"
