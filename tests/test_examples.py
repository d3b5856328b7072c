"""The examples, run as a reader runs them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mcp_sessions import SessionManager, SQLiteSessionStorage
from mcp_sessions.cli.clients import CLIENTS
from mcp_sessions.config import sqlite_url

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
PROGRAM = "/absolute/path/to/.venv/bin/mcp-sessions"


def run(*words: str, store: Path) -> str:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "MCP_SESSIONS_STORAGE": sqlite_url(store), "PYTHONUTF8": "1"}
    ran = subprocess.run([sys.executable, *words], capture_output=True, encoding="utf-8", env=env, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr == ""
    return ran.stdout


def test_each_example_has_its_test() -> None:
    files = {file.relative_to(EXAMPLES).as_posix() for file in EXAMPLES.rglob("*") if file.is_file()}
    shown = {file for file in files if "__pycache__" not in file}
    workflows = {f"{name}.{ending}" for name in ("release_notes", "onboarding") for ending in ("py", "yaml")}
    clients = {f"clients/{name}.json" for name in CLIENTS}
    assert shown == {"python_api.py", "mcp_client.py", "explore.py", *workflows, *clients}


def test_the_agent_goes_on_where_its_last_run_stopped(tmp_path: Path) -> None:
    store = tmp_path / "sessions.db"
    first = run(str(EXAMPLES / "python_api.py"), store=store).splitlines()
    second = run(str(EXAMPLES / "python_api.py"), store=store).splitlines()
    session_id = first[-1].partition(":")[0]
    assert first[-1] == f"{session_id}: active, messages: 2, calls: 1"
    assert second[-1] == f"{session_id}: completed, messages: 2, calls: 1"
    assert first[0].replace("looked up", "replayed") == second[0]
    with SessionManager(SQLiteSessionStorage(store)) as manager:
        forks = manager.query(status=("abandoned",)).items
        assert [(fork.parent_id, fork.message_count) for fork in forks] == [(session_id, 1)]
        assert manager.metadata(session_id).token_usage["input"] == 1200


def test_release_notes_come_out_of_a_repository_when_somebody_says_so(tmp_path: Path) -> None:
    store, repo = tmp_path / "sessions.db", tmp_path / "shop"
    who = ["-c", "user.name=Ada", "-c", "user.email=ada@example.org"]
    subprocess.run(["git", "init", "-q", repo], check=True)
    for subject in ("Sell books", "Mend the cart"):
        subprocess.run(["git", "-C", repo, *who, "commit", "-q", "--allow-empty", "-m", subject], check=True)
    example = str(EXAMPLES / "release_notes.py")
    waits = run(example, str(repo), store=store)
    session_id = waits.partition(":")[0]
    assert f"{session_id}: waiting" in waits
    assert "ok: Publish '2 changes'?" in waits
    done = run(example, str(repo), session_id, "yes", store=store)
    assert done.splitlines() == [
        f"{session_id}: completed {{'published': True, 'title': '2 changes'}}",
        "- Mend the cart",
        "- Sell books",
    ]
    with SessionManager(SQLiteSessionStorage(store)) as manager:
        assert [one.role for one in manager.messages(session_id, order="oldest").items] == ["user", "assistant"]
        assert [one.tool_name for one in manager.invocations(session_id, "git_log").items] == ["git_log"]


def test_the_onboarding_leaves_all_of_it_in_one_session(tmp_path: Path) -> None:
    said = run(str(EXAMPLES / "onboarding.py"), str(tmp_path), store=tmp_path / "sessions.db").splitlines()
    assert said == [
        "completed: Start at src, then run the tests.",
        "6 messages, 4 calls of agents, 0.034 USD",
    ]


def test_the_client_does_what_a_desktop_does(tmp_path: Path) -> None:
    store = tmp_path / "sessions.db"
    said = run(str(EXAMPLES / "mcp_client.py"), store=store)
    assert "stored once: True" in said
    assert "found: Nobody can log in since Monday." in said
    assert "error: True Session ses_wrong not found" in said
    with SessionManager(SQLiteSessionStorage(store)) as manager:
        (head,) = manager.query().items
    assert (head.status, head.message_count) == ("completed", 1)


def test_the_explorer_builds_on_its_first_answer_and_shows_what_its_session_holds(tmp_path: Path) -> None:
    store = tmp_path / "sessions.db"
    *said, first, second, total = run(str(EXAMPLES / "explore.py"), store=store).splitlines()
    assert said == [
        "user: What stores an order?",
        "assistant: Store.commit, called at cart.py:41.",
        "user: Is it called anywhere else?",
        "assistant: Once more: retry.py:12, after a lost connection.",
    ]
    assert re.fullmatch(r"\d+ ms, 9000 tokens in, 0\.0315 USD, reported", first)
    assert re.fullmatch(r"\d+ ms, 9800 tokens in, 0\.\d{4} USD, estimated", second)
    with SessionManager(SQLiteSessionStorage(store)) as manager:
        (head,) = manager.query("tag:shop").items
    assert total == f"{head.session_id}: calls: 2, cost: {head.estimated_cost:.4f} USD"
    assert (head.message_count, head.token_usage["input"]) == (4, 18_800)


@pytest.mark.parametrize("client", CLIENTS)
def test_a_clients_file_is_what_install_prints(client: str, tmp_path: Path) -> None:
    printed = run("-m", "mcp_sessions", "install", client, "--print", store=tmp_path / "sessions.db")
    example = (EXAMPLES / "clients" / f"{client}.json").read_text(encoding="utf-8")
    assert json.loads(example) == with_program(json.loads(printed))


def with_program(printed: dict[str, dict[str, dict[str, object]]]) -> dict[str, object]:
    """The printed JSON with the path of a reader in place of this one's."""
    ((table, servers),) = printed.items()
    ((name, entry),) = servers.items()
    assert entry["args"] in (["serve"], ["-m", "mcp_sessions", "serve"])
    # Where the package is not installed beside its Python, that Python is started with the module.
    return {table: {name: {**entry, "command": PROGRAM, "args": ["serve"]}}}
