"""What a published set holds, in numbers: for run.json, the card and the review page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb

from curation.publish_database import attach_views
from curation.stage import Row

STATUSES = ("kept", "rejected", "failed")
SPREAD = "count({0}) AS count, min({0}) AS min, max({0}) AS max, avg({0}) AS mean, median({0}) AS median"

CAPTION_LENGTHS = {
    "story": "SELECT length(story_caption) AS n FROM sequences WHERE status = 'kept'",
    "shot": "SELECT length(caption) AS n FROM clips",
    "recon": "SELECT length(caption) AS n FROM recon_targets",
}


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

    Lengths of captions are in characters, as in the paper's Table 3; durations in seconds.
    """
    with connect(folder) as connection:
        (totals,) = fetch(
            connection,
            "SELECT (SELECT count(*) FROM clips) AS clips,"
            " (SELECT coalesce(round(sum(duration_s), 3), 0) FROM clips) AS clip_seconds,"
            " (SELECT count(*) FROM subjects) AS subjects, (SELECT count(*) FROM tracks) AS boxes,"
            " (SELECT count(*) FROM recon_targets) AS recon_targets,"
            " (SELECT count(*) FROM captions) AS caption_requests",
        )
        return {
            "films": by_status(connection, "films"),
            "film_seconds": film_seconds(connection),
            "shots": fetch(
                connection, "SELECT count(*) AS found, count(*) FILTER (usable) AS usable FROM shots"
            )[0],
            "sequences": by_status(connection, "sequences"),
            **totals,
            "seconds_by_use": fetch(
                connection,
                "SELECT coalesce(reason, 'in clips') AS use, round(sum(end_s - start_s), 3) AS seconds"
                " FROM coverage GROUP BY ALL ORDER BY seconds DESC, use",
            ),
            "rejects": fetch(
                connection,
                "SELECT grain, stage, status, reason, count(*) AS number FROM rejects GROUP BY ALL"
                " ORDER BY grain, number DESC, stage, reason, status",
            ),
            "presets": fetch(
                connection,
                "SELECT p.preset, sum(p.num_sequences)::BIGINT AS sequences,"
                " round(sum(p.covered_s), 3) AS seconds,"
                " sum(p.covered_s) / nullif(sum(duration_s), 0) AS share"
                " FROM (SELECT duration_s, unnest(preset_coverage) AS p FROM films)"
                " GROUP BY p.preset ORDER BY p.preset",
            ),
            "statistics": statistics(connection),
        }


def by_status(connection: duckdb.DuckDBPyConnection, table: str) -> dict[str, int]:
    """Rows found, kept, rejected and failed."""
    rows = fetch(connection, f"SELECT status, count(*) AS number FROM {table} GROUP BY status")
    counts = {row["status"]: row["number"] for row in rows}
    found = {"found": sum(counts.values()), **{s: counts.pop(s, 0) for s in STATUSES}}
    assert not counts, f"{table}: unknown status {sorted(counts)}"
    return found


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
