"""`memento query`: DuckDB over a published dataset."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

from rich.table import Table

from curation.query import QueryError, canned, check_dataset, run_query
from pipelines.terminal import make_console, print_line, print_rows

DEFAULT = Path("out/demo")
MAX_ROWS = 100


def one(words: list[str]) -> str | None:
    """The query of a command line: its text, a name, or the text of a file that ends in `.sql`.

    Raises:
        QueryError: it was not put in quotes, so that the shell made several words of it; an option that does
            not exist; a file that cannot be read.
    """
    for word in words:
        if word.startswith("-") and len(word.split()) == 1 and word.strip("-"):  # SQL comments have spaces
            raise QueryError(f"no such option: {word}; there are --output (-o) and --csv")
    if len(words) > 1:
        raise QueryError('put the query in quotes: memento query "SELECT ..."')
    if not words:
        return None
    named = words[0].endswith(".sql") and (len(words[0].split()) == 1 or Path(words[0]).is_file())
    return from_file(Path(words[0])) if named else words[0]


def from_file(path: Path) -> str:
    """The query in a file.

    Raises:
        QueryError: it cannot be read as text.
    """
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise QueryError(f"{path}: no text in UTF-8") from error
    except OSError as error:
        raise QueryError(
            f"{path}: {error.strerror}; give a file with a query, or the query itself"
        ) from error


def main(sql: str | None, output: Path | None, *, as_csv: bool) -> None:
    """Run SQL or a canned query; without either, list the canned ones.

    Raises:
        QueryError: no dataset in `output`, or DuckDB refuses the statement.
    """
    if output is not None:
        check_dataset(output)
    if sql is None:
        table = Table(title='memento query NAME, or memento query "SELECT ..."')
        table.add_column("name", no_wrap=True)
        table.add_column("what it answers", overflow="fold")
        for name, query in canned().items():
            table.add_row(name, query.title)
        make_console().print(table)
        return
    answer = run_query(output or DEFAULT, sql, limit=None if as_csv else MAX_ROWS)
    if as_csv:
        writer = csv.writer(sys.stdout)
        writer.writerow(answer.columns)
        writer.writerows(answer.rows)
        return
    console = make_console()
    print_rows(console, answer.columns, [[shown(value) for value in row] for row in answer.rows])
    if answer.more:
        print_line(console, f"the first {MAX_ROWS} rows; all of them with --csv", style="dim")


def shown(value: object) -> str:
    """A value as a cell: nothing for null, numbers without idle decimals."""
    if value is None:
        return ""
    return f"{value:.3f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
