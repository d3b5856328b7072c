"""The same work by other durable session stores: `python -m tests.bench.peers [--json FILE] [--quick]`.

They are no dependencies of this project: install those that you want to see into an environment of their own, beside
this package: openai-agents, langgraph-checkpoint-sqlite, agno, google-adk with aiosqlite and greenlet. Who is not
there is named. Each act is taken in turn with ours; below 1 we are ahead.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from mcp_sessions import SQLiteSessionStorage
from mcp_sessions.models import Change, Query, SessionMetadata, Want

from .measure import Act, in_turn, micros, p50
from .stores import CONTENT, changes

WORKS = ("append", "last 20", "get", "set", "list by user", "list by tag")
USERS, TAGS, PAGE = 20, 10, 50


class Store(ABC):
    """What can be compared: each work as an act. A work that a store does not know is left out."""

    @abstractmethod
    def fill(self, sessions: int, messages: int) -> None:
        """Make sessions, number n by user n % 20 with tag n % 10, and a session `long` with messages and a key."""

    @abstractmethod
    def acts(self) -> dict[str, Act]: ...

    def close(self) -> None:  # noqa: B027 - most have nothing to close
        pass


class Ours(Store):
    def __init__(self, folder: Path) -> None:
        self.storage = SQLiteSessionStorage(folder / "ours.db")

    def fill(self, sessions: int, messages: int) -> None:
        for number in range(sessions):
            self._create(f"s{number}", f"user{number % USERS}", [f"tag{number % TAGS}"])
        self._create("long", "user", [])
        for _, change in zip(range(messages), changes(), strict=False):
            self.storage.commit("long", change)
        self._set()

    def _create(self, session_id: str, user: str, tags: list[str]) -> None:
        now = datetime.now(UTC)
        head = SessionMetadata(session_id=session_id, created_at=now, updated_at=now, user_id=user, tags=tags)
        self.storage.create(head)

    def _set(self) -> None:
        self.storage.commit("long", Change(at=datetime.now(UTC), set={"plan": {"step": 3}}))

    def acts(self) -> dict[str, Act]:
        read, find = self.storage.read, self.storage.find
        made = changes()
        return {
            "append": lambda: self.storage.commit("long", next(made)),
            "last 20": partial(read, "long", Want(messages=20)),
            "get": partial(read, "long", Want(keys=("plan",))),
            "set": self._set,
            "list by user": partial(find, Query(user_id="user3", limit=PAGE)),
            "list by tag": partial(find, Query(tags=("tag3",), limit=PAGE)),
        }

    def close(self) -> None:
        self.storage.close()


class OpenAIAgents(Store):
    """SQLiteSession: messages alone."""

    def __init__(self, folder: Path) -> None:
        from agents import SQLiteSession

        self._session = SQLiteSession("long", folder / "openai.db")
        self._runner = asyncio.Runner()

    def _add(self) -> Coroutine[Any, Any, None]:
        return self._session.add_items([{"role": "user", "content": CONTENT}])

    def fill(self, sessions: int, messages: int) -> None:
        for _ in range(messages):
            self._runner.run(self._add())

    def acts(self) -> dict[str, Act]:
        return {
            "append": lambda: self._runner.run(self._add()),
            "last 20": lambda: self._runner.run(self._session.get_items(20)),
        }

    def close(self) -> None:
        self._session.close()
        self._runner.close()


class LangGraph(Store):
    """SqliteSaver, where a message means a checkpoint with all of them, and SqliteStore for keys."""

    def __init__(self, folder: Path) -> None:
        import sqlite3

        from langgraph.checkpoint.base import empty_checkpoint
        from langgraph.checkpoint.sqlite import SqliteSaver
        from langgraph.store.sqlite import SqliteStore

        self._checkpoint = empty_checkpoint
        self._saver = SqliteSaver(sqlite3.connect(folder / "saver.db", check_same_thread=False))
        self._saver.setup()
        self._keys = SqliteStore(sqlite3.connect(folder / "keys.db", check_same_thread=False, isolation_level=None))
        self._keys.setup()
        self._said: list[dict[str, str]] = []
        self._config: Any = {"configurable": {"thread_id": "long", "checkpoint_ns": ""}}

    def _put(self, config: Any, said: list[dict[str, str]], more: dict[str, Any]) -> Any:
        checkpoint = self._checkpoint()
        checkpoint["channel_values"] = {"messages": said}
        return self._saver.put(config, checkpoint, {"source": "loop", **more}, {})

    def _add(self) -> None:
        self._said.append({"role": "user", "content": CONTENT})
        self._config = self._put(self._config, self._said, {})

    def fill(self, sessions: int, messages: int) -> None:
        for number in range(sessions):
            config = {"configurable": {"thread_id": f"s{number}", "checkpoint_ns": ""}}
            self._put(config, [], {"user": f"user{number % USERS}", "tag": f"tag{number % TAGS}"})
        for _ in range(messages):
            self._add()
        self._set()

    def _set(self) -> None:
        self._keys.put(("long",), "plan", {"step": 3})

    def acts(self) -> dict[str, Act]:
        thread = {"configurable": {"thread_id": "long", "checkpoint_ns": ""}}

        def by(**wanted: str) -> Act:
            return lambda: list(self._saver.list(None, filter=wanted, limit=PAGE))

        return {
            "append": self._add,
            "last 20": lambda: self._saver.get_tuple(thread).checkpoint["channel_values"]["messages"][-20:],
            "get": lambda: self._keys.get(("long",), "plan"),
            "set": self._set,
            "list by user": by(user="user3"),
            "list by tag": by(tag="tag3"),
        }


class Agno(Store):
    """SqliteDb: a message is a run; a key stands in session_data, which is written whole."""

    def __init__(self, folder: Path) -> None:
        from agno.db.base import SessionType
        from agno.db.sqlite import SqliteDb
        from agno.models.message import Message
        from agno.run.agent import RunOutput
        from agno.session import AgentSession

        self._db = SqliteDb(db_file=str(folder / "agno.db"))
        self._kind = SessionType.AGENT
        self._message, self._run, self._session = Message, RunOutput, AgentSession

    def _upsert(self, session_id: str, user: str, **data: Any) -> None:
        now = int(time.time())
        session = self._session(
            session_id=session_id, agent_id="a", user_id=user, created_at=now, updated_at=now, **data
        )
        self._db.upsert_session(session)

    def _add(self) -> None:
        said = [self._message(role="user", content=CONTENT)]
        run = self._run(run_id=str(uuid.uuid4()), agent_id="a", session_id="long", messages=said)
        self._db.upsert_run(run, "long", "user")

    def fill(self, sessions: int, messages: int) -> None:
        for number in range(sessions):
            self._upsert(f"s{number}", f"user{number % USERS}", metadata={"tag": f"tag{number % TAGS}"})
        self._set()
        for _ in range(messages):
            self._add()

    def _set(self) -> None:
        self._upsert("long", "user", session_data={"plan": {"step": 3}})

    def acts(self) -> dict[str, Act]:
        def get(runs: int) -> Any:
            return self._db.get_session("long", self._kind, user_id="user", runs_limit=runs)

        def by_tag() -> list[Any]:
            found = self._db.get_sessions(self._kind, include_runs=False)
            return [one for one in found if (one.metadata or {}).get("tag") == "tag3"][:PAGE]

        return {
            "append": self._add,
            "last 20": lambda: get(20),
            "get": lambda: get(1),
            "set": self._set,
            "list by user": lambda: self._db.get_sessions(self._kind, "user3", limit=PAGE, include_runs=False),
            "list by tag": by_tag,
        }


class GoogleADK(Store):
    """DatabaseSessionService: everything is an event; a key is one that carries a change of state."""

    def __init__(self, folder: Path) -> None:
        from google.adk.events import Event, EventActions
        from google.adk.sessions import DatabaseSessionService
        from google.adk.sessions.base_session_service import GetSessionConfig
        from google.genai.types import Content, Part

        self._service = DatabaseSessionService(f"sqlite+aiosqlite:///{folder / 'adk.db'}")
        self._event, self._actions, self._config = Event, EventActions, GetSessionConfig
        self._content = Content(role="user", parts=[Part(text=CONTENT)])
        self._runner = asyncio.Runner()
        self._session: Any = None

    def _create(self, session_id: str, user: str, tag: str) -> Any:
        making = self._service.create_session(app_name="bench", user_id=user, session_id=session_id, state={"tag": tag})
        return self._runner.run(making)

    def _add(self, **more: Any) -> None:
        event = self._event(author="user", content=self._content, **more)
        self._runner.run(self._service.append_event(self._session, event))

    def _set(self) -> None:
        self._add(actions=self._actions(state_delta={"plan": {"step": 3}}))

    def fill(self, sessions: int, messages: int) -> None:
        for number in range(sessions):
            self._create(f"s{number}", f"user{number % USERS}", f"tag{number % TAGS}")
        self._session = self._create("long", "user", "none")
        for _ in range(messages):
            self._add()
        self._set()

    def acts(self) -> dict[str, Act]:
        def get(recent: int) -> Any:
            config = self._config(num_recent_events=recent)
            getting = self._service.get_session(app_name="bench", user_id="user", session_id="long", config=config)
            return self._runner.run(getting)

        def listed(user: str | None) -> list[Any]:
            return self._runner.run(self._service.list_sessions(app_name="bench", user_id=user)).sessions

        return {
            "append": self._add,
            "last 20": lambda: get(20),
            "get": lambda: get(1).state["plan"],
            "set": self._set,
            "list by user": lambda: listed("user3")[:PAGE],
            "list by tag": lambda: [one for one in listed(None) if one.state.get("tag") == "tag3"][:PAGE],
        }

    def close(self) -> None:
        self._runner.close()


PEERS: dict[str, Callable[[Path], Store]] = {
    "openai-agents SQLiteSession": OpenAIAgents,
    "langgraph-checkpoint-sqlite": LangGraph,
    "agno SqliteDb": Agno,
    "google-adk DatabaseSessionService": GoogleADK,
}


def compare(directory: Path, sessions: int, messages: int, rounds: int) -> list[dict[str, Any]]:
    """One result for each work of each peer that is installed, and one for each that is not."""
    results: list[dict[str, Any]] = []
    ours = Ours(directory)
    ours.fill(sessions, messages)
    mine = ours.acts()
    for name, make in PEERS.items():
        try:
            peer = make(directory)
        except ImportError as error:
            results.append({"peer": name, "missing": str(error)})
            print(f"     {name} is not installed: {error}", flush=True)
            continue
        peer.fill(sessions, messages)
        for work, act in peer.acts().items():
            in_turn([mine[work], act], 3)
            us, them = in_turn([mine[work], act], rounds)
            ratio = p50(us) / p50(them)
            results.append(
                {"peer": name, "work": work, "ratio": round(ratio, 3), "us": micros(us), "them_us": micros(them)}
            )
            verdict = "ok  " if ratio < 1 else "MISS"
            print(f"{verdict} {name:<35}{work:<14}{ratio:>7.2f}  [{micros(us):g} / {micros(them):g} us]", flush=True)
        peer.close()
    ours.close()
    return results


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare, and tell by the exit code whether we are ahead of all that are installed."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.peers", description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    parser.add_argument("--quick", action="store_true", help="tiny counts: shows that it works, measures nothing")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as directory:
        counts = (20, 30, 3) if given.quick else (1_000, 1_000, 200)
        results = compare(Path(directory), *counts)
    if given.json is not None:
        given.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    return int(any(result.get("ratio", 0) >= 1 for result in results))


if __name__ == "__main__":
    sys.exit(main())
