"""Results kept by content: a stage's result is filed under what decided it, and is never made twice.

Key = SHA-256 over the stage's name, version and settings, the fingerprint of its models and the values
of the columns it reads. Those columns carry the results of earlier stages, so a changed setting changes
the keys of exactly the stages that depend on it, and of none whose inputs came out the same.

Layout, below the output folder:

    .work/<stage>/<kk>/<key>.json   the written columns, counters and what the key was made of;
                                    written last, so an entry that can be read is complete
    .work/<stage>/<kk>/<key>/       the files the stage wrote
    .work/answers/<stage>/<kk>/     parts of a row's work that outlive it (`remember`)
    .work/scratch/                  half-done work, and what a run counts; emptied at every start
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curation.engine.stage import FAILED, KEPT, REJECTED, Fold, Row, Stage


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal values, equal text.

    Raises:
        TypeError: `value` holds something JSON has no form for.
        ValueError: `value` holds a NaN; a score that could not be computed is null.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest(value: Any) -> str:
    """SHA-256 of the canonical JSON of `value`, 64 hexadecimal digits."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


@dataclass(frozen=True)
class Recipe:
    """What decides a result, in the parts a person would ask about."""

    stage: str
    version: int
    settings: Row
    models: dict[str, str]
    inputs: dict[str, str]

    @property
    def key(self) -> str:
        """The name under which the result is kept."""
        return digest(dataclasses.asdict(self))


def recipe(stage: Stage, row: Row) -> Recipe:
    """The recipe of `stage` for `row`; inputs enter as one digest per column."""
    return Recipe(
        stage=stage.name,
        version=stage.version,
        settings=stage.deciding(),
        models=stage.fingerprint(),
        inputs={column: digest(row[column]) for column in stage.reads},
    )


def fold_recipe(fold: Fold, rows: list[Row]) -> Recipe:
    """The recipe of `fold` for all rows at once; settled ones have no part in it."""
    return Recipe(
        stage=fold.name,
        version=fold.version,
        settings=dataclasses.asdict(fold),
        models={},
        inputs={c: digest([row[c] for row in rows if row["status"] == KEPT]) for c in fold.reads},
    )


@dataclass(frozen=True)
class Entry:
    """A kept result: the verdict, the columns it wrote, its counters and its recipe."""

    status: str
    reason: str | None
    detail: str | None
    columns: Row
    counters: dict[str, float]
    recipe: Row


class Scratch:
    """The folder of a row in work; implements `curation.engine.stage.Folder`."""

    def __init__(self, store: Store, stage: str, key: str) -> None:
        self._store, self._stage, self._key = store, stage, key
        self._folder = store.root / "scratch" / f"{key[:16]}-{uuid.uuid4().hex[:8]}"
        self.counters: dict[str, float] = {}
        self.kept = True

    def path(self, name: str) -> Path:
        """Where to write the artefact `name`; parent folders are made."""
        target = self._folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        return target

    def ref(self, name: str) -> str:
        """The lasting name of the artefact `name`."""
        return f"{self._stage}/{self._key[:2]}/{self._key}/{name}"

    def open(self, ref: str) -> Path:
        """The local path of an artefact of an earlier stage."""
        return self._store.path(ref)

    def count(self, name: str, value: float) -> None:
        """Add `value` to the counter `name`."""
        self.counters[name] = self.counters.get(name, 0) + value

    def recall(self, key: str) -> Any:
        """What was remembered under `key` in this output folder, or None."""
        try:
            return json.loads(self._answer(key).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None

    def remember(self, key: str, value: Any) -> None:
        """Keep `value` under `key`, atomically and at once."""
        write_atomic(self._answer(key), canonical(value))

    def unfinished(self) -> None:
        """The result is not to be kept."""
        self.kept = False

    def _answer(self, key: str) -> Path:
        return self._store.root / "answers" / self._stage / key[:2] / f"{key}.json"

    def commit(self) -> None:
        """Move the written files to their lasting place (nothing if there are none)."""
        if not self._folder.exists():
            return
        target = self._store.root / self._stage / self._key[:2] / self._key
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists():  # left by a run that died before it wrote the entry
            trash = self._folder.with_name(f"{self._folder.name}-old")
            os.replace(target, trash)
            shutil.rmtree(trash, ignore_errors=True)
        os.replace(self._folder, target)

    def discard(self) -> None:
        """Remove whatever was written."""
        shutil.rmtree(self._folder, ignore_errors=True)


@dataclass(frozen=True)
class Store:
    """The folder of kept results. Only paths in it, so it travels to workers as a value."""

    root: Path

    def path(self, ref: str) -> Path:
        """The local path of the artefact `ref`."""
        return self.root / ref

    def clean(self) -> None:
        """Drop half-done work of earlier runs. Call it only under the run's lock."""
        shutil.rmtree(self.root / "scratch", ignore_errors=True)
        (self.root / "scratch").mkdir(parents=True, exist_ok=True)

    def tick(self, stage: str) -> None:
        """Note that a row has passed a stage in this run, whichever process it was in.

        For the eyes of people only: a disk that is full must be told of by the work itself, not by this.
        """
        with contextlib.suppress(OSError):
            file = self.root / "scratch" / "passed" / stage
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("ab") as ticks:
                ticks.write(b".")

    def ticks(self, stage: str) -> int:
        """How many rows have passed a stage in this run."""
        try:
            return (self.root / "scratch" / "passed" / stage).stat().st_size
        except OSError:
            return 0

    def _file(self, stage: str, key: str) -> Path:
        return self.root / stage / key[:2] / f"{key}.json"

    def load(self, made: Recipe) -> Entry | None:
        """The kept result of a recipe, or None. An unreadable entry counts as none."""
        try:
            return Entry(**json.loads(self._file(made.stage, made.key).read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def save(self, made: Recipe, entry: Entry, row_id: str) -> None:
        """Keep a result: atomically, and note it as the latest of its row for `explain`."""
        write_atomic(self._file(made.stage, made.key), canonical(dataclasses.asdict(entry)))
        latest = self.root / "latest" / made.stage / f"{row_id}.json"
        write_atomic(latest, canonical(dataclasses.asdict(made)))

    def latest(self, stage: str, row_id: str) -> Row | None:
        """The recipe by which the row was last made, or None."""
        try:
            return json.loads((self.root / "latest" / stage / f"{row_id}.json").read_text())
        except (OSError, ValueError):
            return None


def write_atomic(path: Path, text: str) -> None:
    """Write a text file so that readers see the old content or the new, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        part.write_text(text, encoding="utf-8")
        os.replace(part, path)
    except OSError:
        part.unlink(missing_ok=True)
        raise


def timed_entry(
    started: float,
    made: Recipe,
    scratch: Scratch,
    columns: Row,
    verdict: tuple[str, str, str] | None,
) -> Entry:
    """An entry with the wall seconds since `started` among its counters."""
    status, reason, detail = verdict or (KEPT, None, None)
    assert status in (KEPT, REJECTED, FAILED)
    counters = {**scratch.counters, "seconds": round(time.perf_counter() - started, 4)}
    return Entry(status, reason, detail, columns, counters, dataclasses.asdict(made))
