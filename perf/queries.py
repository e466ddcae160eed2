"""Times every query of the package, of the README and of docs/ over a generated set of 1,000,000 clips.

    python -m perf.queries [--clips 1000000] [--keep FOLDER]

The tables have the published schema and are written by the code that publishes. Beside each time stands the time of
a bare full scan in the same run: reading every column that the query's plan reads, from the first row to the last, and
only counting. A query under 1x of that skips data that it does not need.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
import tempfile
import time
from pathlib import Path

import duckdb
import pyarrow as pa

from curation.publish_parquet import ROW_GROUP, write_table
from curation.query import canned, connect
from curation.schema import SCORES, TABLES

REPOSITORY = Path(__file__).resolve().parents[1]
PAGES = ("README.md", "docs/dataset.md")
LIMIT_S = 1.0
REPEATS = 3

WORDS = (
    "a the woman man child dog red navy green coat jacket stands walks turns looks left right towards window door "
    "street table kitchen garden rain light slowly close wide camera follows hand holds cup letter smiles sits rises"
).split()
STORE = {
    # One in six packed sequences is rejected; ten clips per kept one; a hundred sequences per film.
    "film": "printf('f%015x', {q} // 120)",
    "sequence": "printf('f%015x-q%d-%d', {q} // 120, ({q} % 120) * 600000, ({q} % 120) * 600000 + 540000)",
}


def ids(q: str) -> tuple[str, str]:
    """SQL for the ids of film and sequence number `q`."""
    return STORE["film"].format(q=q), STORE["sequence"].format(q=q)


def text(seed: str, words: int) -> str:
    """SQL for a sentence of some `words` words that depends on `seed`."""
    listed = "[" + ", ".join(f"'{w}'" for w in WORDS) + "]"
    length = f"({words} - 10 + hash({seed}) % 21)"
    pick = f"{listed}[1 + (hash({seed} * 131 + k) % {len(WORDS)})::BIGINT]"
    return f"array_to_string(list_transform(range(({length})::BIGINT), k -> {pick}), ' ')"


def noise(seed: str, scale: float) -> str:
    """SQL for a number in [0, scale) that depends on `seed`."""
    return f"(hash({seed}) % 1000003)::DOUBLE / 1000003 * {scale}"


def scores() -> str:
    """SQL for every quality score, from row number `i`."""
    parts = []
    for n, score in enumerate(SCORES):
        made = "NULL" if score.name == "aesthetic" else noise(f"i * 17 + {n}", 100)
        parts.append(f"({made})::{'INT' if score.type == pa.int32() else 'DOUBLE'} AS {score.name}")
    return ", ".join(parts)


MODELS = (
    "[{'part': 'shots', 'tier': 'embedded', 'backend': 'scenedetect', 'model_id': 'adaptive', 'revision': '0.7',"
    " 'sha256': NULL::VARCHAR}, {'part': 'detect', 'tier': 'embedded', 'backend': 'opencv', 'model_id': 'hog',"
    " 'revision': '4.14', 'sha256': NULL::VARCHAR}]"
)


def sources(clips: int) -> dict[str, str]:
    """SQL that makes each table for a set of so many clips."""
    packed = clips // 10 * 6 // 5  # q counts packed sequences; every sixth is lost
    kept = "(q % 6 <> 5)"
    film, sequence = ids("q")
    in_film = "((q % 120) * 600.0)"
    clip = f"SELECT q, c, q * 10 + c AS i FROM range({packed}) t(q), range(10) u(c) WHERE {kept}"
    subject = f"SELECT q, p, q * 3 + p AS i FROM range({packed}) t(q), range(3) u(p) WHERE {kept}"
    shot_span = f"{in_film} + n * 24.0 AS start_s, {in_film} + n * 24.0 + 5 + n % 7 AS end_s"
    shot = f"SELECT q, n, q * 25 + n AS i FROM range({packed}) t(q), range(25) u(n)"
    shot_id = f"printf('f%015x-s%d', q // 120, i)"
    lost = (
        "CASE WHEN hash(i) % 4 = 0 THEN ['too_dark', 'static', 'blurred'][1 + (hash(i + 7) % 3)::BIGINT] END"
    )
    return {
        "films": f"SELECT printf('f%015x', f) AS film_id, printf('/films/collection/film %d.mp4', f) AS path,"
        " ['CC-BY-3.0', 'CC0', 'not stated'][1 + f % 3] AS licence, 72000.0 AS duration_s, 24.0 AS fps,"
        " 1920 AS width, 1080 AS height, 3000 AS num_shots, 100 AS num_kept_sequences, 54000.0 AS kept_s,"
        " [{'preset': 'paper-table', 'num_sequences': 120, 'covered_s': 54000.0, 'share': 0.75},"
        " {'preset': 'paper-text', 'num_sequences': 60, 'covered_s': 27000.0, 'share': 0.375}] AS preset_coverage,"
        f" 'kept' AS status FROM range({max(1, packed // 120)}) t(f)",
        "shots": f"SELECT {shot_id} AS shot_id, {film} AS film_id, (i % 3000)::INT AS shot_index, {shot_span},"
        " 5.0 + n % 7 AS duration_s, ['cut', 'cut', 'cut', 'fade', 'dissolve'][1 + i % 5] AS transition_in,"
        f" 'cut' AS transition_out, {noise('i', 1)} AS confidence, {scores()}, {lost} IS NULL AS usable,"
        f" {lost} AS reason FROM ({shot})",
        "sequences": f"SELECT {sequence} AS sequence_id, {film} AS film_id, {in_film} AS start_s,"
        f" {in_film} + 45.9 AS end_s, 30 + {noise('q', 35)} AS duration_s, 10 AS num_shots,"
        f" CASE WHEN {kept} THEN 10 ELSE 0 END AS num_clips, {text('q', 90)} AS story_caption, {scores()},"
        f" {MODELS} AS models, 'paper-table' AS preset, CASE WHEN {kept} THEN 'kept' ELSE 'rejected' END AS status,"
        f" CASE WHEN NOT {kept} THEN 'no_room_for_crop' END AS reason FROM (SELECT q, q AS i FROM range({packed}) t(q))",
        "clips": f"SELECT {sequence} || printf('-c%02d', c) AS clip_id, {sequence} AS sequence_id, {film} AS film_id,"
        f" printf('f%015x-s%d', q // 120, q * 25 + c) AS shot_id, c::INT AS clip_index,"
        f" 'clips/' || {sequence} || printf('/%02d.mp4', c) AS video_path, (33 + 4 * (hash(i) % 30))::INT AS num_frames,"
        " 16.0 AS fps, 480 AS height, 832 AS width, (33 + 4 * (hash(i) % 30)) / 16.0 AS duration_s,"
        f" {in_film} + c * 4.6 AS start_s, {in_film} + c * 4.6 + 4.6 AS end_s, 'cut' AS transition_in,"
        f" 'cut' AS transition_out, {text('q', 45)} AS global_caption, {text('i', 30)} AS shot_caption,"
        f" 'global caption: ' || {text('q', 45)} || '; shot caption: ' || {text('i', 30)} AS caption,"
        f" sha256(i::VARCHAR) AS sha256, ['CC-BY-3.0', 'CC0', 'not stated'][1 + (q // 120) % 3] AS licence FROM ({clip})",
        "subjects": f"SELECT {sequence} || printf('-p%02d', p) AS subject_id, {sequence} AS sequence_id,"
        f" {film} AS film_id, printf('[Person %s]', chr(65 + p::INT)) AS label, 'person' AS class_name,"
        f" {text('i', 20)} AS description, p = 0 AS is_primary, {noise('i', 40)} AS screen_time_s, 4 AS num_clips,"
        f" [p, p + 2, p + 4, p + 6] AS clip_indices, {noise('i * 3', 1)} AS confidence FROM ({subject})",
        "tracks": f"SELECT {sequence} || printf('-p%02d', p) AS subject_id, {sequence} AS sequence_id, {film} AS film_id,"
        f" (i * 10 + b) AS frame, {in_film} + b AS time_s, {noise('i * 10 + b', 1000)} AS x, {noise('i + b', 500)} AS y,"
        f" 200.0 AS width, 400.0 AS height, 0.8 AS score FROM ({subject}), range(10) v(b)",
        "recon_targets": f"SELECT {sequence} || printf('-r%02d', p) AS recon_id, {sequence} AS sequence_id,"
        f" {film} AS film_id, {sequence} || '-p00' AS subject_id, {sequence} || printf('-c%02d', p) AS clip_id,"
        f" p::INT AS clip_index, (hash(i) % 81)::INT AS frame_in_clip_16fps, {noise('i', 0.5)} AS area_share,"
        f" 'recon/' || {sequence} || printf('-r%02d.png', p) AS image_path, {text('i', 22)} AS caption"
        f" FROM ({subject}) WHERE p < 2",
        "captions": f"SELECT {sequence} AS sequence_id, {film} AS film_id, n::INT AS call_index,"
        " CASE WHEN n = 0 THEN 'story' WHEN n < 11 THEN 'shot' ELSE 'recon' END AS stage, 'ok' AS status,"
        " 'describe' AS backend, 'describer' AS model_id, '1' AS revision, sha256(n::VARCHAR) AS prompt_hash,"
        " CASE WHEN hash(i) % 9 = 0 THEN ['pronoun'] ELSE [] END AS faults"
        f" FROM (SELECT q, n, q * 13 + n AS i FROM range({packed}) t(q), range(13) u(n) WHERE {kept})",
        "rejects": f"SELECT {shot_id} AS id, 'shot' AS grain, {film} AS film_id, 'filters' AS stage,"
        f" 'rejected' AS status, {lost} AS reason, printf('score %d below the limit', n) AS detail, {shot_span}"
        f" FROM ({shot}) WHERE {lost} IS NOT NULL UNION ALL BY NAME SELECT {sequence} AS id, 'sequence' AS grain,"
        f" {film} AS film_id, 'crop' AS stage, 'rejected' AS status, 'no_room_for_crop' AS reason, 'x' AS detail,"
        f" {in_film} AS start_s, {in_film} + 45.9 AS end_s FROM range({packed}) t(q) WHERE NOT {kept}",
        "coverage": f"SELECT {film} AS film_id, {shot_span}, CASE WHEN {kept} AND n < 10 THEN {sequence} END AS used_by,"
        " CASE WHEN q % 6 = 5 THEN 'no_room_for_crop' WHEN n >= 10 THEN ['too_dark', 'no_window', 'shot_too_short']"
        f"[1 + (hash(i) % 3)::BIGINT] END AS reason FROM ({shot})",
    }  # fmt: skip


def generate(folder: Path, clips: int) -> dict[str, int]:
    """Write every table of the published schema; returns rows per table."""
    (folder / "tables").mkdir(parents=True, exist_ok=True)
    counts = {}
    with duckdb.connect() as connection:
        for name, sql in sources(clips).items():
            schema = TABLES[name]
            reader = connection.execute(sql).to_arrow_reader(ROW_GROUP)
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
    """SELECT statements that users are shown: SQL blocks and `memento query "..."` lines of the documentation."""
    found = {}
    for page in PAGES:
        path = REPOSITORY / page
        content = path.read_text(encoding="utf-8") if path.exists() else ""
        shown = re.findall(r"```sql\n(.*?)```", content, re.DOTALL)
        shown += re.findall(r'memento query "(SELECT [^"]*)"', content)
        for block in shown:
            for statement in block.split(";"):
                sql = statement.strip()
                if sql.upper().startswith(("SELECT", "WITH", "FROM")) and "films_set" not in sql:
                    found[f"{page} {len([k for k in found if k.startswith(page)]) + 1}"] = sql
    return found


def scanned(connection: duckdb.DuckDBPyConnection, sql: str) -> list[tuple[str, list[str]]]:
    """Table and columns of every Parquet scan in the query's plan."""
    (_, plan) = connection.execute(f"EXPLAIN (FORMAT JSON) {sql}").fetchone()
    found = []

    def walk(node: dict) -> None:
        extra = node.get("extra_info", {})
        if "PARQUET" in node.get("name", "").upper():
            columns = extra.get("Projections", [])
            columns = [columns] if isinstance(columns, str) else list(columns)
            file = re.search(r"(\w+)\.parquet", json.dumps(extra))
            table = file.group(1) if file else owner(columns)
            found.append((table, [c for c in columns if c in TABLES[table].names]))
        for child in node.get("children", []):
            walk(child)

    for node in json.loads(plan):
        walk(node)
    return found


def owner(columns: list[str]) -> str:
    """The table that has all of these columns (the plan does not always name the file)."""
    return next(name for name, schema in TABLES.items() if set(columns) <= set(schema.names))


def seconds(connection: duckdb.DuckDBPyConnection, sql: str) -> float:
    """Median wall time of running a statement and fetching all of its rows."""
    times = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        connection.execute(sql).fetchall()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def bare(connection: duckdb.DuckDBPyConnection, scans: list[tuple[str, list[str]]]) -> float:
    """Time to read the scanned columns of the scanned tables in full and only count."""
    return sum(
        seconds(connection, f"SELECT count(*){''.join(f', count({c})' for c in columns)} FROM {table}")
        for table, columns in scans
    )


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
