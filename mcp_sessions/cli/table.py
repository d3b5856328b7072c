"""Tables: drawn by rich on a terminal; elsewhere aligned text, one line an item, for grep and awk."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from shutil import get_terminal_size

import click


@dataclass(frozen=True)
class Column:
    """A column; `styles` are rich's, by the text of a cell."""

    name: str
    right: bool = False
    styles: Mapping[str, str] = field(default_factory=dict[str, str])


def on_terminal() -> bool:
    """Whether a person looks at stdout directly."""
    return sys.stdout is not None and sys.stdout.isatty()  # pyright: ignore[reportUnnecessaryComparison] - None where it is closed


def in_colour() -> bool:
    """Whether stdout is a terminal that takes colours, and whoever sits there has not said no (NO_COLOR)."""
    return on_terminal() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def terminal_width() -> int:
    """How many characters a line of the terminal has."""
    return get_terminal_size().columns


def print_table(columns: Sequence[Column], rows: Iterable[Sequence[str]]) -> None:
    """Print rows under their columns' names. The cells are on one line and visible; the last one may be cut."""
    held = list(rows)
    widths = [max(map(len, (column.name, *cells))) for column, *cells in zip(columns, *held, strict=True)]
    if on_terminal():
        _draw(columns, held, widths)
        return
    for cells in ([column.name for column in columns], *held):
        click.echo("  ".join(_padded(*place) for place in zip(cells, widths, columns, strict=True)).rstrip())


def _padded(cell: str, width: int, column: Column) -> str:
    return cell.rjust(width) if column.right else cell.ljust(width)


def _draw(columns: Sequence[Column], rows: Sequence[Sequence[str]], widths: Sequence[int]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(file=sys.stdout, color_system="auto" if in_colour() else None, width=terminal_width())
    room = console.width - sum(widths[:-1]) - 2 * (len(columns) - 1)
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    for column, width in zip(columns, widths, strict=True):
        last = column is columns[-1]
        table.add_column(
            column.name,
            justify="right" if column.right else "left",
            no_wrap=True,
            overflow="ellipsis" if last else "fold",
            width=min(width, max(8, room)) if last else width,
        )
    for cells in rows:
        # Text, not str, in which rich would read marks of its own.
        table.add_row(
            *(Text(cell, style=column.styles.get(cell, "")) for cell, column in zip(cells, columns, strict=True))
        )
    console.print(table)
