"""What a curation stage is: settings, declared columns, and one function from row to columns.

A stage is a frozen dataclass. Its fields are its settings; `reads` and `writes` declare columns, so a
whole plan is checked before anything starts, and the columns a stage reads together with its settings
are the key under which its result is kept (see `curation.engine.store`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

import pyarrow as pa

Row = dict[str, Any]

KEPT, REJECTED, FAILED = "kept", "rejected", "failed"
VERDICT = pa.schema(
    [
        ("status", pa.string()),
        ("stage", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
    ]
)


class Verdict(Exception):
    """Settles a row: `reason` is a stable snake_case word, `detail` one line for a person."""

    status: ClassVar[str]

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail


class Reject(Verdict):
    """The data is sound but not wanted (too dark, no room for a crop)."""

    status = REJECTED


class BadInput(Verdict):
    """The data is unusable (truncated, not a video). Bugs are any other exception and stop the run."""

    status = FAILED


class StopRun(Exception):
    """The run cannot go on (disk full, output of another dataset); the message says how to mend it."""


class Folder(Protocol):
    """What a worker may use besides its row: a scratch folder that becomes an artefact, and counters."""

    def path(self, name: str) -> Path:
        """Where to write the artefact `name`; it appears under `ref(name)` only when the row is done."""

    def ref(self, name: str) -> str:
        """The name other stages use for the artefact; resolve it with `open`."""

    def open(self, ref: str) -> Path:
        """The local path of an artefact that an earlier stage wrote."""

    def count(self, name: str, value: float) -> None:
        """Add to a counter of this row, e.g. `decoded_s`; it is kept with the result."""

    def recall(self, key: str) -> Any:
        """What `remember` kept under `key`, now or in an earlier run that did not finish the row; or None."""

    def remember(self, key: str, value: Any) -> None:
        """Keep a part of the work that is dear to make again (a paid answer) at once; JSON values."""

    def unfinished(self) -> None:
        """Use the row's result in this run but do not keep it: the next run works on the row again."""


Worker = Callable[[Row, Folder], Row]


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What one worker of a stage occupies.

    Attributes:
        cpus, gpus: as Ray counts them.
        actors: the worker holds a model worth keeping alive.
        in_flight: rows a worker handles at a time, in threads; more than 1 where it waits for answers.
        max_workers: of the whole cluster; None lets the cluster's size decide.
    """

    cpus: float = 1.0
    gpus: float = 0.0
    actors: bool = False
    in_flight: int = 1
    max_workers: int | None = None


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One step from row to row of the same grain. Subclasses add settings and implement `worker`.

    Attributes:
        name: the name in settings, tables and reports.
        version: raised whenever the code gives other results for the same input.
        reads: columns that decide the result; they are part of the key.
        locates: columns the worker may look at but which do not decide the result (paths).
        writes: columns it adds; no two stages write the same one.
        cached: whether results are kept; false for what costs less than reading the result.
        resources: what one worker occupies.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1
    reads: ClassVar[tuple[str, ...]] = ()
    locates: ClassVar[tuple[str, ...]] = ()
    writes: ClassVar[pa.Schema] = pa.schema([])
    cached: ClassVar[bool] = True
    resources: ClassVar[Resources] = Resources()

    def occupies(self) -> Resources:
        """What a worker occupies with these settings."""
        return self.resources

    def settled(self) -> tuple[Stage, str]:
        """The stage with what depends on the machine settled, and one line about that, if there was any.

        Called once, where the command was typed, so that all workers agree.

        Raises:
            StopRun, WeightsMissing, MissingExtra: what was asked for cannot be had here.
        """
        return self, ""

    def deciding(self) -> Row:
        """The settings that decide the result, as plain values; others only decide how it is come by."""
        return dataclasses.asdict(self)

    def fingerprint(self) -> dict[str, str]:
        """Names and hashes of the models this stage would use here; part of the key."""
        return {}

    def worker(self) -> Worker:
        """Built once per process; heavy imports and weights belong here. It must be deterministic."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class Fold:
    """A step over all rows at once on the driver: the only place where the grain may change.

    Attributes:
        name: shown in plans and reports.
        version: raised whenever the code gives other results for the same input.
        grain: the grain of the rows it returns.
        reads: columns it needs.
        emits: all columns of the rows it returns, verdict columns excepted.
        cached: whether what it writes is kept, under all rows that it read; only for a fold that adds columns
            to kept rows and leaves grain and verdicts alone.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1
    grain: ClassVar[str]
    reads: ClassVar[tuple[str, ...]] = ()
    emits: ClassVar[pa.Schema | None] = None
    writes: ClassVar[pa.Schema] = pa.schema([])
    cached: ClassVar[bool] = False

    def fold(self, rows: list[Row]) -> list[Row]:
        """Turn all rows, settled ones included, into the rows of the next grain."""
        raise NotImplementedError


Step = Stage | Fold


@dataclass(frozen=True)
class Plan:
    """The steps with the schema after each of them."""

    steps: tuple[Step, ...]
    schemas: tuple[pa.Schema, ...]
    source: pa.Schema = field(default_factory=lambda: pa.schema([]))


def plan(steps: Iterable[Step], source: pa.Schema) -> Plan:
    """Check that every column is there before it is read and written once.

    Raises:
        ValueError: names the step, the column and what there is instead.
    """
    steps = tuple(steps)
    have, schemas = pa.unify_schemas([source, VERDICT]), []
    for step in steps:
        wanted = (*step.reads, *getattr(step, "locates", ()))
        missing = [c for c in wanted if c not in have.names]
        if missing:
            raise ValueError(f"{step.name} reads {missing}; columns so far: {have.names}")
        emits = getattr(step, "emits", None)
        if emits is not None:
            have = pa.unify_schemas([emits, VERDICT])
        else:
            twice = [c for c in step.writes.names if c in have.names]
            if twice:
                raise ValueError(f"{step.name} writes {twice}, which an earlier step already wrote")
            have = pa.unify_schemas([have, step.writes])
        schemas.append(have)
    return Plan(steps, tuple(schemas), source)


def check_columns(step: Step, written: Iterable[str], promised: Iterable[str]) -> None:
    """Raise TypeError when a step returned a column it never declared, or left one out."""
    written, promised = set(written), set(promised)
    if written != promised:
        raise TypeError(
            f"{step.name}: undeclared {sorted(written - promised)}, missing {sorted(promised - written)}"
        )
