"""What a run would do and why, found out by walking the plan without working on anything."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field

from curation.runner import execute, fold_rows, row_id
from curation.stage import KEPT, VERDICT, Fold, Plan, Row, Stage
from curation.store import Recipe, Store, recipe


@dataclass
class Forecast:
    """What would happen to the rows of one stage.

    Attributes:
        stage: its name.
        reused: rows whose result is kept.
        runs: rows to work on, by reason.
        unknown: rows that depend on work further up; they run unless their inputs come out the same.
    """

    stage: str
    reused: int = 0
    runs: Counter[str] = field(default_factory=Counter)
    unknown: int = 0


def explain(plan: Plan, rows: list[Row], store: Store) -> list[Forecast]:
    """Forecast every kept-by-content stage of a plan, in order. Nothing is written."""
    forecasts, unknown = [], 0
    rows = [{**dict.fromkeys(VERDICT.names), "status": KEPT, **row} for row in rows]
    for step, schema in zip(plan.steps, plan.schemas, strict=True):
        if isinstance(step, Fold):
            rows = fold_rows(step, rows, schema) if rows else []
            continue
        forecast = Forecast(step.name, unknown=unknown)
        rows = [row for row in (_walk(step, row, store, forecast) for row in rows) if row is not None]
        unknown = forecast.unknown + forecast.runs.total()
        if step.cached:
            forecasts.append(forecast)
    return forecasts


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
        if changed and part == "settings":
            return ", ".join(f"setting {made.stage}.{n}: {old.get(n)} -> {new.get(n)}" for n in changed)
        if changed:
            return f"{word} changed: {', '.join(changed)}"
    return "its recipe changed"
