"""The demo itself: an investigation of the standard library that is cut off by a kill, and goes on.

Every finding comes from a tool that really ran. It is recorded, said and stored by three calls of the server, and
these are sent many at a time, so that the kill always meets some of them half way.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import anyio
import anyio.to_thread
from anyio.abc import Process
from mcp import Client, MCPError

from ..text import counted
from . import library
from .account import Account, Check
from .library import Module
from .promises import Notebook, Stored, Write, broken_promises, call, read_back
from .server import serving

IN_FLIGHT = 32
BATCH = 32
TAGS = ["demo", "standard-library"]
QUESTIONS = (
    "How is the standard library of this Python made? Which modules are largest, which are imported most, where are "
    "some of its functions used, and what does a call cost?"
)
USED = ("os.replace", "functools.wraps", "contextlib.suppress", "time.monotonic", "struct.unpack", "os.fsync")
TIMED = {
    "json.dumps": ("json.dumps(value)", "import json; value = {'key': list(range(20))}"),
    "json.loads": ("json.loads(text)", "import json; text = json.dumps({'key': list(range(20))})"),
    "re.search": ("search(text)", "import re; search = re.compile(r'[a-z]+=(\\d+)').search; text = 'x ' * 50 + 'n=42'"),
    "copy.deepcopy": ("copy.deepcopy(value)", "import copy; value = {'key': list(range(20))}"),
    "os.stat": ("os.stat('.')", "import os"),
    "hashlib.sha256": ("hashlib.sha256(data).digest()", "import hashlib; data = bytes(1024)"),
    "datetime.now": ("datetime.now(UTC)", "from datetime import datetime, UTC"),
    "pathlib.Path": ("Path('a') / 'b'", "from pathlib import Path"),
}


class Finding(NamedTuple):
    """What one run of a tool found out."""

    tool: str
    arguments: dict[str, Any]
    duration_ms: float
    said: str
    key: str
    value: Any


class Demo:
    """One run over the store at `url`; `say` gets a line at each step."""

    def __init__(self, url: str, home: Path, say: Callable[[str], None], folder: Path | None = None) -> None:
        self.url = url
        self.home = home
        self.say = say
        self.folder = folder or library.library_folder()
        self.files: dict[str, list[Path]] = {}
        self.modules: list[Module] = []
        self.notebook = Notebook()
        self.session_id = ""
        self.account = Account(python=platform.python_version(), library=str(self.folder))

    async def run(self) -> Account:
        """All of it. What is not as it should be stands in the account; raises where the demo cannot go on."""
        began = time.perf_counter()
        async with self._server("started") as (client, process):
            await self._begin(client)
            names = list(self.files)
            done = await self._measure(client, names[: len(names) * 2 // 5])
            done += await self._measure_until_killed(client, process, names[done:])
        async with self._server("restarted") as (client, _):
            await self._recover(client)
            await self._measure(client, names[done:])
            asked = await self._ask(client)
            await self._look(client, asked)
            await self._end(client, asked)
        self.account.seconds["all"] = time.perf_counter() - began
        return self.account

    @asynccontextmanager
    async def _server(self, name: str) -> AsyncGenerator[tuple[Client, Process]]:
        began = time.perf_counter()
        async with serving(self.url, self.home) as (client, process):
            await client.list_tools()
            self.account.seconds[name] = time.perf_counter() - began
            yield client, process

    # before the kill

    async def _begin(self, client: Client) -> None:
        await call(client, "session_query", status="active", tags=TAGS)
        purpose = f"How the standard library of Python {platform.python_version()} is made"
        create = self.notebook.note("session_create", purpose=purpose, tags=TAGS)
        self.session_id = self.account.session_id = (await self.notebook.send(client, create))["session_id"]
        self.say(f"Session {self.session_id}: {purpose}")
        await self._say(client, "user", QUESTIONS)
        self.files, listed = await _timed(library.list_modules, self.folder)
        count = sum(map(len, self.files.values()))
        if not count:
            raise FileNotFoundError(f"{self.folder} has no Python source: this Python came without it.")
        said = f"{len(self.files):,} modules and packages in {count:,} files under {self.folder}"
        value = {"modules": len(self.files), "files": count, "folder": str(self.folder)}
        await self._store(
            client, [Finding("list_modules", {"folder": str(self.folder)}, listed, said, "library", value)]
        )

    async def _measure(self, client: Client, names: Sequence[str]) -> int:
        """Measure modules, and write down each finding; how many."""
        for start in range(0, len(names), BATCH):
            await self._store(client, await self._measured(names[start : start + BATCH]))
            self.say(f"{len(self.modules):,} of {len(self.files):,} modules measured and stored")
        return len(names)

    async def _measure_until_killed(self, client: Client, process: Process, names: Sequence[str]) -> int:
        """Kill the server when half of a batch is acknowledged, with calls in flight; how many were measured."""
        done = 0
        while process.returncode is None and done < len(names):
            findings = await self._measured(names[done : done + BATCH])
            done += len(findings)
            target = self.notebook.acknowledged + len(findings) * 3 // 2

            def kill(target: int = target) -> None:
                if self.notebook.acknowledged == target:
                    process.kill()
                    self.account.killed["acknowledged"] = target

            self.notebook.heard = kill
            await self._store(client, findings, may_break=True)
            if self.notebook.unanswered:
                break
        self.notebook.heard = lambda: None
        self.account.killed["in_flight"] = sum(write.sent for write in self.notebook.unanswered)
        self.say(
            f"Server {process.pid} killed while it wrote: {self.account.killed['acknowledged']:,} calls acknowledged, "
            f"{self.account.killed['in_flight']:,} in flight"
        )
        return done

    async def _measured(self, names: Iterable[str]) -> list[Finding]:
        findings: list[Finding] = []
        for name in names:
            module, took = await _timed(library.measure_module, name, self.files[name], self.folder)
            self.modules.append(module)
            value = {
                "lines": module.lines,
                "bytes": module.bytes,
                "files": module.files,
                "functions": module.functions,
                "classes": module.classes,
                "longest": module.longest.name,
                "longest_lines": module.longest.size,
                "depth": module.deepest.size,
            }
            findings.append(Finding("measure_module", {"module": name}, took, _told(module), f"module.{name}", value))
        return findings

    # after it

    async def _recover(self, client: Client) -> None:
        stored = await self._stored(client)
        faults = broken_promises(self.notebook.writes, stored)
        kept = self.notebook.acknowledged
        self._check(
            "After the kill nothing acknowledged is missing, and each change has its record",
            faults,
            f"{kept:,} writes, read back in {stored.pages} pages: {len(stored.messages):,} messages, "
            f"numbered 1 to {stored.head['last_seq']:,} without a gap or a duplicate, {len(stored.data):,} keys",
        )
        recorded = {record["invocation_id"] for record in stored.records}
        lost = self.notebook.unanswered
        there = sum(write.key in recorded for write in lost)
        sent = self.account.killed["in_flight"]
        self.account.killed["stored_in_flight"] = there
        # And some that had their answer: a client cannot always know.
        known = {write.key: write.answer for write in self.notebook.writes[-BATCH * 6 :: 7] if write.answer is not None}
        again = [write for write in self.notebook.writes if write.key in known]
        await self._send(client, [*lost, *again])
        stored = await self._stored(client)
        faults = broken_promises(self.notebook.writes, stored)
        faults += [f"{write.key} got another answer." for write in again if write.answer != known[write.key]]
        self._check(
            "Calls sent again with the same idempotency key are stored once",
            faults,
            f"{sent} calls were in flight, of which {there} had been stored; sent again they all are there once, and "
            f"{len(again)} others got the answer that they had got before",
        )

    async def _ask(self, client: Client) -> dict[str, int]:
        """The questions that need all modules; the number of the message that answers each."""
        ranked, took = await _timed(library.count_imports, self.modules)
        self.account.imported = ranked[:5]
        top = ", ".join(f"{name} by {count}" for name, count in ranked[:10])
        finding = Finding(
            "count_imports",
            {"modules": len(self.modules)},
            took,
            f"Most imported: {top}.",
            "imports",
            dict(ranked[:20]),
        )
        await self._store(client, [finding])
        largest = sorted(self.modules, key=lambda module: module.lines, reverse=True)
        self.account.modules = largest
        said = ", ".join(f"{module.name} with {module.lines:,} lines" for module in largest[:10])
        asked = {"largest": await self._say(client, "assistant", f"The largest modules are {said}.")}
        for name in USED:
            places, took = await _timed(library.find_uses, name, self.files, self.folder)
            self.account.uses[name] = places
            said = f"{name} is used at {counted(len(places), 'place')}: {', '.join(places[:8])}"
            value = {"places": len(places), "first": places[:5]}
            await self._store(client, [Finding("find_uses", {"name": name}, took, said, f"uses.{name}", value)])
            asked[name] = self.notebook_seq
        self.say(f"{len(USED)} functions looked for in all files")
        asked["uses"] = asked[USED[-1]]
        for name, (statement, setup) in TIMED.items():
            micros, took = await _timed(library.time_call, statement, setup)
            self.account.costs[name] = (statement, micros)
            said = f"{name}: `{statement}` costs {micros:.3g} microseconds"
            arguments = {"statement": statement, "setup": setup}
            await self._store(client, [Finding("time_call", arguments, took, said, f"cost.{name}", round(micros, 4))])
        self.say(f"{len(TIMED)} calls timed")
        return asked

    async def _look(self, client: Client, asked: dict[str, int]) -> None:
        """Search, query and sum up, as the next conversation would."""
        name = USED[0]
        began = time.perf_counter()
        found = await call(client, "session_search", text=f"{name} used", session_id=self.session_id)
        took = (time.perf_counter() - began) * 1000
        seqs = [hit["seq"] for hit in found["hits"]]
        self._check(
            f"session_search finds what was said of {name}",
            [] if asked[name] in seqs else [f"Message {asked[name]} is not among the hits {seqs}."],
            f"message {asked[name]}, among {self.notebook_seq:,} messages, in {took:.1f} ms",
        )
        found = await call(client, "session_query", text="standard library", status="active", tags=TAGS)
        ids = [session["session_id"] for session in found["sessions"]]
        self._check(
            "session_query finds the session by its words and tags",
            [] if self.session_id in ids else [f"{self.session_id} is not among {ids}."],
            f"{len(ids)} found",
        )
        stats = await call(client, "session_stats", session_id=self.session_id, group_by="tool")
        groups = {group["group"]: group["invocations"] for group in stats["groups"]}
        runs = len(
            {w.arguments["invocation_id"] for w in self.notebook.writes if w.tool == "session_record_invocation"}
        )
        right = (stats["totals"]["invocations"], groups.get("measure_module")) == (runs, len(self.files))
        self._check(
            "session_stats counts each run of a tool once",
            [] if right else [f"It says {stats['totals']['invocations']} and {groups}, and there were {runs} runs."],
            f"{runs:,} runs, {stats['totals']['duration_ms'] / 1000:.1f} s of work, "
            f"{len(self.files):,} of them measure_module",
        )

    async def _end(self, client: Client, asked: dict[str, int]) -> None:
        fork = await call(client, "session_fork", session_id=self.session_id, at_seq=asked["uses"])
        self.account.fork_id = fork["session_id"]
        same = (fork["message_count"], fork.get("parent_id")) == (asked["uses"], self.session_id)
        self._check(
            "session_fork copies the messages up to one, so that another way can be tried from there",
            [] if same else [f"It has {fork['message_count']} messages, not {asked['uses']}."],
            f"{fork['session_id']} has messages 1 to {asked['uses']:,}, from before the calls were timed",
        )
        largest = self.account.modules[0]
        summary = (
            f"{len(self.modules):,} modules with {sum(module.lines for module in self.modules):,} lines; "
            f"the largest is {largest.name} with {largest.lines:,}."
        )
        await self._say(client, "assistant", summary)
        complete = self.notebook.note("session_complete", session_id=self.session_id, summary=summary)
        await self._send(client, [complete])
        stored = await self._stored(client)
        faults = broken_promises(self.notebook.writes, stored)
        if (stored.head["status"], stored.head.get("summary")) != ("completed", summary):
            faults.append(f"The session is {stored.head['status']}, with the summary {stored.head.get('summary')!r}.")
        self._check(
            "At the end everything is there once, and the session is completed with a summary",
            faults,
            f"{len(stored.messages):,} messages, {len(stored.data):,} keys, {len(stored.records):,} records",
        )
        self.account.stored = {
            "messages": len(stored.messages),
            "keys": len(stored.data),
            "records": len(stored.records),
            "writes": self.notebook.acknowledged,
        }

    # writing

    @property
    def notebook_seq(self) -> int:
        """The number of the last message that was acknowledged."""
        return max(write.answer["seq"] for write in self.notebook.writes if write.answer and "seq" in write.answer)

    async def _say(self, client: Client, role: str, content: str) -> int:
        write = self.notebook.note("session_add_message", session_id=self.session_id, role=role, content=content)
        return int((await self.notebook.send(client, write))["seq"])

    async def _store(self, client: Client, findings: Iterable[Finding], *, may_break: bool = False) -> None:
        """Record, say and store each finding."""
        writes: list[Write] = []
        for finding in findings:
            run = f"{self.notebook.run}-run-{len(self.notebook.writes) + 1:04}"
            about: dict[str, Any] = {"session_id": self.session_id, "tool_name": finding.tool, "invocation_id": run}
            writes += [
                self.notebook.note(
                    "session_record_invocation",
                    arguments=finding.arguments,
                    result=json.dumps(finding.value),
                    duration_ms=round(finding.duration_ms, 3),
                    **about,
                ),
                self.notebook.note("session_add_message", role="tool", content=finding.said, **about),
                self.notebook.note("session_set", session_id=self.session_id, key=finding.key, value=finding.value),
            ]
        began = time.perf_counter()
        await self._send(client, writes, may_break=may_break)
        self.account.seconds["writing"] = self.account.seconds.get("writing", 0.0) + time.perf_counter() - began

    async def _send(self, client: Client, writes: Iterable[Write], *, may_break: bool = False) -> None:
        """Send writes, many at a time; with `may_break` a server may die, and nothing more is sent to it."""
        limiter = anyio.CapacityLimiter(IN_FLIGHT)
        gone = anyio.Event()

        async def send(write: Write) -> None:
            async with limiter:
                if gone.is_set():
                    return
                try:
                    await self.notebook.send(client, write)
                except (MCPError, anyio.ClosedResourceError, anyio.BrokenResourceError):
                    if not may_break:
                        raise
                    gone.set()

        async with anyio.create_task_group() as group:
            for write in writes:
                group.start_soon(send, write)

    async def _stored(self, client: Client) -> Stored:
        keys = [write.arguments["key"] for write in self.notebook.writes if write.tool == "session_set"]
        return await read_back(client, self.session_id, keys)

    def _check(self, what: str, faults: list[str], detail: str) -> None:
        self.account.checks.append(Check(what, faults, detail))
        self.say(f"{'not so' if faults else 'checked'}: {what}")


async def _timed(function: Callable[..., Any], *arguments: Any) -> tuple[Any, float]:
    """What a tool returns, and how many milliseconds it took."""

    def run() -> tuple[Any, float]:
        began = time.perf_counter()
        result = function(*arguments)
        return result, (time.perf_counter() - began) * 1000

    return await anyio.to_thread.run_sync(run)


def _told(module: Module) -> str:
    parts = [
        f"{module.name}: {module.lines:,} lines, {module.bytes:,} bytes in {counted(module.files, 'file')}",
        f"{counted(module.functions, 'function')}, {counted(module.classes, 'class', 'classes')}",
    ]
    if module.longest.size:
        parts.append(
            f"the longest function is {module.longest.name}, {module.longest.size:,} lines, at {module.longest.where}"
        )
    if module.deepest.size:
        parts.append(f"nested {module.deepest.size} deep at {module.deepest.where}")
    if module.imports:
        parts.append(f"imports {', '.join(module.imports)}")
    return "; ".join(parts) + "."
