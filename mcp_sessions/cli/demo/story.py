"""The demo itself: an investigation of the standard library that is cut off by a kill, and goes on.

Every finding comes from a tool that really ran. It is recorded, said and stored by three calls of the server, and
these are sent many at a time, so that the kill always meets some of them half way.
"""

from __future__ import annotations

import platform
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from anyio import to_thread
from anyio.abc import Process
from mcp import Client

from .account import Account, Check
from .findings import TIMED, USED, Finding, imported, listed, measured, timed, used
from .library import Module, library_folder
from .promises import Notebook, Stored, Write, broken_promises, call, read_back
from .server import serving

BATCH = 32
TAGS = ["demo", "standard-library"]
QUESTIONS = (
    "How is the standard library of this Python made? Which modules are largest, which are imported most, where are "
    "some of its functions used, and what does a call cost?"
)


class Demo:
    """One run over the store at `url`; `say` gets a line at each step."""

    def __init__(self, url: str, home: Path, say: Callable[[str], None], folder: Path | None = None) -> None:
        self.url = url
        self.home = home
        self.say = say
        self.folder = folder or library_folder()
        self.files: dict[str, int] = {}
        """How many there are of each module."""
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
        self.files, finding = await to_thread.run_sync(listed, self.folder)
        await self._store(client, [finding])

    async def _measure(self, client: Client, names: Sequence[str]) -> int:
        """Measure modules, and write down each finding; how many."""
        for start in range(0, len(names), BATCH):
            await self._store(client, await self._measured(names[start : start + BATCH]))
            self.say(f"{len(self.modules):,} of {len(self.files):,} modules measured and stored")
        return len(names)

    async def _measure_until_killed(self, client: Client, process: Process, names: Sequence[str]) -> int:
        """Kill the server when it has acknowledged half of a batch; how many modules were measured."""
        findings = await self._measured(names[:BATCH])
        half = self.notebook.acknowledged + len(findings) * 3 // 2

        def kill() -> None:
            if self.notebook.acknowledged == half:
                process.kill()

        self.notebook.heard = kill
        await self._store(client, findings, may_break=True)
        self.notebook.heard = lambda: None
        killed = self.account.killed
        killed["acknowledged"] = self.notebook.acknowledged
        killed["in_flight"] = sum(write.sent for write in self.notebook.unanswered)
        self.say(
            f"Server {process.pid} killed while it wrote: {killed['acknowledged']:,} calls acknowledged, "
            f"{killed['in_flight']:,} in flight"
        )
        return len(findings)

    async def _measured(self, names: Iterable[str]) -> list[Finding]:
        findings: list[Finding] = []
        for name in names:
            module, finding = await to_thread.run_sync(measured, name, self.folder)
            self.modules.append(module)
            findings.append(finding)
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
        await self.notebook.send_all(client, [*lost, *again])
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
        ranked, finding = await to_thread.run_sync(imported, self.modules)
        self.account.imported = ranked[:5]
        await self._store(client, [finding])
        largest = sorted(self.modules, key=lambda module: module.lines, reverse=True)
        self.account.modules = largest
        said = ", ".join(f"{module.name} with {module.lines:,} lines" for module in largest[:10])
        await self._say(client, "assistant", f"The largest modules are {said}.")
        asked: dict[str, int] = {}
        for name in USED:
            self.account.uses[name], finding = await to_thread.run_sync(used, name, self.folder)
            await self._store(client, [finding])
            asked[name] = self.notebook.last_seq
        self.say(f"{len(USED)} functions looked for in all files")
        asked["uses"] = asked[USED[-1]]
        for name in TIMED:
            micros, finding = await to_thread.run_sync(timed, name)
            self.account.costs[name] = (TIMED[name][0], micros)
            await self._store(client, [finding])
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
            f"message {asked[name]}, among {self.notebook.last_seq:,} messages, in {took:.1f} ms",
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
        await self.notebook.send_all(client, [complete])
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
                    result=finding.result,
                    duration_ms=round(finding.duration_ms, 3),
                    **about,
                ),
                self.notebook.note("session_add_message", role="tool", content=finding.said, **about),
                self.notebook.note("session_set", session_id=self.session_id, key=finding.key, value=finding.value),
            ]
        began = time.perf_counter()
        await self.notebook.send_all(client, writes, may_break=may_break)
        self.account.seconds["writing"] = self.account.seconds.get("writing", 0.0) + time.perf_counter() - began

    async def _stored(self, client: Client) -> Stored:
        keys = [write.arguments["key"] for write in self.notebook.writes if write.tool == "session_set"]
        return await read_back(client, self.session_id, keys)

    def _check(self, what: str, faults: list[str], detail: str) -> None:
        self.account.checks.append(Check(what, faults, detail))
        self.say(f"{'not so' if faults else 'checked'}: {what}")
