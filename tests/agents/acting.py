"""What the programs of `fakes` do; they are many, so each imports no more than it needs."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path


def act(file: str) -> None:
    """As a program: do what the plan beside it says."""
    program = Path(file)
    plan = json.loads(program.with_suffix(".plan").read_text(encoding="utf-8"))
    if not plan.get("deaf"):
        said = sys.stdin.read()
        seen = {"argv": sys.argv[1:], "stdin": said, "env": dict(os.environ), "cwd": str(Path.cwd())}
        whole = program.with_suffix(f".{os.getpid()}")
        whole.write_text(json.dumps(seen), encoding="utf-8")
        whole.replace(program.with_suffix(".seen"))
    if plan.get("children"):
        _start_children(program)
    if plan.get("held"):
        from tests.processes import until

        until(program.with_suffix(".released").exists)
    stdout = _next(program, plan["answers"]) if "answers" in plan else plan.get("stdout", "")
    sys.stdout.write(stdout * plan.get("times", 1))
    sys.stderr.write(plan.get("stderr", ""))
    sys.stdout.flush()
    if plan.get("hangs"):
        time.sleep(3600)
    sys.exit(plan.get("code", 0))


def _next(program: Path, answers: list[str]) -> str:
    """One after the other."""
    given = program.with_suffix(".given")
    count = int(given.read_text(encoding="utf-8")) if given.exists() else 0
    given.write_text(str(count + 1), encoding="utf-8")
    return answers[count]


def _start_children(program: Path) -> None:
    """One child, and one that leads a session of its own; both hold our stdout open."""
    import subprocess

    sleeping = [sys.executable, "-c", "import time; time.sleep(3600)"]
    children = [subprocess.Popen(sleeping), subprocess.Popen(sleeping, start_new_session=True)]
    pids = [os.getpid(), *(child.pid for child in children)]
    program.with_suffix(".pids").write_text(" ".join(map(str, pids)) + "\n", encoding="utf-8")
