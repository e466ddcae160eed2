"""Times every query of the package, of the README and of docs/ over a generated set of 1,000,000 clips.

    python -m perf.queries [--clips 1000000] [--keep FOLDER]

The tables have the published schema and are written by the code that publishes. Beside each time stands the
time of a bare full scan in the same run: every value of every column that the query's plan reads, hashed and
counted. A query under 1x of that skips data that it does not need.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pyarrow as pa

from curation.publishing.parquet import ROW_GROUP, write_table
from curation.query import canned, connect
from curation.schema import TABLES

REPOSITORY = Path(__file__).resolve().parents[1]
PAGES = ("README.md", "docs/dataset.md")
LIMIT_S = 1.0
REPEATS = 3

ROWS = Path(__file__).with_name("queries_set.sql")


def generate(folder: Path, clips: int) -> dict[str, int]:
    """Write every table of the published schema; returns rows per table."""
    (folder / "tables").mkdir(parents=True, exist_ok=True)
    counts = {}
    with duckdb.connect() as connection:
        connection.execute(f"SET VARIABLE clips = {clips}")
        connection.execute(ROWS.read_text(encoding="utf-8"))
        for name, schema in TABLES.items():
            reader = connection.sql(f"SELECT * FROM {name}").to_arrow_reader(ROW_GROUP)
            batches = (complete(pa.Table.from_batches([batch]), schema) for batch in reader)
            counts[name] = write_table(folder / "tables" / f"{name}.parquet", schema, batches)
    return counts


def complete(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The table in the published schema; columns that it lacks are null."""
    unknown = set(table.column_names) - set(schema.names)
    assert not unknown, f"not in the schema: {sorted(unknown)}"
    columns = [
        table[field.name].cast(field.type)
        if field.name in table.column_names
        else pa.nulls(len(table), field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def documented() -> dict[str, str]:
    """SELECT statements that users are shown: SQL blocks and `memento query "..."` lines."""
    found = {}
    for page in PAGES:
        path = REPOSITORY / page
        content = path.read_text(encoding="utf-8") if path.exists() else ""
        shown = re.findall(r"```sql\n(.*?)```", content, re.DOTALL)
        shown += re.findall(r'memento query "(SELECT [^"]*)"', content)
        for block in shown:
            for statement in block.split(";"):
                sql = statement.strip()
                if sql.upper().startswith(("SELECT", "WITH", "FROM")) and not re.search(
                    r"films_set|[.]{3}", sql
                ):
                    found[f"{page} {len([k for k in found if k.startswith(page)]) + 1}"] = sql
    return found


def scanned(connection: duckdb.DuckDBPyConnection, sql: str) -> list[tuple[str, list[str]]]:
    """Table and columns of every Parquet scan of the query as it ran."""
    (_, plan) = connection.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {sql}").fetchone()
    found = []
    for node in nodes(json.loads(plan)):
        extra = node.get("extra_info")
        file = re.search(r"(\w+)\.parquet", json.dumps(extra)) if isinstance(extra, dict) else None
        if file:
            columns = extra.get("Projections", [])
            columns = [columns] if isinstance(columns, str) else columns
            found.append((file.group(1), [c for c in columns if c in TABLES[file.group(1)].names]))
    return found


def nodes(value: object) -> Iterator[dict]:
    """Every mapping inside a JSON value."""
    if isinstance(value, dict):
        yield value
        for inner in value.values():
            yield from nodes(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from nodes(inner)


def seconds(connection: duckdb.DuckDBPyConnection, sql: str) -> float:
    """Median wall time of running a statement and fetching all of its rows."""
    times = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        connection.execute(sql).fetchall()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def bare(connection: duckdb.DuckDBPyConnection, scans: list[tuple[str, list[str]]]) -> float:
    """Time to read the scanned columns of the scanned tables in full.

    Counting alone is answered from the files' statistics; a hash over the values has to read them.
    """
    total = 0.0
    for table, columns in scans:
        read = f", bit_xor(hash({', '.join(columns)}))" if columns else ""
        total += seconds(connection, f"SELECT count(*){read} FROM {table}")
    return total


def main() -> int:
    """Print a Markdown table; 1 if a query took a second or more."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=1_000_000)
    parser.add_argument("--keep", type=Path, help="write the tables here (and use them if they are there)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        if not (folder / "tables" / "coverage.parquet").exists():
            counts = generate(folder, options.clips)
            print(", ".join(f"{name} {count:,}" for name, count in counts.items()) + "\n")
        slow = 0
        print("| query | seconds | bare scan of its columns | ratio |\n|---|---|---|---|")
        queries = {name: query.sql for name, query in canned().items()} | documented()
        with connect(folder) as connection:
            for name, sql in queries.items():
                sql = sql.rstrip().rstrip(";")
                took, floor = seconds(connection, sql), bare(connection, scanned(connection, sql))
                slow += took >= LIMIT_S
                print(f"| {name} | {took:.3f} | {floor:.3f} | {took / floor:.2f}x |", flush=True)
        print(
            f"\n{slow} of {len(queries)} queries took {LIMIT_S:g} s or more"
            if slow
            else "\nall under a second"
        )
    return int(slow > 0)


if __name__ == "__main__":
    sys.exit(main())
