"""run.json: how a dataset was made, what it cost and how near that is to the least possible."""

from __future__ import annotations

import dataclasses
import os
import platform
from collections.abc import Sequence
from importlib import metadata
from typing import TYPE_CHECKING

from curation.engine.runner import Outcome
from curation.engine.stage import KEPT, Row

if TYPE_CHECKING:
    from pipelines.curate import Job

PACKAGES = (
    "memento-video", "av", "duckdb", "numpy", "onnxruntime", "opencv-python-headless", "pyarrow", "rapidocr",
    "ray", "scenedetect", "trackers",
)  # fmt: skip


def run_record(job: Job, outcome: Outcome, *, wall_s: float, place: str) -> Row:
    """Everything that a reader needs to judge or repeat the run."""
    steps = job.plan.steps
    return {
        "dataset": job.name,
        "preset": job.preset,
        "sources": list(job.sources),
        "settings": {s.name: dataclasses.asdict(s) for s in steps if dataclasses.fields(s)},
        "stage_versions": {s.name: getattr(s, "version", None) for s in steps},
        "versions": {name: _version(name) for name in PACKAGES},
        "models": models(outcome),
        "machine": {
            "python": platform.python_version(),
            "system": platform.platform(),
            "cpus": os.cpu_count(),
            "ran_on": place,
        },
        "wall_s": round(wall_s, 2),
        "worker_s": {name: round(c.get("seconds", 0), 2) for name, c in outcome.counters.items()},
        "rows_made": outcome.made,
        "rows_reused": outcome.reused,
        "counters": outcome.counters,
        "decode_passes": decode_passes(outcome, [s.name for s in steps]),
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


MODEL_COLUMNS = (
    ("film", "boundary_models"),
    ("film", "title_models"),
    ("film", "aesthetic_models"),
    ("sequence", "analysis_models"),
)


def models(outcome: Outcome) -> list[Row]:
    """Every distinct model that had a part in the rows."""
    found = {}
    for grain, column in MODEL_COLUMNS:
        for row in outcome.tables.get(grain, []):
            for model in row.get(column) or []:
                found[tuple(sorted((k, str(v)) for k, v in model.items()))] = model
    return [found[key] for key in sorted(found)]


WHOLE_FILM = ("scan", "shots", "aesthetic")
"""Stages that decode before anything is packed."""


def decode_passes(outcome: Outcome, order: Sequence[str] = ()) -> Row:
    """Seconds decoded per second of footage, apart for what was not exported and what was.

    The least possible is 1 for footage that is not exported (the scan) and 2 for what is (scan, export). What
    a stage decoded is divided by the seconds of the sequences that came to it, rejected ones included.

    Args:
        outcome: of a run.
        order: the names of all stages, in order.
    """
    decoded = {name: c.get("decoded_s", 0.0) for name, c in outcome.counters.items()}
    films = sum(
        (row["stream"] or {}).get("duration_s") or 0.0
        for row in outcome.tables.get("film", [])
        if row.get("stream") and row["status"] == KEPT
    )
    exported = sum(
        row["end_s"] - row["start_s"] for row in outcome.tables.get("sequence", []) if row["status"] == KEPT
    )
    whole = {
        name: value / films
        for name in WHOLE_FILM
        if films and ((value := decoded.pop(name, 0.0)) or name == "scan")
    }
    looked_at = sum(whole.values()) if whole else None
    later = {
        name: round(value / _came_to(name, outcome, order), 3)
        for name, value in sorted(decoded.items())
        if value and exported
    }
    return {
        "footage_s": round(films, 3),
        "exported_s": round(exported, 3),
        "not_exported": None if looked_at is None else round(looked_at, 3),
        "exported": None if looked_at is None or not exported else round(looked_at + sum(later.values()), 3),
        "by_stage": {"scan": None, **{name: round(value, 3) for name, value in whole.items()}, **later},
    }


def _came_to(stage: str, outcome: Outcome, order: Sequence[str]) -> float:
    """Seconds of the sequences that a stage worked on: kept ones, and those settled there or later."""
    at_or_after = set(order[order.index(stage) :]) if stage in order else set()
    return sum(
        row["end_s"] - row["start_s"]
        for row in outcome.tables.get("sequence", [])
        if row["status"] == KEPT or row.get("stage") in at_or_after
    )
