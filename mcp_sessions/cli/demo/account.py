"""What the demo tells in the end: on a screen, or as JSON."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import click

from ..table import Column, in_colour, print_table
from ..text import json_text
from .library import Module


class Check(NamedTuple):
    """Something that must be so, what speaks against it, and the figures."""

    what: str
    faults: list[str]
    detail: str


@dataclass
class Account:
    """Findings, figures and checks of one demo."""

    python: str
    library: str
    session_id: str = ""
    fork_id: str = ""
    modules: list[Module] = field(default_factory=list[Module])
    """The largest first."""
    imported: list[tuple[str, int]] = field(default_factory=list[tuple[str, int]])
    uses: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    costs: dict[str, tuple[str, float]] = field(default_factory=dict[str, tuple[str, float]])
    """name -> statement, microseconds."""
    killed: dict[str, int] = field(default_factory=dict[str, int])
    stored: dict[str, int] = field(default_factory=dict[str, int])
    seconds: dict[str, float] = field(default_factory=dict[str, float])
    checks: list[Check] = field(default_factory=list[Check])

    @property
    def faults(self) -> list[str]:
        """All that is not as it should be."""
        return [fault for check in self.checks for fault in check.faults]

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "python": self.python,
            "library": self.library,
            "session_id": self.session_id,
            "fork_id": self.fork_id,
            "largest": [
                {"module": module.name, "lines": module.lines, "bytes": module.bytes, "functions": module.functions}
                for module in self.modules[:10]
            ],
            "most_imported": dict(self.imported),
            "uses": {name: {"places": len(places), "first": places[:5]} for name, places in self.uses.items()},
            "microseconds": {name: round(micros, 4) for name, (_, micros) in self.costs.items()},
            "killed": self.killed,
            "stored": self.stored,
            "seconds": {name: round(seconds, 3) for name, seconds in self.seconds.items()},
            "checks": [
                {"what": check.what, "ok": not check.faults, "detail": check.detail, "faults": check.faults}
                for check in self.checks
            ],
        }


def print_account(account: Account) -> None:
    """The account for a person, on stdout."""
    lines = sum(module.lines for module in account.modules)
    files = sum(module.files for module in account.modules)
    click.echo(
        f"The standard library of Python {account.python}: {len(account.modules):,} modules, {files:,} files, "
        f"{lines:,} lines in {account.library}"
    )
    _title("The largest modules")
    columns = [Column(name, right=True) for name in ("lines", "bytes", "functions")]
    print_table(
        [Column("module"), *columns, Column("longest function")],
        [
            (
                module.name,
                f"{module.lines:,}",
                f"{module.bytes:,}",
                f"{module.functions:,}",
                f"{module.longest.name}, {module.longest.size:,} lines" if module.longest.size else "-",
            )
            for module in account.modules[:5]
        ],
    )
    click.echo("Most imported: " + ", ".join(f"{name} by {count}" for name, count in account.imported))
    _title("Where a function is used")
    print_table(
        [Column("function"), Column("places", right=True), Column("first")],
        [(name, f"{len(places):,}", ", ".join(places[:3])) for name, places in account.uses.items()],
    )
    _title("What a call costs")
    print_table(
        [Column("call"), Column("microseconds", right=True)],
        [(statement, f"{micros:,.3f}") for statement, micros in account.costs.values()],
    )
    _title("What happened to the server")
    seconds, killed, stored = account.seconds, account.killed, account.stored
    click.echo(
        f"It was started in {seconds['started']:.1f} s, killed in the middle (SIGKILL) with "
        f"{killed['in_flight']} calls in flight and {killed['acknowledged']:,} acknowledged,\n"
        f"started again in {seconds['restarted']:.1f} s, and went on. {stored['writes']:,} writes were acknowledged; "
        f"the findings' took {seconds['writing']:.1f} s. All in all {seconds['all']:.1f} s."
    )
    _title("What was checked")
    for check in account.checks:
        click.echo(f"{'not so' if check.faults else 'ok':7} {check.what}")
        for line in (f"{check.detail}.", *check.faults[:10]):
            click.echo(click.wrap_text(line, 100, "        ", "        "))


def print_next(commands: dict[str, str]) -> None:
    """Where to look next: commands to paste, and what each is for."""
    _title("Where to look next")
    for command, purpose in commands.items():
        click.echo(f"{command}\n    {purpose}")


def print_json(account: Account, store: str, commands: dict[str, str]) -> None:
    """The account as JSON, on stdout."""
    click.echo(json_text({**account.to_dict(), "store": store, "next": list(commands)}, indent=2))


def _title(text: str) -> None:
    click.echo("\n" + (click.style(text, bold=True) if in_colour() else text))
