"""annotations.duckdb opens anywhere with DuckDB alone, wherever the set was moved to."""

import shutil
import subprocess
import sys
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest

from curation.query import QueryError, run_query
from curation.schema import TABLES
from tests.curation.rows_factory import HOSTILE
from tests.curation.test_publish import published


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("set")
    published(folder)
    return folder


COUNT = "SELECT count(*), min(video_path) FROM clips"


def count_in_process(database: Path, cwd: Path, sql: str = COUNT) -> str:
    """Open the file in a fresh interpreter that cannot see this project."""
    code = (
        f"import duckdb; print(duckdb.connect({str(database)!r}, read_only=True).execute({sql!r}).fetchone())"
    )
    done = subprocess.run([sys.executable, "-I", "-c", code], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_database_opens_anywhere_without_our_code(made: Path, tmp_path: Path) -> None:
    assert count_in_process(made / "annotations.duckdb", tmp_path).startswith("(8, 'clips/f1")
    assert count_in_process(Path("annotations.duckdb"), made).startswith("(8,")


@pytest.mark.parametrize("name", ["moved", "it's [new] *", "a b\u00e9"])
def test_moved_and_copied_sets_still_work(made: Path, tmp_path: Path, name: str) -> None:
    moved = tmp_path / name
    shutil.copytree(made, moved, symlinks=True)
    published(moved / "again")  # a set published at such a place, too
    assert count_in_process(moved / "annotations.duckdb", tmp_path).startswith("(8,")
    assert count_in_process(moved / "again" / "annotations.duckdb", tmp_path).startswith("(8,")
    flat = tmp_path / "flat"
    shutil.copytree(made / "current", flat)
    shutil.rmtree(moved)
    assert count_in_process(flat / "annotations.duckdb", tmp_path).startswith("(8,")


def test_attached_database_falls_back_and_takes_a_variable(tmp_path: Path) -> None:
    home, moved = tmp_path / "home", tmp_path / "moved"
    published(home)
    with duckdb.connect() as connection:
        connection.execute(f"ATTACH '{home}/annotations.duckdb' AS one (READ_ONLY)")
        assert connection.execute("SELECT count(*) FROM one.clips").fetchone() == (8,)
    home.rename(moved)
    with duckdb.connect() as connection:
        connection.execute(f"ATTACH '{moved}/annotations.duckdb' AS one (READ_ONLY)")
        connection.execute(f"SET VARIABLE dataset = '{moved}'")
        assert connection.execute("SELECT count(*) FROM one.clips").fetchone() == (8,)


def test_views_and_columns_carry_descriptions(made: Path) -> None:
    with duckdb.connect(str(made / "annotations.duckdb"), read_only=True) as connection:
        views = connection.execute(
            "SELECT view_name, comment FROM duckdb_views() WHERE NOT internal"
        ).fetchall()
        columns = connection.execute(
            "SELECT table_name, column_name, comment FROM duckdb_columns() WHERE NOT internal"
        ).fetchall()
    assert {name for name, comment in views if comment.startswith("One row per")} == set(TABLES)
    assert len(columns) == sum(len(t) for t in TABLES.values())
    assert all(comment for *_, comment in columns)


def test_hostile_text_comes_back_as_it_was(made: Path) -> None:
    with duckdb.connect(str(made / "annotations.duckdb"), read_only=True) as connection:
        stories = connection.execute("SELECT story_caption FROM sequences").fetchall()
    assert stories == [(HOSTILE,)] * 3


def test_a_set_of_before_a_column_can_be_asked(tmp_path: Path) -> None:
    published(tmp_path)
    shots = tmp_path / "tables" / "shots.parquet"
    pq.write_table(pq.read_table(shots).drop_columns(["better_copies"]), shots.resolve())
    assert run_query(tmp_path, "SELECT count(*) FROM shots").rows[0][0] > 0
    with pytest.raises(QueryError, match="better_copies"):
        run_query(tmp_path, "SELECT better_copies FROM shots")
