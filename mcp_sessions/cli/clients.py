"""The MCP clients we install into: where each keeps its servers, and whether ours is among them.

Only reads; `install` writes. Platform and environment are arguments, so that the paths of every system can be
checked on any.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, NoReturn, cast

from ..errors import ConfigError
from .text import without_password

SERVER_NAME = "sessions"
BRIDGE = "mcp-remote"
"""The npm package that lets a client which only starts programs use a server over HTTP."""
_BOM = b"\xef\xbb\xbf"
# The package as a requirement or a module: mcp-sessions, mcp_sessions, mcp-sessions[postgres]==1.2.
_PACKAGE = re.compile(r"mcp[-_]sessions(\[[^\]]*\])?([=<>~!@].*)?")
_STRING_OR_COMMENT = re.compile(r'"(?:[^"\\]|\\.)*"|//[^\n]*|/\*.*?\*/', re.DOTALL)
_STRING_OR_TRAILING_COMMA = re.compile(r'"(?:[^"\\]|\\.)*"|,(?=\s*[}\]])')


class ClientConfigError(ValueError):
    """A client's file that cannot be used as it is; the message names the file and, where known, the line."""

    def __init__(self, path: Path, fact: str, *, line: int | None = None) -> None:
        super().__init__(f"{path}{f', line {line}' if line else ''}: {fact}")
        self.path = path
        self.fact = fact
        self.line = line


@dataclass(frozen=True)
class Client:
    """One program that starts MCP servers."""

    name: str
    title: str
    table: str
    """The key of the object that holds the servers."""
    next_step: str
    """What makes the client see a new entry; `{name}` stands for the entry's name."""
    typed: bool = False
    """Its entries say `"type": "stdio"`."""
    comments: bool = False
    """It reads comments and trailing commas in its file."""
    project_file: str | None = None
    """Its file inside a project, relative to the project."""
    remote: bool = True
    """Its file takes the URL of a server; if not, a bridge must be started."""


CLIENTS = {
    client.name: client
    for client in (
        Client(
            "claude-desktop",
            "Claude Desktop",
            "mcpServers",
            "quit Claude Desktop completely (Cmd+Q on macOS, Quit at the tray icon on Windows; closing the "
            "window is not enough) and open it again",
            remote=False,
        ),
        Client(
            "claude-code",
            "Claude Code",
            "mcpServers",
            "start claude anew; `claude mcp get {name}` says whether it connects",
            typed=True,
            project_file=".mcp.json",
        ),
        Client(
            "cursor",
            "Cursor",
            "mcpServers",
            "quit Cursor and open it again; its settings list {name} under MCP",
            project_file=".cursor/mcp.json",
        ),
        Client(
            "vscode",
            "VS Code",
            "servers",
            "in VS Code run the command `MCP: List Servers`, choose {name}, then Start Server",
            typed=True,
            comments=True,
            project_file=".vscode/mcp.json",
        ),
    )
}

State = Literal["absent", "other", "configured", "broken"]


@dataclass(frozen=True)
class ClientConfig:
    """What stands in one client's own file.

    `absent`: no file. `other`: no entry of ours. `configured`: one that can start. `broken`: one that cannot,
    or a file that nobody can read.
    """

    client: str
    path: Path
    state: State
    detail: str


def configured(platform: str = sys.platform, environ: Mapping[str, str] = os.environ) -> list[ClientConfig]:
    """The state of each client's user file, one each, whether the client is installed or not. Never raises.

    An entry counts as ours by what it starts, whatever its name. Files inside projects are not looked for.
    """
    return [_state(client, config_path(client, platform, environ)) for client in CLIENTS.values()]


def config_path(client: Client, platform: str = sys.platform, environ: Mapping[str, str] = os.environ) -> Path:
    """The file that holds the client's servers for this user; it need not exist."""
    windows = platform == "win32"
    home = Path(environ.get("USERPROFILE" if windows else "HOME") or Path.home())
    if client.name == "cursor":
        return home / ".cursor" / "mcp.json"
    if client.name == "claude-code":
        return Path(environ.get("CLAUDE_CONFIG_DIR") or home) / ".claude.json"
    if windows:
        base = Path(environ.get("APPDATA") or home / "AppData" / "Roaming")
    elif platform == "darwin":
        base = home / "Library" / "Application Support"
    else:
        base = Path(environ.get("XDG_CONFIG_HOME", ""))
        if not base.is_absolute():  # The XDG specification has relative ones ignored.
            base = home / ".config"
    if client.name == "vscode":
        return base / "Code" / "User" / "mcp.json"
    roots = [base]
    if windows:
        # Since 2026 it is installed as an MSIX package, for which %APPDATA% is a private folder: a file at
        # the documented place is never read then (anthropics/claude-code#25579).
        local = Path(environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
        roots = [p / "LocalCache" / "Roaming" for p in sorted((local / "Packages").glob("Claude_*"))] or roots
    files = [root / "Claude" / "claude_desktop_config.json" for root in roots]
    return next((file for file in files if _exists(file)), files[0])


@dataclass(frozen=True)
class ConfigFile:
    """A client's file as it was read. `raw` is None where there is none; `text` has no byte order mark."""

    path: Path
    raw: bytes | None
    text: str
    servers: dict[str, object]

    @property
    def mark(self) -> bytes:
        """The byte order mark that the file began with, to be written back."""
        return _BOM if self.raw is not None and self.raw.startswith(_BOM) else b""


def read_config(path: Path, client: Client, *, comments: bool = False) -> ConfigFile:
    """The file and the servers in it. A missing or empty file has none.

    Raises ClientConfigError for a file that cannot be read, is not UTF-8 or not JSON (with `comments`, JSON
    that has comments and trailing commas will do), or whose root or server table is not an object.
    """
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return ConfigFile(path, None, "", {})
    except OSError as error:
        raise ClientConfigError(path, f"cannot be read ({error.strerror}).") from error
    try:
        text = raw.removeprefix(_BOM).decode()
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ClientConfigError(path, "is not UTF-8 text.", line=line) from error
    if not text.strip(" \t\r\n"):
        return ConfigFile(path, raw, text, {})
    root = _parse(path, text, comments=comments)
    if not isinstance(root, dict):
        raise ClientConfigError(path, f"holds {_kind(root)}, not an object.", line=1)
    servers = cast("dict[str, object]", root).get(client.table, {})
    if not isinstance(servers, dict):
        fact = f'"{client.table}" is {_kind(servers)}, not an object.'
        raise ClientConfigError(path, fact, line=None if comments else _line_of(text, client.table))
    return ConfigFile(path, raw, text, cast("dict[str, object]", servers))


class Member(NamedTuple):
    """Where a member of a JSON object stands in its text: the key from `at`, the value in [start, end)."""

    key: str
    at: int
    start: int
    end: int


def members(text: str, start: int) -> Iterator[Member]:
    """The members of the object that begins at `start`, in order; the text is known to be valid JSON."""
    at = skip_space(text, start + 1)
    while text[at] != "}":
        key, end = _decoder.raw_decode(text, at)
        value = skip_space(text, skip_space(text, end) + 1)
        _, end = _decoder.raw_decode(text, value)
        yield Member(key, at, value, end)
        at = skip_space(text, end)
        if text[at] == ",":
            at = skip_space(text, at + 1)


def skip_space(text: str, start: int) -> int:
    """The place of the first character from `start` on that is not white space in JSON."""
    while text[start] in " \t\r\n":
        start += 1
    return start


def command_of(entry: object) -> str | None:
    """The program that a server entry starts, or None where it starts none (a URL, say)."""
    command = cast("dict[str, object]", entry).get("command") if isinstance(entry, dict) else None
    return command if isinstance(command, str) else None


def url_of(entry: object) -> str | None:
    """The server over HTTP that an entry uses, by itself or through the bridge; None where it uses none."""
    if not isinstance(entry, dict):
        return None
    fields = cast("dict[str, object]", entry)
    args = fields.get("args")
    if isinstance(args, list) and BRIDGE in args:
        return next((arg for arg in cast("list[object]", args) if isinstance(arg, str) and "://" in arg), None)
    url = fields.get("url")
    return url if isinstance(url, str) else None


def is_ours(entry: object) -> bool:
    """Whether a server entry starts mcp-sessions: its own command, or Python, uv or pipx told to run it."""
    command = command_of(entry)
    if command is None:
        return False
    program = re.split(r"[/\\]", command)[-1].lower().removesuffix(".exe")
    if program == "mcp-sessions":
        return True
    args = cast("dict[str, object]", entry).get("args")
    if not isinstance(args, list) or not re.fullmatch(r"(python|pythonw|py|uv|uvx|pipx)[\d.]*", program):
        return False
    return any(isinstance(arg, str) and _PACKAGE.fullmatch(arg) for arg in cast("list[object]", args))


def _state(client: Client, path: Path) -> ClientConfig:
    try:
        config = read_config(path, client, comments=client.comments)
    except ClientConfigError as error:
        return ClientConfig(client.name, path, "broken", str(error))
    if config.raw is None:
        return ClientConfig(client.name, path, "absent", "no file")
    commands = {name: command_of(entry) or "" for name, entry in config.servers.items() if is_ours(entry)}
    for name, command in commands.items():
        if Path(command).is_absolute() and not _exists(Path(command)):
            detail = f"{name} starts {command}, which does not exist: run `mcp-sessions install {client.name}`"
            return ClientConfig(client.name, path, "broken", detail)
        fault = _fault_of_storage(config.servers[name])
        if fault:
            detail = f"{name} has a MCP_SESSIONS_STORAGE that cannot be used: {fault}"
            return ClientConfig(client.name, path, "broken", detail)
    url = url_of(config.servers.get(SERVER_NAME))
    if not commands and url is not None:
        return ClientConfig(client.name, path, "configured", f"{SERVER_NAME} uses {without_password(url)}")
    if not commands:
        return ClientConfig(client.name, path, "other", "no entry in it starts mcp-sessions")
    detail = ", ".join(f"{name} starts {command}" for name, command in commands.items())
    return ClientConfig(client.name, path, "configured", detail)


def _fault_of_storage(entry: object) -> str | None:
    """What is wrong with the store that an entry names; one that a client fills in is not looked at."""
    env = cast("dict[str, object]", entry).get("env")
    url = cast("dict[str, object]", env).get("MCP_SESSIONS_STORAGE") if isinstance(env, dict) else None
    if not isinstance(url, str) or not url or "${" in url:
        return None
    from ..storage.opening import checked_location  # Backends are slow to import.

    try:
        checked_location(url)
    except ConfigError as error:
        return without_password(str(error))
    return None


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # A directory on the way is closed to us: then it is to a client of this user, too.
        return False


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON value")


_decoder = json.JSONDecoder(parse_constant=_refuse_constant)


def _parse(path: Path, text: str, *, comments: bool) -> object:
    """The value of the text. Raises ClientConfigError, which tells comments from what nobody can read."""
    try:
        return _decoder.decode(text)
    except (ValueError, RecursionError) as error:
        line = error.lineno if isinstance(error, json.JSONDecodeError) else None
        try:
            value = _decoder.decode(_without_comments(text))
        except (ValueError, RecursionError):
            fact = getattr(error, "msg", str(error))
            raise ClientConfigError(path, f"is not valid JSON ({fact}).", line=line) from error
        if comments:
            return value
        fact = "has comments or trailing commas, which are not JSON."
        raise ClientConfigError(path, fact, line=line) from error


def _without_comments(text: str) -> str:
    def blank(found: re.Match[str]) -> str:
        return found[0] if found[0].startswith('"') else " "

    return _STRING_OR_TRAILING_COMMA.sub(blank, _STRING_OR_COMMENT.sub(blank, text))


def _line_of(text: str, key: str) -> int:
    at = max(member.at for member in members(text, skip_space(text, 0)) if member.key == key)
    return text.count("\n", 0, at) + 1


def _kind(value: object) -> str:
    if isinstance(value, list):
        return "a list"
    if isinstance(value, str):
        return "a string"
    return "null" if value is None else f"the value {json.dumps(value)}"
