"""A report's tables in a terminal, in the papers' layout; wide ones become several blocks of columns."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from benchmark.encoders.weights import NO_PACKAGE, REMOVE, TABLE, command
from benchmark.report.layout import (
    ARROWS,
    Column,
    Entry,
    ReportedTable,
    Row,
    Table,
    computed,
    fixed,
    heading,
    interval,
    shown,
)
from benchmark.report.schema import ReportData
from benchmark.words import counted

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table as RichTable

NAME_WIDTH = 30
"""Of the first column at most; longer names of methods are folded."""
READABLE = 12
"""Width up to which a line of a head is kept whole."""
BETWEEN = 3
"""Characters between columns, padding included."""


def print_report(data: ReportData, console: Console | None = None) -> None:
    """Print what could be computed: warnings, tables, notes; then, in a line, what could not and why.

    Numbers that a paper reports stand below a line of their own, for the columns that were measured too.
    """
    from rich.console import Console as RichConsole
    from rich.text import Text

    console = console or RichConsole()
    for warning in data.warnings:
        console.print(Text(f"! {warning}", style="yellow"))
    for one in computed(data):
        for block in blocks(one, console.width):
            console.print()
            console.print(block)
        for note in [*one.notes, *_sources(one)]:
            console.print(Text(note, style="dim"))
    console.print()
    for flag in data.flags:
        console.print(Text(f"! {flag}", style="yellow"))
    if line := unavailable(data):
        console.print(Text(line), soft_wrap=True)  # so that its commands can be copied


def unavailable(data: ReportData) -> str:
    """The columns that could not be computed, and the command that would bring them; empty if there are none.

    One line, however many columns and encoders: `results.json` and the page have each reason in full.
    """
    lacking = [metric for metric in data.metrics if metric.reason]
    if not lacking:
        return ""
    titles = "; ".join(dict.fromkeys(metric.title for metric in lacking))
    head = f"Without a number: {counted(len(lacking), 'column')} ({titles})"
    told = lacking_encoders(data) or "; ".join(dict.fromkeys(metric.reason for metric in lacking))
    return f"{head}. {told}" if told[:1].isupper() else f"{head}: {told}"


def lacking_encoders(data: ReportData) -> str:
    """What is to be done for the encoders that are not here, in a line; empty if nothing is missing."""
    missing = {one.name: one.missing for one in data.encoders if one.missing and one.name in TABLE}
    # Encoders that lack the same package say the same.
    packages = dict.fromkeys(text.split(": ")[-1] for text in missing.values() if NO_PACKAGE in text)
    if packages:
        return f"First the packages, then the weights (docs/evaluate.md): {'; '.join(packages)}"
    pulls = [name for name, text in missing.items() if command(name) in text and REMOVE not in text]
    found = [text for name, text in missing.items() if name not in pulls]
    if pulls:
        found.append(f"Weights are missing; bring them with: {command(*pulls)}")
    return ". ".join(found)


def blocks(one: Table, width: int) -> Iterator[RenderableType]:
    """A table as one or more renderables of rich that are not wider than `width` characters."""
    from rich.text import Text

    title = heading(one)
    for start, end in _spans(one, width):
        made = _block(one, start, end)
        made.title = Text(title if start == 0 else f"{title}, continued")
        yield made


def _spans(one: Table, width: int) -> list[tuple[int, int]]:
    """Half-open ranges of columns that fit beside the names; at least one column each."""
    names = [row.method for row in [*one.rows, *one.controls]]
    names += [name for reported in one.reported for name, _ in reported.rows]
    room = width - min(NAME_WIDTH, max(map(len, [*names, "measured"]))) - BETWEEN
    found, start, used = [], 0, 0
    for place, column in enumerate(one.columns):
        wide = _width(one, place, column) + BETWEEN
        if place > start and used + wide > room:
            found.append((start, place))
            start, used = place, 0
        used += wide
    return [*found, (start, len(one.columns))]


def _width(one: Table, place: int, column: Column) -> int:
    lines = _head(column).split("\n")
    words = [word for line in lines for word in line.split(" ")] + [line[:READABLE] for line in lines]
    spreads = [_spread(row.entries[place], column) for row in [*one.rows, *one.controls]]
    spreads += [row.entries[place].mark for row in one.rows]
    return max(map(len, [*words, *spreads, "0.0000"]))


def _block(one: Table, start: int, end: int) -> RichTable:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table as RichTable
    from rich.text import Text

    made = RichTable(
        box=SIMPLE_HEAD, title_justify="left", title_style="bold", pad_edge=False, padding=(0, 1)
    )
    made.add_column("measured", max_width=NAME_WIDTH, overflow="fold")
    for place in range(start, end):
        column = one.columns[place]
        wide = _width(one, place, column)
        made.add_column(_head(column), justify="right", min_width=wide, max_width=wide, overflow="fold")
    for row in one.rows:
        made.add_row(Text(row.method), *_cells(row, one.columns, start, end))
    if one.controls:
        _divider(made, "controls", "dim")
        for row in one.controls:
            made.add_row(Text(row.method), *_cells(row, one.columns, start, end), style="dim")
    for reported in _shown(one):
        _divider(made, f"reported by {reported.paper}", "italic dim")
        for name, values in reported.rows:
            made.add_row(Text(name), *map(fixed, values[start:end]), style="italic dim")
    return made


def _divider(made: RichTable, text: str, style: str) -> None:
    from rich.text import Text

    made.add_section()
    made.add_row(Text(text), style=style)


def _cells(row: Row, columns: Sequence[Column], start: int, end: int) -> list[RenderableType]:
    return [_cell(row.entries[place], columns[place]) for place in range(start, end)]


def _cell(entry: Entry, column: Column) -> RenderableType:
    from rich.text import Text

    if entry.cell.value is None:
        return Text(entry.dash, style="dim")
    text = Text(shown(entry.cell.value, column.metric), style={1: "bold", 2: "underline"}.get(entry.rank, ""))
    if spread := _spread(entry, column):
        text.append(f"\n{spread}", style="not bold not underline dim")
    if entry.mark:
        text.append(f"\n{entry.mark}", style="not bold not underline yellow")
    return text


def _spread(entry: Entry, column: Column) -> str:
    """`.4821 to .5103`: an interval without zeros that all of them have."""
    text = interval(entry.cell, column.metric)
    return " to ".join(re.sub(r"^(-?)0\.", r"\1.", end) for end in text[1:-1].split(", ")) if text else ""


def _head(column: Column) -> str:
    unit = "" if column.metric.unit in ("cosine", "score") else f"\n{column.metric.unit}"
    head = f"{column.group}\n{column.head}" if column.head else column.group
    arrow = f"\N{NO-BREAK SPACE}{ARROWS[column.arrow]}" if column.arrow else ""
    return f"{head}{arrow}{unit}"


def _shown(one: Table) -> list[ReportedTable]:
    return [reported for reported in one.reported if not reported.ablation]


def _sources(one: Table) -> list[str]:
    found = []
    for reported in _shown(one):
        found.append(f"Rows reported by {reported.paper} were not measured here: {reported.source}.")
        found += [" ".join(note.split()) for note in reported.notes]
    return found
