"""Programs that stand in for `claude`, `codex` and `copilot`: real processes, which write down how they were called."""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.processes import ROOT, until

RESULT = {
    "type": "result",
    "subtype": "success",
    "is_error": False,
    "result": "It is in auth.py:3.",
    "session_id": "75e2167f",
    "num_turns": 3,
    "total_cost_usd": 0.0787,
    "usage": {
        "input_tokens": 5,
        "cache_creation_input_tokens": 20,
        "cache_read_input_tokens": 300,
        "output_tokens": 60,
    },
    "modelUsage": {
        "claude-haiku-4-5": {"costUSD": 0.0007},
        "claude-sonnet-4-5": {"costUSD": 0.078, "contextWindow": 200000},
    },
}
"""What Claude Code prints with `--output-format json`."""
EVENTS = (
    {"type": "thread.started", "thread_id": "0199a213"},
    {"type": "turn.started"},
    {"type": "item.completed", "item": {"id": "item_0", "type": "reasoning", "text": "Looking"}},
    {"type": "item.completed", "item": {"id": "item_1", "type": "agent_message", "text": "I look."}},
    {"type": "item.completed", "item": {"id": "item_2", "type": "agent_message", "text": "It is in auth.py:3."}},
    {"type": "turn.completed", "usage": {"input_tokens": 120, "cached_input_tokens": 100, "output_tokens": 45}},
)
"""What `codex exec --json` prints."""


def lines(*events: Any) -> str:
    return "".join(f"{json.dumps(event)}\n" for event in events)


def gone(pid: int) -> bool:
    """Whether there is no such process, or what is left of it waits for its parent to look."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def commands() -> list[str]:
    """How the processes that are there were called."""
    found: list[str] = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it has gone
            found.append(process.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return found


class Fake:
    """A program of that name in a folder; `plan`: stdout (or answers, one a call), stderr, code, and what
    else it does.
    """

    def __init__(self, folder: Path, name: str, **plan: Any) -> None:
        folder.mkdir(exist_ok=True)
        self.path = folder / name
        self.path.write_text(
            f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(ROOT)!r})\n"
            "from tests.agents.acting import act\nact(__file__)\n",
            encoding="utf-8",
        )
        self.path.chmod(0o755)
        self._beside = folder / f"{name}.plan"
        self._beside.write_text(json.dumps(plan), encoding="utf-8")

    @property
    def seen(self) -> dict[str, Any]:
        """argv, stdin, env and cwd of its last call."""
        return json.loads(self.path.with_suffix(".seen").read_text(encoding="utf-8"))

    def waits(self) -> None:
        """Return once it was asked."""
        until(self.path.with_suffix(".seen").exists)

    def release(self) -> None:
        """Let one that is held go on."""
        self.path.with_suffix(".released").touch()

    def started(self) -> list[int]:
        """The processes that are there, once all that are to be are."""
        file = self.path.with_suffix(".pids")
        until(lambda: file.exists() and file.read_text(encoding="utf-8").endswith("\n"))
        return [int(pid) for pid in file.read_text(encoding="utf-8").split()]
