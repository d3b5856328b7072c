"""`mcp-sessions install`: put this server into a client's file, and leave everything else in it as it is.

The entry is spliced into the text, not dumped with the rest, so that all others keep every byte: order,
layout, numbers as they were written. Paths are absolute, for what a desktop starts has a bare PATH and runs
anywhere.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import stat
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, cast, get_args
from urllib.parse import urlsplit

import click

from ..errors import ConfigError
from .clients import (
    BRIDGE,
    CLIENTS,
    SERVER_NAME,
    Client,
    ClientConfigError,
    ConfigFile,
    command_of,
    config_path,
    is_ours,
    members,
    read_config,
    skip_space,
)
from .text import one_line, without_password


@dataclass(frozen=True)
class Installed:
    """What was done, as `--json` shows it."""

    client: str
    name: str
    path: str
    action: Literal["added", "updated", "unchanged"]
    backup: str | None
    next_step: str
    notes: list[str]


def _check_name(_context: click.Context, _option: click.Parameter, name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name):
        raise click.BadParameter(f"{name!r} is not 1 to 64 letters, digits, '-' and '_'.")
    return name


def _check_storage(_context: click.Context, _option: click.Parameter, url: str | None) -> str | None:
    if url is None:
        return None
    from ..storage.opening import checked_location  # Backends are slow to import.

    try:
        checked_location(url)
    except ConfigError as error:
        raise click.BadParameter(one_line(without_password(str(error)))) from error
    return url


def _check_toolsets(_context: click.Context, _option: click.Parameter, names: str | None) -> str | None:
    if names is None:
        return None
    from ..config import Toolset  # Settings are slow to import.

    known: tuple[str, ...] = get_args(Toolset)
    parts = [part.strip() for part in names.split(",")]
    for part in parts:
        if part not in known:
            raise click.BadParameter(f"{part!r} is not one of {', '.join(known)}.")
    return ",".join(parts)


def _check_url(_context: click.Context, _option: click.Parameter, url: str | None) -> str | None:
    if url is None:
        return None
    try:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:
            raise ValueError
        if "@" in parts.netloc or parts.query or parts.fragment:
            raise ValueError
    except ValueError:
        raise click.BadParameter(
            f"{without_password(url)[:200]!r} is not the URL of a server, like http://127.0.0.1:8765/mcp."
        ) from None
    return url if parts.path.strip("/") else url.rstrip("/") + "/mcp"


@click.command()
@click.argument("client", type=click.Choice(list(CLIENTS)))
@click.option("--print", "print_only", is_flag=True, help="Only print the JSON to paste; touch no file.")
@click.option("--name", default=SERVER_NAME, show_default=True, callback=_check_name, help="Name of the entry.")
@click.option("--storage", metavar="URL", callback=_check_storage, help="The store it uses, if not the default.")
@click.option("--toolsets", metavar="NAMES", callback=_check_toolsets, help="The toolsets it offers: core,manage")
@click.option("--url", metavar="URL", callback=_check_url, help="A server over HTTP to use, in place of starting one.")
@click.option(
    "--project",
    metavar="DIR",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Write the file of this project instead of yours.",
)
@click.option("--force", is_flag=True, help="Replace an entry of that name whole, whatever it starts.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def install(
    *,
    client: str,
    print_only: bool,
    name: str,
    storage: str | None,
    toolsets: str | None,
    url: str | None,
    project: Path | None,
    force: bool,
    as_json: bool,
) -> None:
    """Put mcp-sessions into the configuration of CLIENT.

    Other servers and settings in the file stay as they are, and the old file stays beside it as a backup.
    """
    target = CLIENTS[client]
    if project is not None and target.project_file is None:
        raise click.UsageError(f"{target.title} has no configuration per project. Leave --project out.")
    env = {"MCP_SESSIONS_STORAGE": storage, "MCP_SESSIONS_TOOLSETS": toolsets}
    given = {key: value for key, value in env.items() if value is not None}
    if url is not None and given:
        raise click.UsageError("--storage and --toolsets are for a server that the client starts; leave --url out.")
    entry = server_entry(target, given) if url is None else remote_entry(target, url)
    if print_only:
        # ASCII, because a pipe on Windows may know no other letters.
        click.echo(json.dumps({target.table: {name: entry}}, indent=2))
        return
    file = project / target.project_file if project and target.project_file else config_path(target)
    now = datetime.now(UTC).astimezone()
    try:
        done = write_entry(file.absolute(), target, name, entry, now=now, force=force)
    except ClientConfigError as error:
        by_hand = f"mcp-sessions install {client} --print"
        raise click.ClickException(
            f"{error} Nothing was written. Run this again once that is settled, "
            f"or run `{by_hand}` and paste the entry yourself."
        ) from error
    _report(done, as_json=as_json)


def server_entry(
    client: Client, env: Mapping[str, str], *, python: str = sys.executable, platform: str = sys.platform
) -> dict[str, object]:
    """The entry that starts this installation: the script beside its Python, else that Python itself."""
    # Not resolved: the python of a virtual environment is a link that leads out of it.
    program = Path(python).absolute()
    script = program.with_name("mcp-sessions.exe" if platform == "win32" else "mcp-sessions")
    entry: dict[str, object] = {"type": "stdio"} if client.typed else {}
    if script.is_file():
        entry |= {"command": str(script), "args": ["serve"]}
    else:
        entry |= {"command": str(program), "args": ["-m", "mcp_sessions", "serve"]}
    return entry | ({"env": dict(env)} if env else {})


def remote_entry(client: Client, url: str) -> dict[str, object]:
    """The entry for a server that somebody else runs: streamable HTTP, or SSE where the path is /sse."""
    if not client.remote:
        return {"command": "npx", "args": ["-y", BRIDGE, url]}
    kind = "sse" if urlsplit(url).path.rstrip("/").endswith("/sse") else "http"
    return {"type": kind, "url": url} if client.typed else {"url": url}


def write_entry(
    path: Path, client: Client, name: str, entry: Mapping[str, object], *, now: datetime, force: bool = False
) -> Installed:
    """Write the entry into the client's file, and say what was done.

    An older entry of ours gets the new command and keeps what else stands in it, its `env` above all; with
    `force` it is replaced whole. Raises ClientConfigError, and then has changed nothing.
    """
    config = read_config(path, client)
    old = config.servers.get(name)
    kept: list[str] = []
    if name in config.servers and not force:
        if not is_ours(old) and old != entry:
            what = f"starts {command_of(old)}" if command_of(old) else "starts no command"
            fact = f'"{name}" is another server, which {what}. Choose a --name, or replace it with --force.'
            raise ClientConfigError(path, fact)
        if is_ours(old) and is_ours(entry):
            entry, kept = _laid_over(cast("dict[str, object]", old), entry)
    changed = old != entry
    backup = None
    if changed:
        text = with_server(config.text, client.table, name, entry)
        try:
            backup = write_config(config, text, now)
        except (OSError, UnicodeEncodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "a path in the entry is not Unicode"
            raise ClientConfigError(path, f"cannot be written ({reason}).") from error
    return Installed(
        client=client.name,
        name=name,
        path=str(path),
        action="unchanged" if not changed else "updated" if name in config.servers else "added",
        backup=None if backup is None else str(backup),
        next_step=client.next_step.format(name=name),
        notes=[*_kept_note(kept), *_twin_note(config, name), *_cache_note(str(entry.get("command", "")))],
    )


def with_server(text: str, table: str, name: str, entry: Mapping[str, object]) -> str:
    """The JSON text with `entry` as member `name` of the object `table`, both made where they are missing.

    All other bytes stay; the new ones follow the indentation and line ends around them. The text is what
    `read_config` accepts.
    """
    if not text.strip(" \t\r\n"):
        text = "{}\n"
    root = skip_space(text, 0)
    unit = _unit(text, root)
    found = [member.start for member in members(text, root) if member.key == table]
    if found:
        # The last one, because of two equal keys that is the one that counts.
        return _with_member(text, found[-1], name, entry, unit)
    return _with_member(text, root, table, {name: entry}, unit)


def _with_member(text: str, start: int, key: str, value: object, unit: str | None) -> str:
    """The text with a member set in the object at `start`: in place if it is there, else as the last."""
    newline = "\r\n" if "\r\n" in text else "\n"
    there = list(members(text, start))

    def rendered(pad: str | None) -> str:
        if pad is None or unit is None:
            return json.dumps(value, ensure_ascii=False)
        return json.dumps(value, ensure_ascii=False, indent=unit).replace("\n", newline + pad)

    same = [member for member in there if member.key == key]
    if same:
        return text[: same[-1].start] + rendered(_pad(text, same[-1].at)) + text[same[-1].end :]
    label = f"{json.dumps(key)}: "
    if there:
        pad = _pad(text, there[-1].at)
        gap = " " if pad is None else newline + pad
        return text[: there[-1].end] + f",{gap}{label}{rendered(pad)}" + text[there[-1].end :]
    end = skip_space(text, start + 1)
    if unit is None:
        return text[: start + 1] + label + rendered(None) + text[end:]
    line = text[text.rfind("\n", 0, start) + 1 : start]
    outer = line[: len(line) - len(line.lstrip(" \t"))]
    inner = outer + unit
    return text[: start + 1] + f"{newline}{inner}{label}{rendered(inner)}{newline}{outer}" + text[end:]


def _unit(text: str, root: int) -> str | None:
    """One step of the document's indentation; two spaces where it has none yet, None if it is on one line."""
    first = next(members(text, root), None)
    pad = "" if first is None else _pad(text, first.at)
    return None if pad is None else pad or "  "


def _pad(text: str, at: int) -> str | None:
    """The white space before `at`, or None if anything else stands before it on its line."""
    line_start = text.rfind("\n", 0, at) + 1
    before = text[line_start:at]
    return before if line_start and not before.strip(" \t") else None


def _laid_over(old: dict[str, object], new: Mapping[str, object]) -> tuple[dict[str, object], list[str]]:
    """The new entry over an older one of ours, and the names in its `env` that only the older one set."""
    merged = {**old, **new}
    before = old.get("env")
    if not isinstance(before, dict):
        return merged, []
    old_env = cast("dict[str, object]", before)
    new_env = cast("dict[str, object]", new.get("env", {}))
    merged["env"] = old_env | new_env
    return merged, [key for key in old_env if key not in new_env]


def _kept_note(names: list[str]) -> list[str]:
    return [f"kept from the older entry: {', '.join(names)} (--force writes it anew)"] if names else []


def _twin_note(config: ConfigFile, name: str) -> list[str]:
    twins = [other for other, entry in config.servers.items() if other != name and is_ours(entry)]
    return [f"{', '.join(twins)} in the same file starts mcp-sessions too; one is enough"] if twins else []


def _cache_note(command: str) -> list[str]:
    if not {"cache", ".cache", "caches"} & {part.lower() for part in Path(command).parts}:
        return []
    note = (
        f"{command} stands in a cache, which may be emptied at any time: install mcp-sessions for good "
        "(`uv tool install mcp-sessions`, or into a virtual environment), then run this again"
    )
    return [note]


def write_config(config: ConfigFile, text: str, now: datetime) -> Path | None:
    """Put the text in place of the file, whole or not at all; its backup, or None if there was no file.

    A link is followed, so that a file kept elsewhere is changed there. A new file is for its owner only, for
    the URL of a store may hold a password.
    """
    content = config.mark + text.encode()
    target = config.path.resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    mode = 0o600 if config.raw is None else stat.S_IMODE(target.stat().st_mode)
    fresh = target.with_name(f".{target.name}.{secrets.token_hex(8)}.tmp")
    backup = None
    with ExitStack() as undo:
        undo.callback(fresh.unlink, missing_ok=True)
        _write_new(fresh, content, mode)
        if config.raw is not None:
            backup = _back_up(config.path, config.raw, mode, now)
            undo.callback(backup.unlink)
        _check_unchanged(config, target)
        fresh.replace(target)
        undo.pop_all()
    return backup


def _check_unchanged(config: ConfigFile, target: Path) -> None:
    # Claude Code writes its file while it runs, and what it wrote since we read must not be lost.
    if (target.read_bytes() if target.exists() else None) != config.raw:
        raise ClientConfigError(config.path, "was changed by another program at this moment.")


def _back_up(path: Path, raw: bytes, mode: int, now: datetime) -> Path:
    """A new file beside `path` with its bytes and its mode; one that exists is left alone."""
    stem = f"{path.name}.backup-{now:%Y%m%d-%H%M%S}"
    backup = path.with_name(stem)
    number = 1
    while True:
        try:
            _write_new(backup, raw, mode)
            return backup
        except FileExistsError:
            number += 1
            backup = path.with_name(f"{stem}-{number}")


def _write_new(path: Path, content: bytes, mode: int) -> None:
    """Create the file, synced, or leave none. Raises OSError, and FileExistsError where there is one."""

    def private(name: str, flags: int) -> int:
        return os.open(name, flags, 0o600)

    with ExitStack() as undo:
        with open(path, "xb", opener=private) as stream:
            undo.callback(path.unlink)
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        path.chmod(mode)
        undo.pop_all()


def _report(done: Installed, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(asdict(done)))
        return
    title = CLIENTS[done.client].title
    if done.action == "unchanged":
        click.echo(f"{done.path} already starts mcp-sessions as {done.name}: nothing to write.")
    else:
        click.echo(f"{title}: {done.action} {done.name} in {done.path}")
    if done.backup:
        click.echo(f"Backup: {done.backup}")
    for note in done.notes:
        click.echo(f"Note: {note}.", err=True)
    if done.action != "unchanged":
        click.echo(f"Next: {done.next_step}.")
