"""`memento query`: DuckDB over a published dataset."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from curation.query import canned, check_dataset, run_query

DEFAULT = Path("out/demo")
MAX_ROWS = 100
WIDE = 220  # columns, where the output is no terminal


def main(sql: str | None, output: Path | None, *, as_csv: bool) -> None:
    """Run SQL or a canned query; without either, list the canned ones.

    Raises:
        QueryError: no dataset in `output`, or DuckDB refuses the statement.
    """
    if output is not None:
        check_dataset(output)
    if sql is None:
        table = Table("name", "what it answers", title='memento query NAME, or memento query "SELECT ..."')
        for name, query in canned().items():
            table.add_row(name, query.title)
        Console().print(table)
        return
    answer = run_query(output or DEFAULT, sql, limit=None if as_csv else MAX_ROWS)
    if as_csv:
        writer = csv.writer(sys.stdout)
        writer.writerow(answer.columns)
        writer.writerows(answer.rows)
        return
    console = Console() if sys.stdout.isatty() else Console(width=WIDE)
    table = Table()
    for column in answer.columns:
        table.add_column(column, overflow="fold")
    for row in answer.rows:
        table.add_row(*("" if value is None else _cell(value) for value in row))
    console.print(table)
    if answer.more:
        console.print(f"the first {MAX_ROWS} rows; all of them with --csv", style="dim")


def _cell(value: object) -> str:
    return (
        f"{value:.3f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value).replace("[", "\\[")
    )
