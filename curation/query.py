"""SQL over a published dataset: any statement, or one of the queries that come with the package."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from curation.publishing.database import attach_views, describe

QUERIES = Path(__file__).parent / "queries"


class QueryError(ValueError):
    """The dataset or the statement cannot be used; the message is one line for the user."""


@dataclass(frozen=True)
class Query:
    """A query of the package: its name, what it answers, and its SQL."""

    name: str
    title: str
    sql: str


@dataclass(frozen=True)
class Answer:
    """Columns and rows of a result, values as Python objects; `rows` is cut at a limit if `more`."""

    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]
    more: bool = False


def canned() -> dict[str, Query]:
    """The queries of the package by name; the first line of a file, a comment, is its title."""
    found = {}
    for path in sorted(QUERIES.glob("*.sql")):
        sql = path.read_text(encoding="utf-8")
        title = sql.splitlines()[0].removeprefix("--").strip()
        found[path.stem] = Query(path.stem, title, sql)
    return found


def check_dataset(output: Path) -> None:
    """Refuse a folder without a published dataset.

    Raises:
        QueryError: there is none in `output`.
    """
    if not (output / "tables").is_dir():
        raise QueryError(
            f"{output}: no published dataset (no folder `tables`); make one with `memento curate`, or name "
            "the folder that holds annotations.duckdb"
        )


def connect(output: Path) -> duckdb.DuckDBPyConnection:
    """A connection with views over the dataset in `output`, wherever it was published or moved to.

    The database is in memory: whatever a statement makes or drops, the dataset stays as it is.

    Raises:
        QueryError: there is no published dataset in `output`.
    """
    check_dataset(output)
    connection = duckdb.connect()
    try:
        attach_views(connection, output.absolute())
        describe(connection)
    except duckdb.Error as error:
        connection.close()
        raise QueryError(f"{output}: the published tables cannot be read: {_line(error)}") from error
    return connection


def run_query(output: Path, query: str, *, limit: int | None = None) -> Answer:
    """Run a query of the package by name, or any SQL.

    Args:
        output: the dataset folder.
        query: a name of `canned()`, or SQL.
        limit: rows to return at most; all if None.

    Raises:
        QueryError: no dataset there, no query or several in one, or DuckDB refuses it; with DuckDB's reason.
    """
    queries, name = canned(), query.strip(" \t\n;")
    if name.isidentifier() and name not in queries:
        raise QueryError(f"no query named {name!r}; there are: {', '.join(queries)}")
    sql = queries[name].sql if name in queries else query
    with connect(output) as connection:
        try:
            asked = [s.type == duckdb.StatementType.SELECT for s in connection.extract_statements(sql)]
            if not asked:
                what = "nothing but a comment" if name else "empty"
                raise QueryError(f"the query is {what}; give SQL, or a name of: {', '.join(queries)}")
            if any(asked[:-1]):
                raise QueryError("several queries in one: only the last would be answered; ask one at a time")
            result = connection.execute(sql)
            columns = tuple(column[0] for column in result.description or ())
            rows = result.fetchall() if limit is None else result.fetchmany(limit + 1)
        except duckdb.Error as error:
            raise QueryError(_line(error)) from error
    more = limit is not None and len(rows) > limit
    return Answer(columns, rows[:limit], more)


def _line(error: BaseException) -> str:
    """DuckDB's reason as one line, without the statement and its caret, which need lines of their own."""
    told = re.sub(r"\n+LINE \d+: .*\n *\^+", "", str(error))
    return " ".join(told.split())
