"""Published rows to Parquet files: the same rows give the same bytes, in bounded memory."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curation.engine.stage import Row
from curation.publishing.tables import ROWS, World
from curation.schema import TABLES

ROW_GROUP = 1 << 16
"""Rows per row group: small enough to skip most of a large table, large enough to compress."""


def write_tables(world: World, folder: Path) -> dict[str, int]:
    """Write every table of `curation.schema` as `<folder>/<name>.parquet`; returns rows per table."""
    folder.mkdir(parents=True, exist_ok=True)
    counts = {}
    for name, schema in TABLES.items():
        make = ROWS.get(name)
        batches = row_batches(make(world), schema) if make else track_batches(world)
        counts[name] = write_table(folder / f"{name}.parquet", schema, batches)
    return counts


def row_batches(rows: Iterable[Row], schema: pa.Schema) -> Iterator[pa.Table]:
    """Rows as tables of at most `ROW_GROUP` rows; keys that are no columns are left out."""
    rows = iter(rows)
    while part := list(itertools.islice(rows, ROW_GROUP)):
        yield pa.Table.from_pylist(part, schema=schema)


def track_batches(world: World) -> Iterator[pa.Table]:
    """Boxes of subjects of the kept sequences, one table per sequence, by subject and frame."""
    for sequence in world.kept():
        if sequence["boxes"] is None:
            continue
        yield subject_boxes(sequence, pq.read_table(world.store.path(sequence["boxes"])))


def subject_boxes(sequence: Row, boxes: pa.Table) -> pa.Table:
    """The boxes of a sequence's subjects in the published columns.

    Args:
        sequence: a sequence row.
        boxes: of `curation.rows.TRACK_BOX`; boxes of tracks that belong to no subject are left out.
    """
    schema = TABLES["tracks"]
    owner = {t: s["subject_id"] for s in sequence["subjects"] or [] for t in s["track_ids"]}
    subject = pa.array([owner.get(t) for t in boxes["track_id"].to_pylist()], pa.string())
    table = boxes.append_column("subject_id", subject).filter(pc.is_valid(subject))
    columns = {
        "sequence_id": pa.repeat(sequence["sequence_id"], len(table)),
        "film_id": pa.repeat(sequence["film_id"], len(table)),
        "cropped_x": pc.subtract(table["x"], float(sequence["crop_x"])),
        "cropped_y": pc.subtract(table["y"], float(sequence["crop_y"])),
    }
    for name, values in columns.items():
        table = table.append_column(name, values)
    table = table.select(schema.names).cast(schema)
    return table.sort_by([("subject_id", "ascending"), ("frame", "ascending")])


def write_table(path: Path, schema: pa.Schema, batches: Iterable[pa.Table]) -> int:
    """Write tables one after another, in row groups of `ROW_GROUP` rows; returns the number of rows.

    Raises:
        ValueError: a key column holds a null.
    """
    total, waiting = 0, schema.empty_table()
    with pq.ParquetWriter(
        path,
        schema,
        version="2.6",
        compression="zstd",
        compression_level=3,
        write_page_index=True,
    ) as writer:
        for batch in batches:
            _check_keys(batch, path)
            total += len(batch)
            waiting = pa.concat_tables([waiting, batch])
            while len(waiting) >= ROW_GROUP:
                writer.write_table(waiting.slice(0, ROW_GROUP), row_group_size=ROW_GROUP)
                waiting = waiting.slice(ROW_GROUP)
        if len(waiting) or not total:
            writer.write_table(waiting, row_group_size=ROW_GROUP)
    return total


def _check_keys(table: pa.Table, path: Path) -> None:
    for field in table.schema:
        if not field.nullable and table[field.name].null_count:
            raise ValueError(f"{path.stem}.{field.name} is a key and holds a null")


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
