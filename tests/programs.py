"""What the child processes of the manager's tests do."""

from __future__ import annotations

import atexit
import os
import resource
import signal
import sys
import threading
from pathlib import Path

from mcp_sessions import InvocationConflictError, SessionManager, SQLiteSessionStorage, StorageError
from mcp_sessions.session import Session
from tests.processes import hear, say


def opened(path: str) -> SessionManager:
    return SessionManager(SQLiteSessionStorage(path, durability="process"))


def call_once(path: str) -> None:
    """Make the call that it is told, as others do; say whether it was replayed, and the result."""
    with opened(path) as manager:
        say("ready")
        while invocation_id := hear():
            with manager.call("work", "a", {"x": 1}, invocation_id=invocation_id) as call:
                if not call.replayed:
                    call.draft.add_message("user", f"from {os.getpid()}")
                    call.result = {"by": os.getpid()}
            say(call.replayed, call.result)


def run_slowly(path: str, invocation_id: str) -> None:
    """Begin a slow call, and end it when told to; say how that went."""
    with opened(path) as manager:
        try:
            with manager.call("agent", "a", {"x": 1}, invocation_id=invocation_id, slow=True) as call:
                say("running", call.invocation_id)
                hear()
                call.draft.set_value("answer", 42)
                call.result = {"by": os.getpid()}
        except InvocationConflictError as error:
            say("refused", str(error))
        else:
            say("ended", call.result)


def interrupted_in_its_commit(path: str) -> None:
    """Wait for a commit that somebody holds up, and be interrupted there."""
    with opened(path) as manager:
        try:
            with manager.call("tool", "a", invocation_id="c1") as call:
                call.draft.set_value("k", 1)
                say("committing")
        except KeyboardInterrupt:
            say("interrupted")


def read_and_wait(path: str) -> None:
    """Record a read, then live on."""
    manager = opened(path)
    with manager.call("look", "a", reads=True):
        pass
    say("read")
    hear()
    manager.close()


def read_and_exit(path: str, how: str) -> None:
    """Record reads, and end without closing anything."""
    manager = opened(path)
    for _ in range(3):
        with manager.call("look", "a", reads=True):
            pass
    if how == "error":
        raise RuntimeError("the end")
    if how == "sys.exit":
        sys.exit(0)


def read_at_the_very_end(path: str) -> None:
    """Read for the first time when the interpreter is already ending."""
    import atexit

    manager = opened(path)

    def read() -> None:
        with manager.call("look", "a", reads=True):
            pass

    atexit.register(read)


def read_without_a_thread(path: str) -> None:
    """Read and write where no thread can be started, as in a Python 3.12 that is ending."""
    threading.stack_size(1 << 46)
    manager = opened(path)
    with manager.call("look", "a", reads=True):
        pass
    with manager.call("work", "a") as call:
        call.draft.set_value("k", 1)
    say([thread.name for thread in threading.enumerate()])
    manager.close()


def read_forget_and_wait(path: str) -> None:
    """Record a read through a manager that nobody holds any more."""

    def read() -> None:
        manager = opened(path)
        with manager.call("look", "a", reads=True):
            pass

    read()
    say("read")
    hear()


def fork_while_reads_wait(path: str) -> None:
    """Fork with a read in the queue: parent and child each write their own, once."""
    manager = opened(path)
    with manager.call("parent", "a", reads=True):
        pass
    pid = os.fork()
    if pid == 0:
        with manager.call("child", "a", reads=True):
            pass
        manager.close()
        os._exit(0)
    os.waitpid(pid, 0)
    manager.close()


def fork_and_leave(path: str) -> None:
    """The child of a fork ends as programs do, without a read of its own: it must neither hang nor write."""
    manager = opened(path)
    with manager.call("parent", "a", reads=True):
        pass
    pid = os.fork()
    if pid == 0:
        sys.exit(0)
    _, status = os.waitpid(pid, 0)
    manager.close()
    say(os.waitstatus_to_exitcode(status))


def read_on_a_full_disk(path: str) -> None:
    """Record a read when nothing can be written, and again when there is room."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    manager = opened(path)
    manager.set_value("a", "k", 1)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (Path(path + "-wal").stat().st_size, hard))  # the log cannot grow
    with manager.call("look", "a", reads=True):
        pass
    try:
        manager.reads.flush()
    except StorageError as error:
        say("failed", str(error), manager.reads.waiting)
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    manager.reads.flush()
    say([record.to_dict() for record in manager.invocations("a").items])
    say([record.to_dict() for record in manager.invocations(tool="record_reads").items])
    manager.close()


def fail_on_a_full_disk(path: str) -> None:
    """A slow call that finds the disk full at its end; then there is room, and the process lives on."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with opened(path) as manager:
        try:
            with manager.call("say", "a", {"text": "hello"}, invocation_id="i1", slow=True) as call:
                resource.setrlimit(resource.RLIMIT_FSIZE, (Path(path + "-wal").stat().st_size, hard))
                call.draft.add_message("user", "hello")
        except StorageError as error:
            say(error.__notes__)
        hear()
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        hear()


def end_on_a_full_disk(path: str) -> None:
    """Record a read when nothing can be written, and end."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    atexit.register(resource.setrlimit, resource.RLIMIT_FSIZE, (soft, hard))  # after the manager: for coverage's file
    manager = opened(path)
    manager.set_value("a", "k", 1)
    resource.setrlimit(resource.RLIMIT_FSIZE, (Path(path + "-wal").stat().st_size, hard))
    with manager.call("look", "a", reads=True):
        pass


def save_a_copy(path: str, name: str) -> None:
    """Load a working copy, alter it when told to, and save it."""
    with opened(path) as manager:
        session = manager.get_session("a")
        assert isinstance(session, Session)
        say("loaded", len(session.conversation))
        hear()
        for number in range(20):
            session.add_message("user", f"{name} {number}")
            session.set(f"{name}-{number}", number)
            manager.save_session(session)
        say([message.seq for message in session.conversation if message.content.startswith(name)])
