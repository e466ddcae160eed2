"""`memento refilter`: what a moved threshold would add and remove, from the published scores."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from curation.config import SettingsError, merge, parse_yaml
from curation.presets import settings_of
from curation.query import QueryError
from curation.refilter import (
    Change,
    Film,
    Packed,
    Settings,
    WhatIf,
    compare,
    films_from_tables,
    prepare,
    what_if,
)
from curation.stages.filters import Filters
from curation.stages.sequences import Sequences
from pipelines.terminal import make_console, print_line

MAX_LINES = 20
BEFORE = "Sequences as packed, before later stages (crop, reconstruction targets, ...) reject any."


def main(
    output: Path, changes: dict[str, dict[str, Any]], grid: str | None, preset: str | None = None
) -> None:
    """Print what would stay, enter and leave; or one line per value of a grid.

    Args:
        output: the dataset folder.
        changes: settings by stage name.
        grid: `stage.setting=value,value,...`, if asked for.
        preset: packs with its settings, in which `changes` may change some.

    Raises:
        QueryError: there is no published dataset in `output`.
        SettingsError: a setting or preset does not exist, or has a wrong value.
    """
    if preset is not None:
        changes = merge({Sequences.name: settings_of(preset)}, changes)
    films, settings = read(output)
    changed = settings.changed(changes)
    console = make_console()
    if grid:
        name, values = parse_grid(grid)
        print_line(console, f"{name}: what would be packed with each value", style="bold")
        console.print(grid_table(what_if(films, name, values, changed)))
        print_line(console, BEFORE, style="dim")
        return
    if not changes:
        raise SettingsError(
            "say what to change: --set filters.max_shake=0.03, --preset bridged, or "
            "--grid filters.max_shake=0.02,0.03"
        )
    show(console, compare(films, settings, changed))


def read(output: Path) -> tuple[list[Film], Settings]:
    """The films of a published dataset with all scores, and the settings it was made with."""
    try:
        films, shots = (pq.read_table(output / "tables" / f"{name}.parquet") for name in ("films", "shots"))
        record = json.loads((output / "run.json").read_text())
    except OSError as error:
        raise QueryError(f"{output}: no published dataset; make one with `memento curate`") from error
    known: Mapping[str, Any] = record["settings"]
    made = {name: known[name] for name in (Filters.name, Sequences.name) if name in known}
    return prepare(films_from_tables(films, shots)), Settings().changed(made)


def parse_grid(grid: str) -> tuple[str, list[Any]]:
    """`stage.setting=a,b,c` as the setting's name and the values."""
    name, equals, values = grid.partition("=")
    if not equals or not values:
        raise SettingsError(f"--grid {grid}: expected stage.setting=value,value,...")
    return name, [parse_yaml(value, f"--grid {grid}") for value in values.split(",")]


def grid_table(lines: list[WhatIf]) -> Table:
    """One line per value; narrow enough for 80 columns, whatever the setting is called."""
    table = Table()
    table.add_column("value", no_wrap=True)
    for column in (
        "usable shots", "sequences", "clips", "enter", "leave", "seconds packed", "share of the footage",
    ):  # fmt: skip
        table.add_column(column, justify="right")
    for line in lines:
        share = "-" if line.share is None else f"{line.share:.1%}"
        numbers = (line.usable_shots, line.num_sequences, line.num_clips, line.enter, line.leave)
        table.add_row(json.dumps(line.value), *(str(n) for n in numbers), f"{line.covered_s:.1f}", share)
    return table


def show(console: Console, change: Change) -> None:
    """What stays, enters and leaves."""
    table = Table("", "sequences", "seconds from first to last shot")
    for word, sequences in (("stay", change.stay), ("enter", change.enter), ("leave", change.leave)):
        table.add_row(word, str(len(sequences)), f"{sum(s.end_s - s.start_s for s in sequences):.1f}")
    console.print(table)
    for word, sequences in (("enter", change.enter), ("leave", change.leave)):
        for sequence in sequences[:MAX_LINES]:
            console.print(f"{word}  {line_of(sequence)}", highlight=False, soft_wrap=True, markup=False)
        if len(sequences) > MAX_LINES:
            console.print(f"{word}  ... and {len(sequences) - MAX_LINES} more", style="dim")
    print_line(console, BEFORE, style="dim")
    print_line(
        console, "Nothing was changed. Give the same settings to `memento curate` to make it so.", style="dim"
    )


def line_of(sequence: Packed) -> str:
    """One sequence in one line."""
    return (
        f"{sequence.start_s:8.1f} - {sequence.end_s:8.1f} s, {sequence.num_clips:2d} clips, {sequence.path!r}"
    )
