"""Runs one list of steps, in a plain loop or on Ray Data, with identical tables.

Only this file imports Ray.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import itertools
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from curation.engine.stage import (
    FAILED,
    KEPT,
    Fold,
    Plan,
    Row,
    Stage,
    StopRun,
    Verdict,
    Worker,
    check_columns,
)
from curation.engine.store import Entry, Scratch, Store, fold_recipe, recipe, timed_entry

Progress = Callable[[str, int, int], None]
"""Called with the names of the stages under way, rows done and rows in all."""


@dataclass
class Outcome:
    """What a run leaves in memory: rows by grain, and what each stage did and cost.

    Attributes:
        tables: rows by grain, as they were when the grain was left.
        counters: per stage, sums of its rows' counters (`seconds`, `decoded_s`, ...), kept ones included.
        made, reused: per stage, how many rows were worked on and how many came from the store.
    """

    tables: dict[str, list[Row]] = field(default_factory=dict)
    counters: dict[str, dict[str, float]] = field(default_factory=dict)
    made: dict[str, int] = field(default_factory=dict)
    reused: dict[str, int] = field(default_factory=dict)


ROW_ID = ("sequence_id", "segment_id", "film_id", "path")


def row_id(row: Row) -> str:
    """The id of a row at its own grain."""
    return str(next(row[c] for c in ROW_ID if row.get(c) is not None))


def execute(stage: Stage, work: Worker, row: Row, store: Store) -> Row:
    """Work on one row, or take its kept result. Settled rows pass through.

    The returned row has the stage's columns and the verdict, and under `_log` what happened.

    Raises:
        StopRun: the disk is full.
        TypeError: the stage returned other columns than it declares.
    """
    empty = dict.fromkeys(stage.writes.names)
    if row["status"] != KEPT:
        return {**row, **empty}
    made = recipe(stage, row)
    entry = store.load(made) if stage.cached else None
    reused = entry is not None
    if entry is None:
        entry = _work(stage, work, row, store)
    assert entry is not None
    log = {"stage": stage.name, "reused": reused, "counters": entry.counters}
    logs = [*row.get("_log", []), log]
    if entry.status == KEPT:
        return {**row, **entry.columns, "_log": logs}
    verdict = {
        "status": entry.status,
        "stage": stage.name,
        "reason": entry.reason,
        "detail": entry.detail,
    }
    return {**row, **empty, **verdict, "_log": logs}


def _work(stage: Stage, work: Worker, row: Row, store: Store) -> Any:
    made = recipe(stage, row)
    scratch, started = Scratch(store, stage.name, made.key), time.perf_counter()
    needed = {c: row[c] for c in (*stage.reads, *stage.locates)}
    try:
        columns, verdict = work(needed, scratch), None
        check_columns(stage, columns, stage.writes.names)
        columns = normalise([columns], stage.writes)[0]
    except Verdict as settled:
        columns, verdict = {}, (settled.status, settled.reason, settled.detail)
    except OSError as error:
        scratch.discard()
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StopRun(_disk_full(store.root)) from error
        raise
    except BaseException:
        scratch.discard()
        raise
    entry = timed_entry(started, made, scratch, columns, verdict)
    if not stage.cached or not scratch.kept:
        return entry
    with _told_if_full(store):
        if verdict is None:
            scratch.commit()
        else:
            scratch.discard()
        store.save(made, entry, row_id(row))
    return entry


@contextlib.contextmanager
def _told_if_full(store: Store) -> Iterator[None]:
    """A full disk stops the run with a line for the user."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StopRun(_disk_full(store.root)) from error
        raise


def normalise(rows: list[Row], schema: pa.Schema) -> list[Row]:
    """One trip through Arrow: the same types whichever runner and whether made now or kept."""
    return pa.array(rows, type=pa.struct(list(schema))).to_pylist()


def _disk_full(root: Path) -> str:
    return (
        f"disk full: no space left under {root}; free some (or set another output folder) and run the "
        "same command again: finished work is kept"
    )


def groups(plan: Plan) -> Iterator[tuple[Fold | None, list[tuple[Stage, pa.Schema]], pa.Schema]]:
    """Consecutive stages between folds: (None, stages, schema) or (fold, [], schema)."""
    pairs = zip(plan.steps, plan.schemas, strict=True)
    for is_fold, group in itertools.groupby(pairs, key=lambda pair: isinstance(pair[0], Fold)):
        if is_fold:
            for step, schema in group:
                assert isinstance(step, Fold)
                yield step, [], schema
        else:
            stages = [(s, schema) for s, schema in group if isinstance(s, Stage)]
            yield None, stages, stages[-1][1]


def title(stages: list[tuple[Stage, pa.Schema]]) -> str:
    """What progress calls a group of stages."""
    return ", ".join(stage.name for stage, _ in stages)


def run(
    plan: Plan, rows: list[Row], store: Store, *, on_ray: bool, progress: Progress | None = None
) -> Outcome:
    """Run a plan over source rows.

    Args:
        plan: from `curation.engine.stage.plan`.
        rows: rows of the plan's source schema.
        store: where results are kept.
        on_ray: Ray Data (a cluster must be connected) or a plain loop in this process.
        progress: called as rows get done.

    Returns:
        Rows by grain, sorted by id; the last grain is complete, earlier ones as they were left.

    Raises:
        StopRun: with a message for the user.
    """
    outcome, grain = Outcome(), "film"
    rows = [{**dict.fromkeys(VERDICT_NAMES), "status": KEPT, **row} for row in rows]
    for fold, stages, schema in groups(plan):
        if fold is not None:
            if fold.grain != grain:
                outcome.tables[grain] = rows
            rows = _fold(outcome, fold, rows, schema, store)
            grain = fold.grain
            continue
        runner = _ray_job if on_ray else _loop_job
        rows = _settle(outcome, list(runner(stages, rows, store, progress)), schema)
    outcome.tables[grain] = rows
    return outcome


VERDICT_NAMES = ("status", "stage", "reason", "detail")


def fold_rows(fold: Fold, rows: list[Row], schema: pa.Schema) -> list[Row]:
    """The rows of the next grain, checked, typed and sorted by id."""
    before = set(rows[0]) if rows else set()
    out = fold.fold(rows)
    for row in out:
        for name in VERDICT_NAMES:
            row.setdefault(name, KEPT if name == "status" else None)
        promised = set(fold.emits.names) if fold.emits is not None else before | set(fold.writes.names)
        check_columns(fold, set(row) - set(VERDICT_NAMES), promised - set(VERDICT_NAMES))
    return sorted(normalise(out, schema), key=row_id)


ALL_ROWS = "all"
"""Stands for the row under which the latest recipe of a fold is kept."""


def kept_fold(entry: Entry, fold: Fold, rows: list[Row], schema: pa.Schema) -> list[Row]:
    """The rows, sorted by id, with what a cached fold wrote when it was run on just these."""
    written, empty = iter(entry.columns["rows"]), dict.fromkeys(fold.writes.names)
    return normalise([{**r, **(next(written) if r["status"] == KEPT else empty)} for r in rows], schema)


def _fold(outcome: Outcome, fold: Fold, rows: list[Row], schema: pa.Schema, store: Store) -> list[Row]:
    """`fold_rows`, or what was kept of it."""
    if not fold.cached:
        return fold_rows(fold, rows, schema)
    started, rows = time.perf_counter(), sorted(rows, key=row_id)
    made = fold_recipe(fold, rows)
    entry = store.load(made)
    outcome.made[fold.name], outcome.reused[fold.name] = int(entry is None), int(entry is not None)
    if entry is None:
        out = fold_rows(fold, rows, schema)
        written = [{c: row[c] for c in fold.writes.names} for row in out if row["status"] == KEPT]
        entry = timed_entry(started, made, Scratch(store, fold.name, made.key), {"rows": written}, None)
        with _told_if_full(store):
            store.save(made, entry, ALL_ROWS)
    else:
        out = kept_fold(entry, fold, rows, schema)
    outcome.counters[fold.name] = entry.counters
    return out


def _settle(outcome: Outcome, rows: list[Row], schema: pa.Schema) -> list[Row]:
    for row in rows:
        for log in row.pop("_log", []):
            name = log["stage"]
            outcome.made.setdefault(name, 0)
            outcome.reused.setdefault(name, 0)
            (outcome.reused if log["reused"] else outcome.made)[name] += 1
            sums = outcome.counters.setdefault(name, {})
            for counter, value in log["counters"].items():
                sums[counter] = sums.get(counter, 0) + value
    return sorted(normalise(rows, schema), key=row_id)


# -- a plain loop -------------------------------------------------------------------------------


def _loop_job(
    stages: list[tuple[Stage, pa.Schema]], rows: list[Row], store: Store, progress: Progress | None
) -> Iterator[Row]:
    names = title(stages)
    if progress:
        progress(names, 0, len(rows))
    # Only what waits for answers takes several rows at once: models are seldom safe in two threads.
    wide = [stage.occupies().in_flight for stage, _ in stages]
    gates = [threading.BoundedSemaphore(rows_at_a_time) for rows_at_a_time in wide]
    workers = [(stage, stage.worker(), gate) for (stage, _), gate in zip(stages, gates, strict=True)]

    def through(row: Row) -> Row:
        for stage, work, gate in workers:
            with gate:
                row = execute(stage, work, row, store)
            store.tick(stage.name)
        return row

    for done, row in enumerate(_map_rows(through, rows, max(wide)), 1):
        if progress:
            progress(names, done, len(rows))
        yield row


def _map_rows(work: Callable[[Row], Row], rows: Iterable[Row], in_flight: int) -> Iterator[Row]:
    """`work` on every row, in order, up to `in_flight` at a time; an error stops what has not begun."""
    if in_flight == 1:
        yield from map(work, rows)
        return
    with ThreadPoolExecutor(in_flight, thread_name_prefix="row") as pool:
        try:
            yield from pool.map(work, rows)
        finally:
            pool.shutdown(cancel_futures=True)


# -- Ray Data -----------------------------------------------------------------------------------

_LOG = pa.field("_log", pa.string())


_building = threading.Lock()


def _process_worker(stage: Stage) -> Worker:
    """A stage's worker, built once per Ray worker process and kept for its later tasks."""
    with _building:  # rows in flight in one process must not build a model each
        return _kept_worker(stage)


@functools.lru_cache(maxsize=8)
def _kept_worker(stage: Stage) -> Worker:
    return stage.worker()


class _Apply:
    """A stage as a Ray Data callable over Arrow batches; used as a task and, in actor pools, as a class."""

    def __init__(self, stage: Stage, schema: pa.Schema, store: Store) -> None:
        self.stage, self.store = stage, store
        self.schema = pa.schema([*schema, _LOG])

    def __call__(self, batch: pa.Table) -> pa.Table:
        import json

        work = _process_worker(self.stage)

        def through(row: Row) -> Row:
            row["_log"] = json.loads(row.get("_log") or "[]")
            try:
                row = execute(self.stage, work, row, self.store)
            except StopRun as stop:  # Ray would bring it back as text inside its own error
                row = {**row, "status": FAILED, "_log": [*row["_log"], {"stop": str(stop)}]}
            self.store.tick(self.stage.name)
            return {**row, "_log": json.dumps(row.get("_log", []))}

        out = list(_map_rows(through, batch.to_pylist(), self.stage.occupies().in_flight))
        return pa.Table.from_pylist(out, schema=self.schema)


def _ray_job(
    stages: list[tuple[Stage, pa.Schema]], rows: list[Row], store: Store, progress: Progress | None
) -> Iterator[Row]:
    import json

    import ray
    import ray.data

    if not rows:
        return
    ray.data.DataContext.get_current().enable_progress_bars = False
    cluster_cpus = ray.cluster_resources().get("CPU", 1)
    source = pa.schema([f for f in stages[-1][1] if f.name in rows[0]])
    size = max(1, len(rows) // int(8 * cluster_cpus))  # small blocks: one film must not hold up the rest
    blocks = [pa.Table.from_pylist(rows[i : i + size], schema=source) for i in range(0, len(rows), size)]
    data = ray.data.from_arrow(blocks)
    pools = sum(stage.occupies().actors for stage, _ in stages)
    for stage, schema in stages:
        data = _map(data, stage, schema, store, use_actors=cluster_cpus > 2 * pools)
    names, done = title(stages), 0
    if progress:
        progress(names, 0, len(rows))
    batches: Any = data.iter_batches(batch_size=None, batch_format="pyarrow")
    for batch in batches:
        for row in batch.to_pylist():
            logs = json.loads(row["_log"])
            if stops := [log["stop"] for log in logs if "stop" in log]:
                raise StopRun(stops[0])
            done += 1
            yield {**row, "_log": logs}
        if progress:
            progress(names, done, len(rows))


def _map(data: Any, stage: Stage, schema: pa.Schema, store: Store, *, use_actors: bool) -> Any:
    import ray.data

    needs = stage.occupies()
    common: dict[str, Any] = {
        "batch_format": "pyarrow",
        "batch_size": None,
        "num_cpus": needs.cpus,
        "num_gpus": needs.gpus or None,
    }
    if needs.gpus or needs.in_flight > 1 or (needs.actors and use_actors):
        return data.map_batches(
            _Apply,
            fn_constructor_args=(stage, schema, store),
            compute=ray.data.ActorPoolStrategy(
                min_size=1,
                max_size=needs.max_workers,
                max_concurrent_calls_per_actor=needs.in_flight,
                enable_true_multi_threading=needs.in_flight > 1,
            ),
            **common,
        )
    # On a machine with few cores actor pools would hold them all; the worker lives on in the process.
    return data.map_batches(_Apply(stage, schema, store).__call__, **common)
