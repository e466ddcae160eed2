"""Queries over a published set: the canned ones answer, errors are one line, the set cannot be harmed."""

from pathlib import Path

import duckdb
import pytest

from curation.publishing.publish import publish
from curation.query import QueryError, canned, connect, run_query
from tests.curation.rows_factory import outcome


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("it's [a] set")
    tables, store = outcome(folder / ".work")
    publish(tables, store, folder, {"dataset": "toy", "preset": "paper-table"})
    return folder


@pytest.mark.parametrize("name", canned())
def test_canned_queries_answer(made: Path, name: str) -> None:
    query = canned()[name]
    assert query.sql.startswith(f"-- {query.title}\n")
    answer = run_query(made, name)
    assert answer.rows, "the toy set has something for every query"
    assert len(answer.rows[0]) == len(answer.columns)


def test_a_canned_query_may_end_like_sql(made: Path) -> None:
    assert run_query(made, " rejects;\n") == run_query(made, "rejects")


def test_overview_counts_by_status(made: Path) -> None:
    found = {what: number for what, number, _ in run_query(made, "overview").rows}
    assert found["films kept"] == 2
    assert found["films rejected"] == 3
    assert found["sequences rejected"] == 1
    assert found["clips"] == 8


def test_rejects_by_reason(made: Path) -> None:
    answer = run_query(made, "rejects")
    numbers = {(r[0], r[3]): r[answer.columns.index("number")] for r in answer.rows}
    assert numbers[("shot", "too_dark")] == 4
    assert numbers[("film", "not_a_video")] == 1
    assert sum(numbers.values()) == 9


def test_coverage_adds_up_and_counts_a_film_once(made: Path) -> None:
    answer = run_query(made, "coverage")
    by_film = {r[0]: r for r in answer.rows}
    assert len(by_film) == 4
    assert by_film["two.mp4"][1:3] == (30.0, 86.7)
    assert by_film["three.mp4"][2] == 0.0
    assert by_film["three.mp4"][3] == ["no_label 26.0 s", "too_dark 4.0 s"]


def test_longest_clips_name_who_is_in_them(made: Path) -> None:
    answer = run_query(made, "longest_clips")
    assert len(answer.rows) == 8
    assert all(r[answer.columns.index("subjects")] == ["[Person A]"] for r in answer.rows)


def test_any_sql_with_a_limit(made: Path) -> None:
    answer = run_query(made, "SELECT clip_id FROM clips ORDER BY clip_id", limit=3)
    assert (len(answer.rows), answer.more, answer.columns) == (3, True, ("clip_id",))
    answer = run_query(made, "SELECT clip_id FROM clips", limit=8)
    assert (len(answer.rows), answer.more) == (8, False)


def test_sets_can_be_moved(made: Path, tmp_path: Path) -> None:
    moved = tmp_path / "a * b"
    moved.mkdir()
    (moved / "tables").symlink_to(made / "tables")
    assert run_query(moved, "SELECT count(*) FROM films").rows == [(6,)]


def test_relative_folders(made: Path, monkeypatch) -> None:
    monkeypatch.chdir(made.parent)
    assert run_query(Path(made.name), "SELECT count(*) FROM films").rows == [(6,)]


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("overviw", "no query named 'overviw'; there are: captions"),
        ("SELECT nothing FROM clips", "nothing"),
        ("SELEC 1", "syntax error"),
        ("SELECT 1,\n  nothing,\n 2 FROM clips", "nothing"),
        ("SELECT 1; SELECT 2", "several queries in one: only the last would be answered; ask one at a time"),
        ("", "the query is empty; give SQL, or a name of: captions"),
        (" ;\n", "the query is empty"),
        ("-- only this", "the query is nothing but a comment; give SQL, or a name of: captions"),
        ("/* this */ -- and this\n;", "nothing but a comment"),
        ("SELECT * FROM 'nope.parquet'", 'No files found that match the pattern "nope.parquet"'),
    ],
)
def test_mistakes_are_one_line(made: Path, query: str, told: str) -> None:
    with pytest.raises(QueryError) as error:
        run_query(made, query)
    assert told in str(error.value)
    assert "\n" not in str(error.value)
    assert "^" not in str(error.value)
    assert "LINE" not in str(error.value)


def test_no_dataset_there(tmp_path: Path) -> None:
    with pytest.raises(QueryError, match="no published dataset"):
        run_query(tmp_path, "overview")


def test_damaged_tables(made: Path, tmp_path: Path) -> None:
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "films.parquet").write_bytes(b"no parquet")
    with pytest.raises(QueryError, match="cannot be read"):
        connect(tmp_path)


def test_a_query_may_need_statements_before_it(made: Path) -> None:
    told = run_query(made, "CREATE TABLE t AS SELECT clip_id FROM clips; SELECT count(*) FROM t; ")
    assert told.rows == [(8,)]


def test_statements_change_nothing_in_the_set(made: Path) -> None:
    run_query(made, "DROP VIEW clips")
    assert run_query(made, "SELECT count(*) FROM clips").rows == [(8,)]


def test_comments_are_there(made: Path) -> None:
    with connect(made) as connection:
        sql = (
            "SELECT comment FROM duckdb_columns() WHERE table_name = 'shots' AND column_name = 'start_frame'"
        )
        assert connection.execute(sql).fetchone() == ("First frame of the shot, presentation order [frames]",)
    assert isinstance(connection, duckdb.DuckDBPyConnection)
