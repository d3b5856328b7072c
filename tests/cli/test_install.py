"""`mcp-sessions install`, and what `doctor` reads of clients, on the files of a made-up home."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

from mcp_sessions.cli.clients import (
    CLIENTS,
    ClientConfig,
    ClientConfigError,
    config_path,
    configured,
    is_ours,
    read_config,
    url_of,
)
from mcp_sessions.cli.install import install, remote_entry, server_entry, with_server, write_config, write_entry

ROOT = Path(__file__).parents[2]
NOW = datetime(2026, 11, 22, 10, 30, 5, tzinfo=UTC)
ENTRY = server_entry(CLIENTS["cursor"], {})
OTHER = {"command": "npx", "args": ["-y", "files"]}


@dataclass(frozen=True)
class Home:
    """Somebody's home directory, with all that may lead a client's file out of it pointing inside."""

    path: Path

    @property
    def environ(self) -> dict[str, str]:
        names = {"XDG_CONFIG_HOME": ".config", "APPDATA": "Roaming", "LOCALAPPDATA": "Local"}
        places = {name: str(self.path / place) for name, place in names.items()}
        return {"HOME": str(self.path), "USERPROFILE": str(self.path)} | places

    @property
    def cursor(self) -> Path:
        """Cursor's file: the one that stands at the same place on every system."""
        return self.path / ".cursor" / "mcp.json"

    def file(self, client: str) -> Path:
        return config_path(CLIENTS[client], environ=self.environ)

    def write(self, text: str | bytes, client: str = "cursor") -> Path:
        file = self.file(client)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        return file

    def install(self, *args: str) -> Result:
        return CliRunner().invoke(install, args, env={**self.environ, "CLAUDE_CONFIG_DIR": None})

    def install_process(self, *args: str, before: str = "") -> subprocess.CompletedProcess[str]:
        """The command in a process of its own; `before` is Python that runs first."""
        program = f"{before}\nfrom mcp_sessions.cli.install import install; install()"
        clean = {name: value for name, value in os.environ.items() if name != "CLAUDE_CONFIG_DIR"}
        return subprocess.run(
            [sys.executable, "-c", program, *args],
            env=clean | self.environ | {"PYTHONPATH": str(ROOT)},
            cwd=self.path,
            capture_output=True,
            encoding="utf-8",
            check=False,
        )

    def backups(self) -> list[Path]:
        return sorted(self.cursor.parent.glob("mcp.json.backup-*"))

    def listing(self) -> dict[str, bytes]:
        return {str(p.relative_to(self.path)): p.read_bytes() for p in self.path.rglob("*") if p.is_file()}

    def state(self, client: str, platform: str = sys.platform) -> ClientConfig:
        return next(found for found in configured(platform, self.environ) if found.client == client)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


@pytest.mark.parametrize(
    ("client", "table", "kind"),
    [
        ("claude-desktop", "mcpServers", None),
        ("claude-code", "mcpServers", "stdio"),
        ("cursor", "mcpServers", None),
        ("vscode", "servers", "stdio"),
    ],
)
def test_each_client_gets_an_entry_that_starts_from_anywhere(
    home: Home, client: str, table: str, kind: str | None
) -> None:
    done = home.install_process(client)

    assert (done.returncode, done.stderr) == (0, "")
    document = json.loads(home.file(client).read_bytes())
    entry = document[table]["sessions"]
    assert list(document) == [table]
    assert entry.pop("type", None) == kind
    assert Path(entry.pop("command")).is_absolute()
    assert entry in ({"args": ["serve"]}, {"args": ["-m", "mcp_sessions", "serve"]})
    assert str(home.file(client)) in done.stdout
    assert "Next: " in done.stdout


@pytest.mark.parametrize(
    ("platform", "folder", "script"),
    [
        ("linux", "bin", "mcp-sessions"),
        ("darwin", "bin", "mcp-sessions"),
        ("win32", "Scripts", "mcp-sessions.exe"),
    ],
)
def test_the_script_beside_python_is_started_and_python_itself_where_there_is_none(
    tmp_path: Path, platform: str, folder: str, script: str
) -> None:
    python = tmp_path / folder / "python"
    python.parent.mkdir()
    alone = server_entry(CLIENTS["cursor"], {}, python=str(python), platform=platform)
    (python.parent / script).touch()
    beside = server_entry(CLIENTS["cursor"], {}, python=str(python), platform=platform)

    assert alone == {"command": str(python), "args": ["-m", "mcp_sessions", "serve"]}
    assert beside == {"command": str(python.parent / script), "args": ["serve"]}


def test_the_python_of_a_virtual_environment_is_not_followed_to_where_it_links(tmp_path: Path) -> None:
    python = tmp_path / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)

    assert server_entry(CLIENTS["cursor"], {}, python=str(python))["command"] == str(python)


@pytest.mark.parametrize(
    ("platform", "client", "expected"),
    [
        ("linux", "claude-desktop", "xdg/Claude/claude_desktop_config.json"),
        ("linux", "claude-code", "home/.claude.json"),
        ("linux", "cursor", "home/.cursor/mcp.json"),
        ("linux", "vscode", "xdg/Code/User/mcp.json"),
        ("darwin", "claude-desktop", "home/Library/Application Support/Claude/claude_desktop_config.json"),
        ("darwin", "claude-code", "home/.claude.json"),
        ("darwin", "cursor", "home/.cursor/mcp.json"),
        ("darwin", "vscode", "home/Library/Application Support/Code/User/mcp.json"),
        ("win32", "claude-desktop", "roaming/Claude/claude_desktop_config.json"),
        ("win32", "claude-code", "profile/.claude.json"),
        ("win32", "cursor", "profile/.cursor/mcp.json"),
        ("win32", "vscode", "roaming/Code/User/mcp.json"),
    ],
)
def test_each_system_keeps_the_file_at_its_own_place(tmp_path: Path, platform: str, client: str, expected: str) -> None:
    places = {"HOME": "home", "USERPROFILE": "profile", "XDG_CONFIG_HOME": "xdg", "APPDATA": "roaming"}
    environ = {name: str(tmp_path / place) for name, place in places.items()}

    assert config_path(CLIENTS[client], platform, environ) == tmp_path / expected


@pytest.mark.parametrize(
    ("platform", "environ", "expected"),
    [
        ("linux", {}, "home/.config/Claude"),
        ("linux", {"XDG_CONFIG_HOME": "relative"}, "home/.config/Claude"),
        ("win32", {}, "home/AppData/Roaming/Claude"),
    ],
)
def test_without_the_variables_of_a_system_its_usual_place_is_meant(
    tmp_path: Path, platform: str, environ: Mapping[str, str], expected: str
) -> None:
    environ = {**environ, "HOME": str(tmp_path / "home"), "USERPROFILE": str(tmp_path / "home")}

    assert config_path(CLIENTS["claude-desktop"], platform, environ).parent == tmp_path / expected


def test_claude_code_follows_its_configuration_directory(home: Home) -> None:
    environ = home.environ | {"CLAUDE_CONFIG_DIR": str(home.path / "work")}

    assert CliRunner().invoke(install, ["claude-code"], env=environ).exit_code == 0

    assert "sessions" in json.loads((home.path / "work" / ".claude.json").read_bytes())["mcpServers"]
    assert not (home.path / ".claude.json").exists()


def test_a_packaged_claude_desktop_gets_the_file_that_it_really_reads(home: Home) -> None:
    packages = home.path / "Local" / "Packages"
    older, newer = (packages / f"Claude_{name}" / "LocalCache" / "Roaming" / "Claude" for name in ("a", "b"))
    desktop = CLIENTS["claude-desktop"]

    older.mkdir(parents=True)
    assert config_path(desktop, "win32", home.environ).parent == older
    newer.mkdir(parents=True)
    (newer / "claude_desktop_config.json").touch()
    assert config_path(desktop, "win32", home.environ).parent == newer


BLOCK = json.dumps(ENTRY, indent=2)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param("{}", '{\n  "mcpServers": {\n    "sessions": @4\n  }\n}', id="empty object"),
        pytest.param(
            '{\n\t"a": 1,\n\t"mcpServers": {}\n}\n',
            '{\n\t"a": 1,\n\t"mcpServers": {\n\t\t"sessions": @tabs\n\t}\n}\n',
            id="tabs and an empty table",
        ),
        pytest.param(
            '{\r\n  "mcpServers": {\r\n    "x": {}\r\n  },\r\n  "z": 1\r\n}\r\n',
            '{\r\n  "mcpServers": {\r\n    "x": {},\r\n    "sessions": @crlf\r\n  },\r\n  "z": 1\r\n}\r\n',
            id="line ends of Windows",
        ),
        pytest.param(
            '{"n": 1.50e3, "s": "\\u00e9}", "n": 2}',
            '{"n": 1.50e3, "s": "\\u00e9}", "n": 2, "mcpServers": {"sessions": @0}}',
            id="one line, and numbers, escapes and a repeated key as they were written",
        ),
        pytest.param(
            '{\n  "mcpServers": {"x": [ 1,2 ]}\n}',
            '{\n  "mcpServers": {"x": [ 1,2 ], "sessions": @0}\n}',
            id="a table on one line",
        ),
        pytest.param(
            '\ufeff{\n "mcpServers": {\n  "sessions": {"command":"mcp-sessions"},\n  "x": {}\n },\n "z": []}',
            '\ufeff{\n "mcpServers": {\n  "sessions": @1,\n  "x": {}\n },\n "z": []}',
            id="a byte order mark, and an older entry in its place",
        ),
        pytest.param(
            '{"mcpServers": {"x": 1}, "mcpServers": {"sessions": 1, "sessions": {"command": "mcp-sessions"}}}',
            '{"mcpServers": {"x": 1}, "mcpServers": {"sessions": 1, "sessions": @0}}',
            id="of repeated keys the last, for that one counts",
        ),
        pytest.param("{\n}", '{\n  "mcpServers": {\n    "sessions": @4\n  }\n}', id="an object over two lines"),
        pytest.param(
            '{\n"a": 1\n}',
            '{\n"a": 1,\n"mcpServers": {\n  "sessions": @flush\n}\n}',
            id="no indentation at all",
        ),
    ],
)
def test_all_else_keeps_every_byte_and_the_entry_follows_the_layout(home: Home, before: str, after: str) -> None:
    rendered = {
        "@0": json.dumps(ENTRY),
        "@1": json.dumps(ENTRY, indent=1).replace("\n", "\n  "),
        "@4": BLOCK.replace("\n", "\n    "),
        "@crlf": BLOCK.replace("\n", "\r\n    "),
        "@tabs": json.dumps(ENTRY, indent="\t").replace("\n", "\n\t\t"),
        "@flush": BLOCK.replace("\n", "\n  "),
    }
    expected = re.sub(r"@\w+", lambda mark: rendered[mark[0]].replace("\\", "\\\\"), after)
    file = home.write(before)

    assert home.install("cursor").exit_code == 0

    assert file.read_bytes() == expected.encode()


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
documents = st.dictionaries(st.text() | st.just("sessions"), values, max_size=4)


@settings(deadline=None)  # a loaded machine is no bug
@given(documents, st.none() | documents, st.sampled_from([None, 0, 1, 4, "\t"]), st.booleans())
def test_any_document_reads_as_before_with_the_entry_added(
    root: dict[str, Any], table: dict[str, Any] | None, indent: int | str | None, windows: bool
) -> None:
    root = {key: value for key, value in root.items() if key != "mcpServers"}
    root = root | ({} if table is None else {"mcpServers": table}) | {"zz": 1}
    text = json.dumps(root, indent=indent, ensure_ascii=False).replace("\n", "\r\n" if windows else "\n")

    result = with_server(text, "mcpServers", "sessions", ENTRY)

    servers: dict[str, Any] = {**(table or {}), "sessions": ENTRY}
    assert json.loads(result) == {**root, "mcpServers": servers}
    assert list(json.loads(result)["mcpServers"]) == list(servers)
    assert ("\n" in result) == ("\n" in text)
    assert with_server(result, "mcpServers", "sessions", ENTRY) == result


@pytest.mark.parametrize("content", [None, "", " \r\n", "\ufeff"])
def test_a_missing_or_empty_file_becomes_one_with_our_entry(home: Home, content: str | None) -> None:
    if content is not None:
        home.write(content)

    assert home.install("cursor").exit_code == 0

    assert json.loads(home.cursor.read_text("utf-8-sig")) == {"mcpServers": {"sessions": ENTRY}}
    assert home.cursor.read_bytes().startswith(b"\xef\xbb\xbf") == (content == "\ufeff")
    assert len(home.backups()) == (content is not None)


@pytest.mark.parametrize(
    ("content", "fact"),
    [
        ('{\n  "mcpServers": {\n', "line 3: is not valid JSON"),
        ('{\n  "a": 1,\n  "mcpServers": {},}', "line 3: has comments or trailing commas"),
        ('{\n  // mine\n  "a": 1\n}', "line 2: has comments or trailing commas"),
        ('{"a": NaN}', "is not valid JSON (NaN is not a JSON value)"),
        pytest.param("[" * 100_000, "is not valid JSON (", id="deep"),
        ("[]", "line 1: holds a list, not an object"),
        ('"x"', "line 1: holds a string, not an object"),
        ("3", "line 1: holds the value 3, not an object"),
        ('{\n\n  "mcpServers": null\n}', 'line 3: "mcpServers" is null, not an object'),
        (b'{\n "a": "\xff"\n}', "line 2: is not UTF-8 text"),
        ('{"mcpServers": {}}'.encode("utf-16"), "line 1: is not UTF-8 text"),
    ],
)
def test_a_file_that_cannot_be_edited_is_refused_and_left_alone(home: Home, content: str | bytes, fact: str) -> None:
    home.write(content)
    before = home.listing()

    result = home.install("cursor")

    assert (result.exit_code, result.stdout) == (1, "")
    assert str(home.cursor) in result.stderr
    assert fact in result.stderr
    assert "mcp-sessions install cursor --print" in result.stderr
    assert home.listing() == before


def test_a_second_run_says_so_and_writes_nothing(home: Home) -> None:
    home.install("cursor", "--storage", "sqlite:///data/s.db")
    before = home.cursor.stat()

    result = home.install("cursor", "--storage", "sqlite:///data/s.db")

    assert result.exit_code == 0
    assert "nothing to write" in result.stdout
    assert (home.cursor.stat().st_ino, home.cursor.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert [file.name for file in home.cursor.parent.iterdir()] == ["mcp.json"]


def test_the_backup_is_the_old_file_and_its_name_says_when(home: Home) -> None:
    content = b'{"mcpServers":{}}'
    home.write(content).chmod(0o640)

    result = home.install("cursor")

    (backup,) = home.backups()
    assert re.fullmatch(r"mcp\.json\.backup-\d{8}-\d{6}", backup.name)
    assert str(backup) in result.stdout
    assert backup.read_bytes() == content
    assert backup.stat().st_mode == home.cursor.stat().st_mode


def test_a_backup_never_overwrites_another(home: Home) -> None:
    cursor = CLIENTS["cursor"]
    home.write("{}")
    for name in ("a", "b", "c"):
        write_entry(home.cursor, cursor, name, ENTRY, now=NOW)

    held = {backup.name: json.loads(backup.read_bytes()).get("mcpServers", {}) for backup in home.backups()}

    stem = "mcp.json.backup-20261122-103005"
    assert {name: list(servers) for name, servers in held.items()} == {
        stem: [],
        f"{stem}-2": ["a"],
        f"{stem}-3": ["a", "b"],
    }


@pytest.mark.skipif(os.name != "posix", reason="Windows has no such modes")
@pytest.mark.parametrize("mode", [0o600, 0o644, 0o660])
def test_a_file_keeps_its_mode_and_a_new_one_is_its_owners_alone(home: Home, mode: int) -> None:
    home.write("{}").chmod(mode)
    home.install("cursor")
    home.install("claude-code")

    assert home.cursor.stat().st_mode & 0o777 == mode
    assert home.file("claude-code").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("exists", [True, False])
def test_a_linked_file_is_written_where_it_is_kept(home: Home, exists: bool) -> None:
    kept = home.path / "dotfiles" / "cursor.json"
    kept.parent.mkdir()
    if exists:
        kept.write_bytes(b"{}")
    home.cursor.parent.mkdir()
    home.cursor.symlink_to(kept)

    assert home.install("cursor").exit_code == 0

    assert home.cursor.readlink() == kept
    assert json.loads(kept.read_bytes()) == {"mcpServers": {"sessions": ENTRY}}
    assert [file.name for file in kept.parent.iterdir()] == ["cursor.json"]
    assert len(home.backups()) == exists


@pytest.mark.parametrize("entry", [OTHER, {"url": "http://127.0.0.1:9/mcp"}, {"command": 3}, None, "x"])
def test_an_entry_that_is_not_ours_is_replaced_only_by_force(home: Home, entry: object) -> None:
    home.write(json.dumps({"mcpServers": {"sessions": entry}}))
    before = home.listing()

    refused = home.install("cursor")
    assert refused.exit_code == 1
    assert "--force" in refused.stderr
    assert home.listing() == before

    assert home.install("cursor", "--force").exit_code == 0
    assert json.loads(home.cursor.read_bytes())["mcpServers"]["sessions"] == ENTRY


def test_an_older_entry_of_ours_gets_the_new_command_and_keeps_the_rest(home: Home) -> None:
    """Writing it anew would quietly send the client to another store."""
    older = {
        "command": "uvx",
        "args": ["mcp-sessions"],
        "disabled": True,
        "env": {"MCP_SESSIONS_STORAGE": "file:///s"},
    }
    home.write(json.dumps({"mcpServers": {"sessions": older, "x": OTHER}}))

    result = home.install("cursor", "--toolsets", "core, manage")

    env = {"MCP_SESSIONS_STORAGE": "file:///s", "MCP_SESSIONS_TOOLSETS": "core,manage"}
    servers = json.loads(home.cursor.read_bytes())["mcpServers"]
    assert servers == {"sessions": older | ENTRY | {"env": env}, "x": OTHER}
    assert "MCP_SESSIONS_STORAGE" in result.stderr

    home.install("cursor", "--force")
    assert json.loads(home.cursor.read_bytes())["mcpServers"]["sessions"] == ENTRY


@pytest.mark.parametrize(
    ("command", "args", "ours"),
    [
        ("/venv/bin/mcp-sessions", ["serve"], True),
        ("C:\\venv\\Scripts\\MCP-Sessions.exe", [], True),
        ("mcp-sessions", None, True),
        ("uvx", ["--from", "x", "mcp-sessions==0.1"], True),
        ("uv", ["run", "mcp-sessions[postgres]"], True),
        ("pipx", ["run", "mcp-sessions"], True),
        ("/usr/bin/python3.12", ["-m", "mcp_sessions"], True),
        ("C:\\Python\\python.exe", ["-m", "mcp_sessions", "serve"], True),
        ("npx", ["mcp-sessions"], False),
        ("python", ["mcp-sessions-of-another.py"], False),
        ("python", ["-m", "mcp_sessions_other"], False),
        ("python", [3], False),
        ("python", None, False),
        ("/opt/mcp-sessions/bin/other", [], False),
    ],
)
def test_an_entry_is_ours_by_what_it_starts(command: str, args: list[object] | None, ours: bool) -> None:
    entry = {"command": command} if args is None else {"command": command, "args": args}

    assert is_ours(entry) is ours


@pytest.mark.parametrize("client", CLIENTS)
def test_print_writes_the_snippet_to_stdout_and_nothing_anywhere_else(home: Home, client: str) -> None:
    home.write("{ broken", client)
    before = home.listing()

    done = home.install_process(client, "--print", "--storage", "sqlite:///h/é")

    assert (done.returncode, done.stderr) == (0, "")
    entry = server_entry(CLIENTS[client], {"MCP_SESSIONS_STORAGE": "sqlite:///h/é"})
    assert json.loads(done.stdout) == {CLIENTS[client].table: {"sessions": entry}}
    assert home.listing() == before


def test_the_printed_snippet_is_what_would_be_written(home: Home) -> None:
    options = ("--name", "notes", "--toolsets", "core", "--storage", "sqlite:///é")

    printed = home.install("vscode", *options, "--print").stdout
    home.install("vscode", *options)

    assert printed.isascii()  # a pipe on Windows may know no other letters
    assert home.file("vscode").read_bytes().decode() == printed.replace("\\u00e9", "é")


def test_the_json_result_names_the_file_the_backup_and_what_was_done(home: Home) -> None:
    results: list[dict[str, Any]] = []
    for options in ([], [], ["--storage", "sqlite:///s"]):
        done = home.install("cursor", "--json", *options)
        assert (done.exit_code, done.stderr) == (0, "")
        results.append(json.loads(done.stdout))

    assert [result["action"] for result in results] == ["added", "unchanged", "updated"]
    assert [result["backup"] for result in results] == [None, None, str(home.backups()[0])]
    assert {result["path"] for result in results} == {str(home.cursor)}
    assert {(result["client"], result["name"]) for result in results} == {("cursor", "sessions")}
    assert "Cursor" in results[0]["next_step"]


URL = "http://127.0.0.1:8765/mcp"


@pytest.mark.parametrize(
    ("client", "url", "entry"),
    [
        ("claude-desktop", URL, {"command": "npx", "args": ["-y", "mcp-remote", URL]}),
        ("claude-code", URL, {"type": "http", "url": URL}),
        ("cursor", URL, {"url": URL}),
        ("vscode", URL, {"type": "http", "url": URL}),
        ("vscode", "http://localhost:1/sse", {"type": "sse", "url": "http://localhost:1/sse"}),
        ("claude-code", "https://sessions.example/sse/", {"type": "sse", "url": "https://sessions.example/sse/"}),
        ("cursor", "http://[::1]:8765", {"url": "http://[::1]:8765/mcp"}),
    ],
)
def test_a_server_over_http_gets_the_entry_that_its_client_reads(
    home: Home, client: str, url: str, entry: object
) -> None:
    result = home.install(client, "--url", url)
    assert result.exit_code == 0, result.output
    table = json.loads(home.file(client).read_text(encoding="utf-8"))[CLIENTS[client].table]
    assert table == {"sessions": entry}
    assert "unchanged" in home.install(client, "--url", url, "--json").stdout
    (state,) = [one for one in configured(environ=home.environ) if one.client == client]
    assert (state.state, state.detail) == ("configured", f"sessions uses {url_of(entry)}")


def test_readme_shows_the_entries_for_a_program_to_start(home: Home) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for name, client in CLIENTS.items():
        entry = json.loads(home.install(name, "--print").stdout)[client.table]["sessions"]
        entry |= {"command": "/absolute/path/to/.venv/bin/mcp-sessions", "args": ["serve"]}
        assert f"| {client.title} | `{client.table}` | `{json.dumps(entry)}` |" in readme


def test_readme_shows_the_entries_for_http() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for client in CLIENTS.values():
        row = f"| {client.title} | `{json.dumps(remote_entry(client, URL))}` |"
        assert row in readme


def test_an_entry_that_started_us_gives_way_to_one_that_does_not_and_back(home: Home) -> None:
    assert home.install("cursor", "--storage", "memory:").exit_code == 0
    assert home.install("cursor", "--url", URL).exit_code == 0
    assert json.loads(home.cursor.read_text(encoding="utf-8"))["mcpServers"] == {"sessions": {"url": URL}}
    other = home.install("cursor")  # whose server that is, nobody can tell
    assert other.exit_code == 1
    assert "--force" in other.output
    assert home.install("cursor", "--force").exit_code == 0
    assert "url" not in json.loads(home.cursor.read_text(encoding="utf-8"))["mcpServers"]["sessions"]


def test_a_second_entry_of_ours_in_the_file_is_pointed_out(home: Home) -> None:
    home.write(json.dumps({"mcpServers": {"mine": ENTRY, "x": OTHER}}))

    assert "mine in the same file starts mcp-sessions too" in home.install("cursor").stderr


def test_an_installation_in_a_cache_is_pointed_out(home: Home) -> None:
    """`uvx mcp-sessions install` writes a path that `uv cache clean` removes."""
    entry = {
        "command": str(home.path / ".cache" / "uv" / "archive-v0" / "bin" / "mcp-sessions"),
        "args": ["serve"],
    }

    done = write_entry(home.cursor, CLIENTS["cursor"], "sessions", entry, now=NOW)

    assert "uv tool install mcp-sessions" in done.notes[0]


@pytest.mark.parametrize(
    ("client", "file"),
    [("claude-code", ".mcp.json"), ("cursor", ".cursor/mcp.json"), ("vscode", ".vscode/mcp.json")],
)
def test_a_project_gets_a_file_of_its_own(home: Home, client: str, file: str) -> None:
    (home.path / "app").mkdir()

    result = home.install_process(client, "--project", "app", "--json")

    assert json.loads(result.stdout)["path"] == str(home.path / "app" / file)
    assert list(home.listing()) == [str(Path("app", file))]


@pytest.mark.parametrize(
    "args",
    [
        [],
        ["emacs"],
        ["claude-desktop", "--project", "."],
        ["cursor", "--project", "nowhere"],
        ["cursor", "--name", "two words"],
        ["cursor", "--storage", "sessions.db"],
        ["cursor", "--storage", "C:\\sessions.db"],
        ["cursor", "--storage", "sqlite:sessions.db"],
        ["cursor", "--storage", "sqlite:///"],
        ["cursor", "--storage", "postgresql://h/db"],
        ["cursor", "--toolsets", "core,,manage"],
        ["cursor", "--toolsets", "cores"],
        ["cursor", "--url", "127.0.0.1:8765"],
        ["cursor", "--url", "ftp://127.0.0.1/mcp"],
        ["cursor", "--url", "http:///mcp"],
        ["cursor", "--url", "http://ada:secret@127.0.0.1/mcp"],
        ["cursor", "--url", "http://127.0.0.1:99999/mcp"],
        ["cursor", "--url", "http://127.0.0.1/mcp?token=x"],
        ["cursor", "--url", "http://127.0.0.1:8765/mcp", "--storage", "memory:"],
    ],
)
def test_a_wrong_argument_is_a_usage_error_and_writes_nothing(home: Home, args: list[str]) -> None:
    assert home.install(*args).exit_code == 2
    assert home.listing() == {}


def test_what_another_program_wrote_meanwhile_is_not_lost(home: Home) -> None:
    home.write('{"numStartups": 1}')
    config = read_config(home.cursor, CLIENTS["cursor"])
    home.write('{"numStartups": 2}')

    with pytest.raises(ClientConfigError, match="changed by another program"):
        write_config(config, "{}", NOW)

    assert home.listing() == {str(Path(".cursor", "mcp.json")): b'{"numStartups": 2}'}


FILES_OF_5000_BYTES = """
import atexit, resource
_, most = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, most))
atexit.register(resource.setrlimit, resource.RLIMIT_FSIZE, (most, most))  # what measures coverage writes then
"""


@pytest.mark.parametrize("large", ["the new file", "the backup"])
def test_a_write_that_fails_half_way_leaves_no_trace(home: Home, large: str) -> None:
    pytest.importorskip("resource", reason="Windows cannot limit the size of files")
    filler = "x" * 5000
    home.write(json.dumps({"a": filler} if large == "the new file" else {"mcpServers": {"sessions": filler}}))
    before = home.listing()

    done = home.install_process("cursor", "--force", before=FILES_OF_5000_BYTES)

    assert done.returncode == 1
    assert "cannot be written (File too large)" in done.stderr
    assert home.listing() == before


def test_a_place_that_cannot_be_written_is_named(home: Home) -> None:
    (home.path / ".cursor").write_bytes(b"a file where a directory should be")

    result = home.install("cursor")

    assert result.exit_code == 1
    assert str(home.cursor) in result.stderr


def test_a_path_that_is_not_unicode_is_refused(home: Home) -> None:
    home.write("{}")

    with pytest.raises(ClientConfigError, match="not Unicode"):
        write_entry(home.cursor, CLIENTS["cursor"], "sessions", {"command": "/\udcff", "args": []}, now=NOW)

    assert home.listing() == {str(Path(".cursor", "mcp.json")): b"{}"}


def test_every_client_is_absent_in_an_empty_home(home: Home) -> None:
    found = configured(environ=home.environ)

    assert [(config.client, config.state) for config in found] == [(client, "absent") for client in CLIENTS]
    assert [config.path for config in found] == [home.file(client) for client in CLIENTS]


@pytest.mark.parametrize("client", CLIENTS)
def test_an_installed_client_is_configured(home: Home, client: str) -> None:
    home.write("{}", client)
    assert home.state(client).state == "other"

    home.install(client, "--name", "notes")

    assert home.state(client).state == "configured"
    assert home.state(client).detail == f"notes starts {ENTRY['command']}"


def starting(storage: str) -> str:
    """A file with an entry of ours over that store."""
    entry = {"command": "uvx", "args": ["mcp-sessions"], "env": {"MCP_SESSIONS_STORAGE": storage}}
    return json.dumps({"mcpServers": {"x": entry}})


@pytest.mark.parametrize(
    ("content", "state", "detail"),
    [
        ('{"mcpServers": {"x": {"command": "npx"}}}', "other", "no entry in it starts mcp-sessions"),
        ("", "other", "no entry in it starts mcp-sessions"),
        ('{"mcpServers": {"x": {"command": "uvx", "args": ["mcp-sessions"]}}}', "configured", "x starts uvx"),
        (
            '{"mcpServers": {"x": {"command": "/gone/mcp-sessions"}}}',
            "broken",
            "/gone/mcp-sessions, which does not",
        ),
        (
            json.dumps({"mcpServers": {"x": {"command": f"/{'x' * 300}/mcp-sessions"}}}),
            "broken",
            "does not exist",
        ),
        (
            starting("postgresql://me:hunter2@h/db"),
            "broken",
            "x has a MCP_SESSIONS_STORAGE that cannot be used: 'postgresql:…' names no storage",
        ),
        (
            starting("sqlite://${workspaceFolder}/s.db"),
            "configured",
            "x starts uvx",
        ),
        ('{"mcpServers": {', "broken", "line 1: is not valid JSON"),
        ('{"mcpServers": {}} // mine', "broken", "line 1: has comments"),
        ('{"mcpServers": []}', "broken", '"mcpServers" is a list'),
    ],
)
def test_doctor_sees_whether_a_client_can_start_us(home: Home, content: str, state: str, detail: str) -> None:
    home.write(content)

    found = home.state("cursor")

    assert found.state == state
    assert detail in found.detail


def test_a_file_that_cannot_be_read_is_broken(home: Home) -> None:
    home.cursor.mkdir(parents=True)

    assert home.state("cursor").state == "broken"
    assert "cannot be read" in home.state("cursor").detail


def test_comments_break_nothing_for_the_client_that_reads_them(home: Home) -> None:
    entry = json.dumps({"command": "a//b,}/mcp-sessions"})
    home.write(f'{{\n  // mine, "quoted"\n  "servers": {{"s": {entry}, /* end */ }},\n}}', "vscode")

    assert home.state("vscode").state == "configured"
    assert home.state("vscode").detail == "s starts a//b,}/mcp-sessions"
    assert home.install("vscode").exit_code == 1

    home.write('{"servers": [], // not an object\n}', "vscode")
    assert home.state("vscode").state == "broken"


def test_the_command_is_ready_without_the_slow_imports() -> None:
    program = (
        "import sys, mcp_sessions.cli.install as _;"
        "print([m for m in ('mcp', 'pydantic', 'rich', 'anyio', 'apsw') if m in sys.modules])"
    )

    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, encoding="utf-8", check=True)

    assert done.stdout == "[]\n"
