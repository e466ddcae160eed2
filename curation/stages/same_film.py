"""The same bytes found twice are worked on once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from curation.engine.stage import FAILED, KEPT, REJECTED, Fold, Row


@dataclass(frozen=True, kw_only=True)
class SameFilm(Fold):
    """Reject every file whose bytes another file has; the first path in order is kept."""

    name: ClassVar[str] = "same_film"
    grain: ClassVar[str] = "film"
    reads: ClassVar[tuple[str, ...]] = ("path", "film_id")

    def fold(self, rows: list[Row]) -> list[Row]:
        """Settle the later ones of equal films."""
        first: dict[str, str] = {}
        out = []
        for row in sorted(rows, key=lambda r: r["path"]):
            film = row["film_id"]
            if row["status"] == KEPT and film in first:
                verdict = {"status": REJECTED, "stage": self.name, "reason": "same_film"}
                row = {**row, **verdict, "detail": f"the same bytes as {first[film]}"}
            elif row["status"] == KEPT:
                first[film] = row["path"]
            out.append(row)
        return out


def with_failed_copies(rows: list[Row]) -> list[Row]:
    """Film rows in which a copy of a file that proved unusable has failed like it, not been rejected."""
    failed = {row["film_id"]: row for row in rows if row["status"] == FAILED and row["film_id"]}
    out = []
    for row in rows:
        original = failed.get(row["film_id"])
        if original is not None and row["stage"] == SameFilm.name:
            detail = f"{original['detail']} ({row['detail']})"
            row = {**row, **{c: original[c] for c in ("status", "stage", "reason")}, "detail": detail}
        out.append(row)
    return out
