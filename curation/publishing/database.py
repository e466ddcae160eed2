"""annotations.duckdb: views over the Parquet files beside it, with what every table and column means."""

from __future__ import annotations

from pathlib import Path

import duckdb

from curation.schema import TABLES, grain, note

FILE_NAME = "annotations.duckdb"

LOCATION = """
coalesce(
  getvariable('dataset') || '/',
  CASE WHEN current_setting('temp_directory') LIKE '%annotations.duckdb.tmp'
    THEN regexp_replace(
      regexp_replace(current_setting('temp_directory'), 'annotations[.]duckdb[.]tmp$', ''),
      '([*?\\[])', '[\\1]', 'g')
    ELSE {fallback} END
) || 'tables/{table}.parquet'
"""
"""Where a view finds its table. A view cannot ask for the path of its own database in a subquery, but DuckDB
puts the folder for temporary files beside the database it opened, and a setting is a constant when the view
is read. So the file works wherever the folder is moved to. Attached to another database there is no such
hint: then the variable `dataset`, or else the place of publication, says where the tables are.
"""


def write_database(path: Path, home: Path) -> None:
    """Write the file of views.

    Args:
        path: the new file, `annotations.duckdb` beside a folder `tables` that is complete.
        home: the dataset folder as it will be known to readers; absolute.
    """
    fallback = literal(glob_safe(f"{home.as_posix()}/"))
    path.unlink(missing_ok=True)
    with duckdb.connect(str(path)) as connection:
        for table in TABLES:
            source = LOCATION.format(fallback=fallback, table=table)
            connection.execute(f"CREATE VIEW {table} AS FROM read_parquet({source})")
        describe(connection)


def attach_views(connection: duckdb.DuckDBPyConnection, folder: Path) -> None:
    """Views over `<folder>/tables/*.parquet` in an open connection; the folder may have been moved."""
    for table in TABLES:
        source = literal(glob_safe((folder / "tables" / f"{table}.parquet").as_posix()))
        connection.execute(f"CREATE OR REPLACE VIEW {table} AS FROM read_parquet({source})")


def describe(connection: duckdb.DuckDBPyConnection) -> None:
    """Comments on views and columns, as DuckDB's DESCRIBE and tools show them.

    A dataset of before a column was added to the schema is described without it.
    """
    there = set(connection.execute("SELECT table_name, column_name FROM duckdb_columns()").fetchall())
    for table, schema in TABLES.items():
        text = literal(f"One row per {grain(schema)}")
        connection.execute(f"COMMENT ON VIEW {table} IS {text}")
        for field in (field for field in schema if (table, field.name) in there):
            unit = note(field, "unit")
            told = note(field, "description") + (f" [{unit}]" if unit else "")
            connection.execute(f"COMMENT ON COLUMN {table}.{field.name} IS {literal(told)}")


def literal(text: str) -> str:
    """`text` as an SQL string literal (DDL takes no parameters)."""
    return "'" + text.replace("'", "''") + "'"


def glob_safe(path: str) -> str:
    """`path` so that read_parquet does not take its brackets and stars for a pattern."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in path)
