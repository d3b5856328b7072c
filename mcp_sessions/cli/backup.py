"""`mcp-sessions backup`: a copy of the whole store, while others write."""

from __future__ import annotations

from pathlib import Path

import click

from .exits import Failed
from .store import store
from .text import counted, json_text, one_line


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Replace FILE if it is there; never one that is open as a store.")
@click.option("--json", "as_json", is_flag=True, help="Print {path, url, bytes} as JSON.")
def backup(*, file: Path, force: bool, as_json: bool) -> None:
    """Copy the whole store into FILE, a store of its own, while servers go on writing.

    All that was acknowledged before is in it. FILE stands there whole, or not at all.
    """
    from ..config import sqlite_url
    from ..storage import MemorySessionStorage

    with store() as manager:
        if manager is None:
            raise Failed("There are no sessions yet, so there is nothing to copy.")
        if isinstance(manager.storage, MemorySessionStorage):
            raise Failed("A store in memory ends with its process, so there is nothing to copy from here.")
        manager.storage.backup(file, replace=force)
    path = file.absolute()
    size = path.stat().st_size
    if as_json:
        click.echo(json_text({"path": str(path), "url": sqlite_url(path), "bytes": size}))
    else:
        click.echo(f"Copied to {one_line(str(path))} ({counted(size, 'byte')}).", err=True)
