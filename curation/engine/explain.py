"""What a run would do and why, found out by walking the plan without working on anything."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field

import pyarrow as pa

from curation.engine.runner import ALL_ROWS, execute, fold_rows, kept_fold, row_id
from curation.engine.stage import KEPT, VERDICT, Fold, Plan, Row, Stage
from curation.engine.store import Recipe, Store, fold_recipe, recipe

FILM = "film"


@dataclass
class Forecast:
    """What would happen to the rows of one stage.

    Attributes:
        stage: its name.
        grain: what its rows are: film, segment or sequence.
        reused: rows whose result is kept. A fold has one result, of all rows.
        runs: rows to work on, by reason.
        unknown: rows that depend on work further up; they run unless it comes out the same as before.
        unlisted: films whose rows of this grain are not even known before work further up is done.
        after: the stages further up that have work to do.
        begun: the films and sequences whose work begins here: id -> a row as it came.
    """

    stage: str
    grain: str = FILM
    reused: int = 0
    runs: Counter[str] = field(default_factory=Counter)
    unknown: int = 0
    unlisted: int = 0
    after: tuple[str, ...] = ()
    begun: dict[str, Row] = field(default_factory=dict)


def explain(plan: Plan, rows: list[Row], store: Store) -> list[Forecast]:
    """Forecast every kept-by-content stage of a plan, in order. Nothing is written."""
    forecasts: list[Forecast] = []
    open_films: set[str] = set()  # the films of which something waits for work further up
    grain, waiting, unlisted = FILM, 0, 0
    rows = [{**dict.fromkeys(VERDICT.names), "status": KEPT, **row} for row in rows]
    for step, schema in zip(plan.steps, plan.schemas, strict=True):
        if isinstance(step, Fold):
            if step.grain != grain:
                grain, waiting, unlisted = step.grain, 0, len(open_films)
            if grain == FILM:  # a film is put together when all its segments are there
                rows = [row for row in rows if _film(row) not in open_films]
                waiting, unlisted = len(open_films), 0
            if step.cached:
                work = tuple(f.stage for f in forecasts if f.runs)
                forecasts.append(Forecast(step.name, grain, after=work))
                rows = _fold(step, rows, schema, store, forecasts[-1], is_open=bool(open_films))
            else:
                rows = fold_rows(step, rows, schema) if rows else []
            continue
        work = tuple(f.stage for f in forecasts if f.runs)
        forecast = Forecast(step.name, grain, unknown=waiting, unlisted=unlisted, after=work)
        done = [(row, _walk(step, row, store, forecast)) for row in rows]
        waiting += forecast.runs.total()
        open_films |= {_film(row) for row, out in done if out is None}
        forecast.begun = {str(row.get("sequence_id") or _film(row)): row for row, out in done if out is None}
        rows = [out for _, out in done if out is not None]
        for row in rows:  # folds want rows of one form, and settled ones have no log
            row.pop("_log", None)
        if step.cached:
            forecasts.append(forecast)
    return forecasts


def _fold(
    fold: Fold, rows: list[Row], schema: pa.Schema, store: Store, forecast: Forecast, *, is_open: bool
) -> list[Row]:
    """The rows after a cached fold. It has one result, which nobody knows while a film of it is open."""
    rows = sorted(rows, key=row_id)
    if is_open:
        forecast.unknown = 1
    elif any(row["status"] == KEPT for row in rows):
        made = fold_recipe(fold, rows)
        entry = store.load(made)
        if entry is not None:
            forecast.reused = 1
            return kept_fold(entry, fold, rows, schema)
        forecast.runs[why(made, store.latest(fold.name, ALL_ROWS))] += 1
    return fold_rows(fold, rows, schema) if rows else []


def _film(row: Row) -> str:
    return str(row.get("film_id") or row.get("path") or row_id(row))


def _walk(stage: Stage, row: Row, store: Store, forecast: Forecast) -> Row | None:
    if row["status"] != KEPT:
        return execute(stage, _never, row, store)
    if not stage.cached:
        return execute(stage, stage.worker(), row, store)
    made = recipe(stage, row)
    if store.load(made) is None:
        forecast.runs[why(made, store.latest(stage.name, row_id(row)))] += 1
        return None
    forecast.reused += 1
    return execute(stage, _never, row, store)


def _never(row: Row, folder: object) -> Row:
    raise AssertionError("a kept result disappeared while explaining")


def why(made: Recipe, before: Row | None) -> str:
    """Why a recipe has no kept result: the first difference to how the row was last made."""
    if before is None:
        return "new"
    now = asdict(made)
    if now == before:
        return "its kept result was removed"
    if now["version"] != before["version"]:
        return f"the code of {made.stage} changed (version {before['version']} -> {now['version']})"
    for part, word in (("settings", "setting"), ("models", "model"), ("inputs", "input")):
        old, new = before[part], now[part]
        changed = [name for name in sorted({*old, *new}) if old.get(name) != new.get(name)]
        # A choice that brings settings of its own explains these too.
        changed = [name for name in changed if name in old and name in new] or changed
        if changed and part == "settings":
            return ", ".join(f"setting {made.stage}.{n}: {old.get(n)} -> {new.get(n)}" for n in changed)
        if changed:
            return f"{word} changed: {', '.join(changed)}"
    return "its recipe changed"
