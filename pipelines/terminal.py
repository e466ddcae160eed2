"""What commands print: no name, number or command is cut or broken, at any width and through a pipe."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

WIDE = 220  # columns, where the output is no terminal


def make_console() -> Console:
    """A console as wide as the terminal; where there is none, wide enough for whole lines (or COLUMNS)."""
    if sys.stdout.isatty() or os.environ.get("COLUMNS"):
        return Console()
    return Console(width=WIDE)


def print_line(console: Console, text: str, *, style: str = "") -> None:
    """One line as it is: no markup, no breaks of our own, so that it can be copied whole."""
    console.print(Text(text, style=style), soft_wrap=True, highlight=False)


def print_rows(console: Console, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table; where it is so wide that words would be broken, one block of lines for each row instead."""
    if narrowest(columns, rows) <= console.width:
        table = Table()
        for column in columns:
            table.add_column(Text(column), overflow="fold")
        for row in rows:
            table.add_row(*(Text(value) for value in row))
        console.print(table)
        return
    name_width = max(map(len, columns))
    for number, row in enumerate(rows, 1):
        print_line(console, f"-- row {number} --", style="dim")
        for column, value in zip(columns, row, strict=True):
            print_line(console, f"{column:<{name_width}}  {value}")


def narrowest(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> int:
    """Terminal columns that a table needs at least, frame included, without breaking a word."""
    widths = [len(longest_word(column)) for column in columns]
    for row in rows:
        widths = [max(width, len(longest_word(value))) for width, value in zip(widths, row, strict=True)]
    return sum(widths) + 3 * len(widths) + 1


def longest_word(text: str) -> str:
    """The longest run without white space."""
    return max(text.split(), key=len, default="")
