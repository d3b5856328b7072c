"""How time is taken here: always against a control, in turn with it, in one loop.

Absolute times say little on a machine that others use too. `Raw`, 300 bytes written and synced in the directory of
the stores, is the unit for whatever must reach the disk.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Act = Callable[[], object]
BYTES = b"x" * 299 + b"\n"
sync = getattr(os, "fdatasync", os.fsync)


@dataclass(frozen=True)
class Row:
    """One goal: what is measured, at which level, and how it is to come out."""

    name: str
    level: Literal["storage", "call", "MCP", "CLI"]
    what: str
    sense: Literal["<=", ">="]
    goal: float | None
    """None: nothing was promised, and the figure is only shown."""
    unit: str

    def told_goal(self) -> str:
        """The goal in words."""
        return "shown" if self.goal is None else f"{self.sense} {self.goal:g} {self.unit}".strip()

    def reached(self, figure: float) -> bool:
        """Whether the figure is as good as the goal."""
        if self.goal is None:
            return True
        return figure <= self.goal if self.sense == "<=" else figure >= self.goal


@dataclass(frozen=True)
class Figures:
    """What one run gave: a figure for each of its rows, and what stands behind them."""

    figures: Mapping[str, float]
    detail: Mapping[str, Any] = field(default_factory=dict[str, Any])


class Raw:
    """Write 300 bytes and sync, in a directory: the unit."""

    def __init__(self, directory: Path) -> None:
        self._fd = os.open(directory / "raw", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def __call__(self) -> None:
        os.write(self._fd, BYTES)
        sync(self._fd)

    def close(self) -> None:
        os.close(self._fd)


def p50(samples: Sequence[float]) -> float:
    """The median."""
    return statistics.median(samples)


def p10(samples: Sequence[float]) -> float:
    """What the fastest tenth stays under: nearer to the work itself, where others use the machine too."""
    return sorted(samples)[len(samples) // 10]


def in_turn(acts: Sequence[Act], rounds: int, before: Sequence[Act] = ()) -> list[list[float]]:
    """Seconds of each act, taken in turn; `before` each its own preparation, which is not timed."""
    samples: list[list[float]] = [[] for _ in acts]
    clock = time.perf_counter
    for _ in range(rounds):
        for place, act in enumerate(acts):
            if before:
                before[place]()
            start = clock()
            act()
            samples[place].append(clock() - start)
    return samples


def ratio_in_turn(act: Act, control: Act, rounds: int, before: Sequence[Act] = ()) -> tuple[float, dict[str, Any]]:
    """p50 of the act over p50 of the control, and both in microseconds; a tenth of the rounds is warm-up.

    `quiet` is the same ratio of the fastest tenth: where it is far off, the machine was busy with other things.
    `before` is what goes before the control, and before the act.
    """
    in_turn([control, act], max(rounds // 10, 1), before)
    controls, acts = in_turn([control, act], rounds, before)
    detail = {"us": micros(acts), "control_us": micros(controls), "quiet": round(p10(acts) / p10(controls), 2)}
    return p50(acts) / p50(controls), detail


def micros(samples: Sequence[float]) -> float:
    """p50 in microseconds."""
    return round(p50(samples) * 1e6, 1)


def rate(acts: Iterable[Act]) -> float:
    """Acts a second, one after the other."""
    start, count = time.perf_counter(), 0
    for act in acts:
        act()
        count += 1
    return count / (time.perf_counter() - start)


def resident_mb(pid: int | str = "self") -> float:
    """Memory of a process that is in RAM, in MB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="utf-8").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
