"""What a published set holds, in numbers: for run.json, the card and the review page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb

from curation.engine.stage import Row
from curation.models.captioner import STATUSES as CAPTION_STATUSES
from curation.presets import PRESETS
from curation.publishing.database import attach_views

STATUSES = ("kept", "rejected", "failed")
STAGES = ("story", "shot", "recon")
SPREAD = "count({0}) AS count, min({0}) AS min, max({0}) AS max, avg({0}) AS mean, median({0}) AS median"

CAPTION_LENGTHS = {
    "story": "SELECT length(story_caption) AS n FROM sequences WHERE status = 'kept'",
    "shot": "SELECT length(caption) AS n FROM clips",
    "recon": "SELECT length(caption) AS n FROM recon_targets",
}

PRESET_SUMS = """
SELECT p.preset, sum(p.num_sequences)::BIGINT AS sequences, round(sum(p.covered_s), 3) AS seconds
FROM (SELECT unnest(preset_coverage) AS p FROM films) GROUP BY p.preset ORDER BY p.preset
"""
PACKED = """
SELECT count(DISTINCT sequence_id) AS sequences, coalesce(round(sum(duration_s), 3), 0) AS seconds
FROM shots WHERE sequence_id IS NOT NULL AND NOT is_context
"""
"""What this run packed: whole shots, before later stages rejected anything."""


def connect(folder: Path) -> duckdb.DuckDBPyConnection:
    """Views over the tables in `folder`, in memory; one thread, so that sums do not vary."""
    connection = duckdb.connect(config={"threads": 1})
    attach_views(connection, folder.absolute())
    return connection


def fetch(connection: duckdb.DuckDBPyConnection, sql: str) -> list[Row]:
    """The rows of a result as mappings."""
    result = connection.execute(sql)
    names = [column[0] for column in result.description or ()]
    return [dict(zip(names, row, strict=True)) for row in result.fetchall()]


def summarise(folder: Path) -> Row:
    """Counts and statistics of the tables in `folder/tables`.

    Lengths of captions are in characters, as in the paper's Table 3; durations in seconds. Seconds in clips
    are seconds of film that the clips show, here and wherever this project says so.
    """
    with connect(folder) as connection:
        (totals,) = fetch(
            connection,
            "SELECT (SELECT count(*) FROM clips) AS clips,"
            " (SELECT coalesce(round(sum(end_s - start_s), 3), 0) FROM clips) AS clip_seconds,"
            " (SELECT count(*) FROM subjects) AS subjects, (SELECT count(*) FROM tracks) AS boxes,"
            " (SELECT count(*) FROM recon_targets) AS recon_targets,"
            " (SELECT count(*) FROM captions) AS caption_requests",
        )
        seconds, sequences = film_seconds(connection), by_status(connection, "sequences")
        published = {"sequences": sequences["kept"], "seconds": totals["clip_seconds"]}
        return {
            "films": by_status(connection, "films"),
            "film_seconds": seconds,
            "shots": fetch(
                connection, "SELECT count(*) AS found, count(*) FILTER (usable) AS usable FROM shots"
            )[0],
            "sequences": sequences,
            **totals,
            "seconds_by_use": fetch(
                connection,
                "SELECT coalesce(reason, 'in clips') AS use, round(sum(end_s - start_s), 3) AS seconds"
                " FROM coverage GROUP BY ALL ORDER BY seconds DESC, use",
            ),
            "rejects": fetch(
                connection,
                "SELECT grain, stage, status, reason, count(*) AS number, min(detail) AS example"
                " FROM rejects GROUP BY grain, stage, status, reason"
                " ORDER BY grain, number DESC, stage, reason, status",
            ),
            "presets": [with_share(row, seconds) for row in in_order(fetch(connection, PRESET_SUMS))],
            "packed": with_share(fetch(connection, PACKED)[0], seconds),
            "published": with_share(published, seconds),
            "statistics": statistics(connection),
            "caption_calls": caption_calls(connection),
        }


def in_order(rows: list[Row]) -> list[Row]:
    """Rows of presets in the order in which these are defined, unknown ones last."""
    order = {name: place for place, name in enumerate(PRESETS)}
    return sorted(rows, key=lambda row: order.get(row["preset"], len(order)))


def with_share(row: Row, whole_s: float) -> Row:
    """The row and its `seconds` as a share of the films."""
    return {**row, "share": row["seconds"] / whole_s if whole_s else None}


def by_status(connection: duckdb.DuckDBPyConnection, table: str) -> dict[str, int]:
    """Rows found, kept, rejected and failed."""
    rows = fetch(connection, f"SELECT status, count(*) AS number FROM {table} GROUP BY status")
    counts = {row["status"]: row["number"] for row in rows}
    found = {"found": sum(counts.values()), **{s: counts.pop(s, 0) for s in STATUSES}}
    assert not counts, f"{table}: unknown status {sorted(counts)}"
    return found


def caption_calls(connection: duckdb.DuckDBPyConnection) -> list[Row]:
    """Caption requests of each stage, by how they ended; each has exactly one status.

    Returns:
        A row per stage, then one for all: `stage`, `requests`, a count for each status, `attempts`,
        `tokens_in` and `tokens_out` (None where no engine counted).
    """
    counted = fetch(connection, "SELECT stage, status, count(*) AS number FROM captions GROUP BY ALL")
    sums = fetch(
        connection,
        "SELECT coalesce(stage, 'all') AS stage, count(*) AS requests, sum(attempts)::BIGINT AS attempts,"
        " sum(tokens_in)::BIGINT AS tokens_in, sum(tokens_out)::BIGINT AS tokens_out"
        " FROM captions GROUP BY ROLLUP (stage)",
    )
    told = []
    for stage in (*STAGES, "all"):
        row = next((r for r in sums if r["stage"] == stage), {"stage": stage, "requests": 0})
        ended = dict.fromkeys(CAPTION_STATUSES, 0)
        for one in counted:
            if stage in ("all", one["stage"]):
                ended[one["status"]] += one["number"]
        assert sum(ended.values()) == row["requests"], f"{stage}: a request has no status"
        told.append({"attempts": None, "tokens_in": None, "tokens_out": None, **row, **ended})
    return told


def film_seconds(connection: duckdb.DuckDBPyConnection) -> float:
    """Seconds of film, the same bytes at two paths counted once."""
    sql = (
        "SELECT coalesce(round(sum(seconds), 3), 0) AS seconds FROM"
        " (SELECT max(duration_s) AS seconds FROM films WHERE film_id IS NOT NULL GROUP BY film_id)"
    )
    return fetch(connection, sql)[0]["seconds"]


def statistics(connection: duckdb.DuckDBPyConnection) -> dict[str, Any]:
    """Count, min, max, mean and median of what the paper reports of its data."""
    sources = {
        "clips_per_sequence": "SELECT num_clips AS n FROM sequences WHERE status = 'kept'",
        "sequence_seconds": "SELECT duration_s AS n FROM sequences WHERE status = 'kept'",
        "clip_seconds": "SELECT duration_s AS n FROM clips",
        **{f"{stage}_caption_length": sql for stage, sql in CAPTION_LENGTHS.items()},
    }
    return {
        name: fetch(connection, f"SELECT {SPREAD.format('n')} FROM ({sql})")[0]
        for name, sql in sources.items()
    }
