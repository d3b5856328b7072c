"""What the child processes of the server's tests do."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

from mcp_sessions.cli.serve import _importing
from mcp_sessions.server.descriptors import take_stdio

if TYPE_CHECKING:
    from mcp_sessions.tools import Toolbox

CHILD = (
    "import os, sys; print('child on stdout', flush=True); os.write(1, b'child on 1'); print(repr(sys.stdin.read()))"
)


def more_tools() -> Toolbox:
    """Our tools and some more: one breaks, one prints, one is slow until another one lets it go on."""
    import anyio

    from mcp_sessions.tools import SESSION_TOOLS, Toolbox

    box = Toolbox(SESSION_TOOLS)

    @box.tool(title="Break", toolset="test")
    def broken(call: Any, session_id: str | None = None) -> Any:
        """Raise what nobody expects."""
        raise RuntimeError("the inside")

    @box.tool(title="Make noise", toolset="test")
    def noisy(call: Any) -> Any:
        """Write to stdout in every way there is."""
        print("a print")
        os.write(1, b"on descriptor 1\n")
        sys.stdout.write("on sys.stdout\n")
        os.system("echo from a shell")
        child = subprocess.run([sys.executable, "-c", CHILD], check=True)
        return {"child": child.returncode, "stdin": os.read(0, 10).decode()}

    released = anyio.Event()

    @box.tool(title="Wait", toolset="test")
    async def waiting(call: Any, session_id: str) -> Any:
        """Say something once released."""
        await released.wait()
        call.draft.add_message("assistant", "released")
        return {"session_id": session_id}

    @box.tool(title="Release", toolset="test")
    async def release(call: Any) -> Any:
        """Let all that wait go on."""
        released.set()
        return {}

    return box


def serve_more(storage: str) -> None:
    """A server of more tools over stdio."""
    source, sink = take_stdio()
    with _importing():
        import anyio

        from mcp_sessions import SessionManager, open_storage
        from mcp_sessions.server import stdio
        from mcp_sessions.server.adapter import build_server

    with SessionManager(open_storage(storage, durability="process")) as manager:
        server = build_server(manager, more_tools(), ("core", "test"))
        anyio.run(stdio.serve, server, source, sink, manager.storage.give_up)


def serve_more_over_http(storage: str) -> None:
    """A server of more tools over HTTP, and of one that is not done before the server has begun to end."""
    with _importing():
        import anyio

        from mcp_sessions import SessionManager, open_storage
        from mcp_sessions.server import http
        from mcp_sessions.server.adapter import build_server

    box = more_tools()
    with http.listen("127.0.0.1", 0) as bound, SessionManager(open_storage(storage, durability="process")) as manager:

        @box.tool(title="Outlast", toolset="test")
        def outlasting(call: Any, session_id: str) -> Any:
            """Say something once nobody new is let in."""
            call.manager.set_value(session_id, "outlasting", value=True)
            while bound.fileno() >= 0:
                time.sleep(0.01)
            call.draft.add_message("assistant", "done at the end")
            return {"session_id": session_id}

        app = http.build_app(build_server(manager, box, ("core", "test")), manager)
        sys.stderr.write(f"{http.url_of(bound)}/mcp\n")
        anyio.run(http.serve, app, bound, manager.storage.give_up)


def serve_patiently_over_http(storage: str) -> None:
    """A server over HTTP that gives up nobody at its end as long as a test lasts. Its store lists nothing, and reads
    nothing of the session `late`, before the end has begun and has lasted for longer than answers may take.
    """
    with _importing():
        import anyio

        from mcp_sessions import SessionManager, SQLiteSessionStorage
        from mcp_sessions.models import Page, Query, SessionMetadata, View, Want
        from mcp_sessions.server import http
        from mcp_sessions.server.adapter import build_server
        from mcp_sessions.tools import SESSION_TOOLS
        from mcp_sessions.web.guard import GuardedConnection
        from tests.processes import LONG_S

    http.GRACE_S = http.END_S = GuardedConnection.read_s = 2 * LONG_S

    def outlast() -> None:
        sys.stderr.write("asked\n")
        while bound.fileno() >= 0:
            time.sleep(0.01)
        time.sleep(2 * http.ANSWER_S)

    class Late(SQLiteSessionStorage):
        def read(self, session_id: str, want: Want) -> View:
            if session_id == "late":
                outlast()
            return super().read(session_id, want)

        def find(self, query: Query, cursor: str | None = None) -> Page[SessionMetadata]:
            outlast()
            return super().find(query, cursor)

    with http.listen("127.0.0.1", 0) as bound, SessionManager(Late(storage, durability="process")) as manager:
        app = http.build_app(build_server(manager, SESSION_TOOLS, ("core",)), manager)
        sys.stderr.write(f"{http.url_of(bound)}/mcp\n")
        anyio.run(http.serve, app, bound, manager.storage.give_up)


def serve_with_grace(*args: str) -> None:
    """`mcp-sessions serve` over stdio that waits at its end for what is in flight, as long as a test lasts."""
    from mcp_sessions.cli import main
    from mcp_sessions.server import stdio
    from tests.processes import LONG_S

    stdio.GRACE_S = 2 * LONG_S
    main(["serve", *args])


def serve_with_files(soft: str, hard: str) -> None:
    """A server over HTTP that may have so many files open: as it is, and if it asks."""
    import resource

    resource.setrlimit(resource.RLIMIT_NOFILE, (int(soft), int(hard)))
    from mcp_sessions.cli import main

    main(["serve", "--transport", "http", "--port", "0"])


def serve_without_signals() -> None:
    """A server where the event loop knows no signals, as on Windows."""
    import asyncio

    def add_signal_handler(*_: object) -> None:
        raise NotImplementedError

    asyncio.SelectorEventLoop.add_signal_handler = add_signal_handler
    from mcp_sessions.cli import main

    main(["serve"])


def write_keys(storage: str, session_id: str, count: str) -> None:
    """What a script does: keys through the door, under a name of its own."""
    from mcp_sessions import SessionManager, open_storage
    from mcp_sessions.tools import invoke

    with SessionManager(open_storage(storage)) as manager:
        for number in range(int(count)):
            invoke(manager, "session_set", {"session_id": session_id, "key": f"script-{number}", "value": number})
