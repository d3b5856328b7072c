"""The demo, run as a newcomer runs it, and against stores that really lose something."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import apsw
import pytest
from mcp import Client

from mcp_sessions import SessionManager, SQLiteSessionStorage
from mcp_sessions.cli.demo import library
from mcp_sessions.cli.demo.findings import as_json
from mcp_sessions.cli.demo.promises import Notebook, broken_promises, read_back
from mcp_sessions.cli.demo.story import Demo
from mcp_sessions.config import sqlite_url
from mcp_sessions.models import Invocation, SessionMetadata, Want
from mcp_sessions.records import is_long, preview
from mcp_sessions.server.adapter import build_server
from mcp_sessions.tools import SESSION_TOOLS

from .conftest import ROOT

DEMO = [sys.executable, "-m", "mcp_sessions", "demo"]
PIPES: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "encoding": "utf-8"}
LOOKED_AT = Path(sysconfig.get_path("stdlib"))
DEMO_OF_A_FOLDER = """
import sys
from pathlib import Path
from mcp_sessions.cli import main
from mcp_sessions.cli.demo import story
story.library_folder = lambda folder=Path(sys.argv.pop(1)): folder
main()
"""
DELETE_A_KEY = "DELETE FROM keys WHERE key = (SELECT min(key) FROM keys)"
DELETE_A_MESSAGE = "DELETE FROM messages WHERE seq = 3"
DELETE_A_RECORD = "DELETE FROM records WHERE id = (SELECT min(id) FROM records WHERE tool_name = 'session_set')"


def environment(folder: Path) -> dict[str, str]:
    """No settings, and a place for temporary files."""
    ours = ("MCP_SESSIONS_", "WORKFLOW_SESSION_")
    kept = {name: value for name, value in os.environ.items() if not name.upper().startswith(ours)}
    return {**kept, "PYTHONPATH": str(ROOT), "TMPDIR": str(folder), "TEMP": str(folder), "TMP": str(folder)}


class Shown:
    """A demo that ran to its end, and the store it left."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        ran = subprocess.run(
            [*DEMO, "--keep", str(folder / "kept")], **PIPES, cwd=folder, env=environment(folder), check=False
        )
        self.code, self.account, self.talk = ran.returncode, ran.stdout, ran.stderr
        self.store = folder / "kept" / "sessions.db"

    def head(self) -> SessionMetadata:
        with SessionManager(SQLiteSessionStorage(self.store)) as manager:
            return manager.query(status=("completed",)).items[0]

    def runs(self) -> list[Invocation]:
        """The records of the demo's own tools."""
        with SessionManager(SQLiteSessionStorage(self.store)) as manager:
            return manager.invocations(self.head().session_id, kind="work", limit=1000).items


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Shown:
    return Shown(tmp_path_factory.mktemp("demo"))


def test_it_ends_well(shown: Shown) -> None:
    assert shown.code == 0, shown.account + shown.talk
    assert "not so" not in shown.account + shown.talk
    assert "Error" not in shown.talk


def test_its_account_names_real_modules_of_this_python_with_their_real_size(shown: Shown) -> None:
    table = shown.account.partition("The largest modules")[2].splitlines()[2:7]
    for row in table:
        name, lines, *_ = row.split()
        assert importlib.util.find_spec(name) is not None
        files = [LOOKED_AT / f"{name}.py"] if (LOOKED_AT / f"{name}.py").exists() else (LOOKED_AT / name).rglob("*.py")
        counted = [file for file in files if not library.LEFT_OUT & set(file.relative_to(LOOKED_AT).parts)]
        assert int(lines.replace(",", "")) == sum(len(file.read_bytes().splitlines()) for file in counted)


def test_its_account_names_real_uses(shown: Shown) -> None:
    file, line = re.search(r"functools\.wraps +\d+ +(\S+):(\d+)", shown.account).groups()
    assert "wraps" in (LOOKED_AT / file).read_text(encoding="utf-8").splitlines()[int(line) - 1]


def test_it_tells_how_many_calls_the_kill_met(shown: Shown) -> None:
    in_flight = re.search(r"\(SIGKILL\) with (\d+) calls in flight", shown.account)
    assert in_flight is not None
    assert int(in_flight[1]) > 0


def test_each_finding_is_recorded_with_what_was_run_and_what_came_out(shown: Shown) -> None:
    runs = shown.runs()
    assert len(runs) > 200
    with SessionManager(SQLiteSessionStorage(shown.store)) as manager:
        head = shown.head()
        data = manager.view(head.session_id, Want(prefix="")).data
        said = {message.invocation_id for message in manager.messages(head.session_id, limit=1000).items}
    measured = {record.arguments["name"]: record for record in runs if record.tool_name == "measure_module"}
    assert measured.keys() == library.list_modules(LOOKED_AT).keys()
    for name, record in measured.items():
        assert json.loads(record.result)["lines"] == data[f"module.{name}"].value["lines"]
        assert record.duration_ms is not None
        assert record.invocation_id in said


def test_what_is_recorded_is_enough_to_run_a_tool_again(shown: Shown) -> None:
    """Records named a function that was looked for, but not where, and only the first places that it gave."""
    again = {(record.tool_name, record.arguments.get("name")): record for record in shown.runs()}
    for tool, name in (("list_modules", None), ("measure_module", "json"), ("find_uses", "struct.unpack")):
        record = again[tool, name]
        arguments = record.arguments | {"folder": Path(record.arguments["folder"])}
        result = as_json(getattr(library, tool)(**arguments))
        assert record.result == (preview(result) if is_long(result) else result)


def test_the_commands_that_it_prints_look_at_its_store(shown: Shown) -> None:
    commands = [line for line in shown.account.splitlines() if line.startswith("MCP_SESSIONS_STORAGE=")]
    assert len(commands) == 4
    said: list[str] = []
    for line in commands:
        setting, *command = shlex.split(line)
        name, _, url = setting.partition("=")
        ran = subprocess.run(
            command, **PIPES, cwd=shown.folder, env=environment(shown.folder) | {name: url}, check=False
        )
        # doctor looks at the clients of this machine too; what it says of the store is what counts here.
        assert ran.returncode == 0 or command[-1] == "doctor", ran.stderr
        said.append(ran.stdout)
    assert "How the standard library of Python" in said[0]
    assert shown.head().session_id in said[1]
    assert json.loads(said[2])["places"] > 0


def test_a_store_that_loses_something_fails_the_demo_which_says_what(tmp_path: Path) -> None:
    """Another process deletes a message, a key and a record while the demo, of a small library, runs."""
    (tmp_path / "library").mkdir()
    for number in range(100):
        (tmp_path / "library" / f"m{number}.py").write_text(SOURCE, encoding="utf-8")
    demo = subprocess.Popen(
        [sys.executable, "-c", DEMO_OF_A_FOLDER, str(tmp_path / "library"), "demo", "--json", "--discard"],
        **PIPES,
        cwd=tmp_path,
        env=environment(tmp_path),
    )
    assert demo.stderr is not None
    for line in demo.stderr:
        if "measured and stored" in line:
            break
    demo.send_signal(signal.SIGSTOP)
    (store,) = tmp_path.glob("mcp-sessions-demo-*/sessions.db")
    steal(store, DELETE_A_MESSAGE, DELETE_A_KEY, DELETE_A_RECORD)
    demo.send_signal(signal.SIGCONT)
    account, talk = demo.communicate()
    assert demo.returncode == 1, account
    faults = " ".join(fault for check in json.loads(account)["checks"] for fault in check["faults"])
    assert "Message 3 (msg_" in faults
    assert "Key library was acknowledged and is missing." in faults
    assert "was acknowledged and has 0 records, not one." in faults
    assert talk.splitlines()[-1].startswith("Error: ")
    assert not list(tmp_path.glob("mcp-sessions-demo-*"))


def test_an_interrupted_demo_leaves_neither_a_process_nor_a_store(tmp_path: Path) -> None:
    demo = subprocess.Popen([*DEMO], **PIPES, cwd=tmp_path, env=environment(tmp_path))
    assert demo.stderr is not None
    for line in demo.stderr:
        if "measured and stored" in line:
            break
    demo.send_signal(signal.SIGINT)
    account, _ = demo.communicate()  # its stderr ends when the server, which has it too, has ended
    assert demo.returncode == 1
    assert account == ""
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_cannot_be_opened_ends_the_demo_with_an_error(tmp_path: Path) -> None:
    (tmp_path / "sessions.db").write_bytes(b"not a database, but a text" * 100)
    ran = subprocess.run([*DEMO, "--keep", str(tmp_path)], **PIPES, env=environment(tmp_path), check=False)
    assert ran.returncode == 1
    assert "Error: The demo could not go on" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_a_store_cannot_be_both_kept_and_discarded(tmp_path: Path) -> None:
    ran = subprocess.run([*DEMO, "--keep", str(tmp_path), "--discard"], **PIPES, check=False)
    assert ran.returncode == 2


def steal(store: Path, *statements: str) -> None:
    """Change a store behind everybody's back."""
    db = apsw.Connection(str(store))
    db.set_busy_timeout(30_000)
    for statement in statements:
        db.execute(statement)
        assert db.changes() == 1, statement
    db.close()


@pytest.mark.parametrize(
    ("loss", "faults"),
    [
        (
            DELETE_A_MESSAGE,
            [
                "was acknowledged and is missing",
                "There are 0 messages with the number 3, not one",
                "There is a record of message msg_",
                "The session's message_count is 4, and there are 3.",
            ],
        ),
        (
            "UPDATE messages SET content = 'Finding 2' WHERE seq = 1",
            ["is not as it was acknowledged", "A message is stored 2 times, and was sent 1 times"],
        ),
        (DELETE_A_KEY, ["Key key.1 was acknowledged and is missing"]),
        ("UPDATE keys SET value = '2' WHERE key = 'key.1'", ["Key key.1 does not hold what was acknowledged"]),
        (
            "DELETE FROM records WHERE invocation_id = 'test-0003'",
            [
                "session_add_message test-0003 was acknowledged and has 0 records, not one",
                "Message 1 has no record of the call that added it",
            ],
        ),
        (
            "DELETE FROM records WHERE invocation_id = 'run.2'",
            ["The call run.2 was recorded, and has 0 records", "total_invocations is 4, and there are 3"],
        ),
        (
            "UPDATE records SET status = 'error' WHERE invocation_id = 'test-0002'",
            ["The record of session_record_invocation test-0002 says session_record_invocation error"],
        ),
        (
            "UPDATE records SET numbers = NULL WHERE invocation_id = 'test-0004'",
            ["The record of session_set test-0004 has another result than the one acknowledged"],
        ),
    ],
)
async def test_what_a_store_lost_is_found(loss: str, faults: list[str], tmp_path: Path) -> None:
    store = tmp_path / "sessions.db"
    notebook = Notebook(run="test")
    with SessionManager(SQLiteSessionStorage(store)) as manager:
        async with Client(build_server(manager, SESSION_TOOLS, ("core", "records"))) as client:
            create = notebook.note("session_create", purpose="To be robbed")
            session_id = (await notebook.send(client, create))["session_id"]
            for number in range(1, 5):
                about = {"session_id": session_id, "tool_name": "look", "invocation_id": f"run.{number}"}
                for write in (
                    notebook.note("session_record_invocation", **about),
                    notebook.note("session_add_message", role="tool", content=f"Finding {number}", **about),
                    notebook.note("session_set", session_id=session_id, key=f"key.{number}", value=number),
                ):
                    await notebook.send(client, write)
            keys = [f"key.{number}" for number in range(1, 5)]
            assert broken_promises(notebook.writes, await read_back(client, session_id, keys)) == []
            steal(store, loss)
            found = broken_promises(notebook.writes, await read_back(client, session_id, keys))
    assert [fault for fault in faults if fault not in " ".join(found)] == []


async def test_a_library_without_source_is_said_to_be_one(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    demo = Demo(sqlite_url(tmp_path / "sessions.db"), tmp_path, lambda _: None, empty)
    with pytest.raises(BaseExceptionGroup) as failed:
        await demo.run()
    assert "has no Python source" in repr(failed.value)


SOURCE = """\
import os as system
from os import replace as put, path
from . import near


class Mover:
    def move(self):
        if self:
            pass
        elif system:
            for name in path:
                system.replace(name, name)
        return put


async def wait():
    os.replace("a", "b")
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mover.py").write_text(SOURCE, encoding="utf-8")
    (tmp_path / "pack" / "tests").mkdir(parents=True)
    (tmp_path / "pack" / "__init__.py").write_text("os.replace = no python\n", encoding="utf-8")
    (tmp_path / "pack" / "tests" / "test_pack.py").write_text("import os\n", encoding="utf-8")
    (tmp_path / "notes.txt").write_text("os.replace\n", encoding="utf-8")
    return tmp_path


def test_a_module_is_measured_from_its_source(folder: Path) -> None:
    assert library.list_modules(folder) == {"mover": 1, "pack": 1}
    module = library.measure_module("mover", folder)
    assert (module.files, module.lines, module.bytes) == (1, 17, len(SOURCE))
    assert (module.functions, module.classes, module.imports) == (2, 1, ["os"])
    assert module.longest == ("move", "mover.py:7", 7)
    assert module.deepest == ("mover", "mover.py:12", 4)


def test_source_that_does_not_parse_is_counted_in_lines_alone(folder: Path) -> None:
    module = library.measure_module("pack", folder)
    assert (module.lines, module.functions, module.longest.size) == (1, 0, 0)


def test_uses_are_found_under_other_names(folder: Path) -> None:
    uses = library.find_uses("os.replace", folder)
    assert uses == ["mover.py:12", "mover.py:13", "mover.py:17"]


def test_a_call_is_timed() -> None:
    assert library.time_call("sum(numbers)", "numbers = range(10)") > 0
