"""The review: static pages that show every film, what was kept of it, and why the rest was not."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from curation.pictures import COLOURS
from curation.publish_card import environment
from curation.publish_tables import (
    World,
    clips_of,
    coverage_of,
    film_row,
    models_of,
    proof_path,
    shots_of,
    subjects_of,
    targets_of,
)
from curation.schema import SCORES
from curation.stage import KEPT, Row

AXIS_STEPS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1200, 1800, 3600)
AXIS_MARKS = 12
REASON_COLOURS = 9
"""Colours of the style sheet for reasons; further reasons start over."""


def write_review(world: World, folder: Path, counts: Row, facts: Mapping[str, Any]) -> None:
    """Write `<folder>/review`: index.html and a page per film.

    Args:
        world: of the run.
        folder: the version being published; clips, target pictures and review pictures lie in it already.
        counts: of `curation.publish_summary.summarise`.
        facts: of the run; only `dataset` and `preset` are used, so that equal runs give equal pages.
    """
    review = folder / "review"
    made = environment()
    reasons = [use["use"] for use in counts["seconds_by_use"]]
    made.globals |= {
        "dataset": facts.get("dataset", "Dataset"),
        "preset": facts.get("preset"),
        "use_class": use_classes(reasons),
        "subject_colours": [f"#{r:02x}{g:02x}{b:02x}" for r, g, b in COLOURS],
        "scores": SCORES,
    }
    shown = {f["path"]: f for f in world.shown_films() if f.get("stream") is not None}
    films = [
        {
            **film_row(world, film),
            "page": f"{film['film_id']}.html" if film["path"] in shown else None,
            "spans": coverage_of(world, film) if film["path"] in shown else [],
        }
        for film in world.films
    ]
    index = made.get_template("index.html").render(counts=counts, films=films)
    (review / "index.html").write_text(index, encoding="utf-8")
    page = made.get_template("film.html")
    for film in shown.values():
        text = page.render(**film_page(world, film))
        (review / f"{film['film_id']}.html").write_text(text, encoding="utf-8")


def use_classes(uses: list[str]) -> dict[str, str]:
    """Style class of each use of a span: clips and context have their own, reasons take turns."""
    fixed = {"in clips": "use-clip", "context": "use-context"}
    reasons = sorted(set(uses) - set(fixed))
    return fixed | {reason: f"use-{i % REASON_COLOURS}" for i, reason in enumerate(reasons)}


def film_page(world: World, film: Row) -> Row:
    """What the page of a film shows."""
    shots = shots_of(world, film)
    spans = coverage_of(world, film)
    starts = {shot["start_s"]: shot for shot in shots}
    seconds: dict[str, float] = {}
    for span in spans:
        span["shot"] = starts.get(span["start_s"])
        span["use"] = span["reason"] or "in clips"
        seconds[span["use"]] = seconds.get(span["use"], 0.0) + span["end_s"] - span["start_s"]
    row = film_row(world, film)
    sequences = world.of_film.get(film["film_id"], ()) if shots else ()
    return {
        "film": row,
        "duration_s": row["duration_s"] or (spans[-1]["end_s"] if spans else 0.0),
        "shots": shots,
        "spans": spans,
        "seconds_by_use": sorted(seconds.items(), key=lambda item: (-item[1], item[0])),
        "axis": axis(row["duration_s"] or 0.0),
        "sequences": [sequence_block(film, s, n) for n, s in enumerate(sequences, 1)],
    }


def axis(duration_s: float) -> list[float]:
    """Times to mark on a timeline: round steps, at most a dozen or so."""
    step = next((s for s in AXIS_STEPS_S if duration_s / s <= AXIS_MARKS), AXIS_STEPS_S[-1])
    return [float(t) for t in range(0, int(duration_s) + 1, step)]


def sequence_block(film: Row, sequence: Row, number: int) -> Row:
    """What the page shows of a sequence; only the verdict and the span if it was not kept."""
    block = {**sequence, "number": number, "kept": sequence["status"] == KEPT}
    if not block["kept"]:
        return block
    shots = {shot["shot_id"]: shot for shot in film["shots"]}
    pictures: dict[str, dict[str, str]] = {}
    for proof in sequence.get("proof") or []:
        path = proof_path(sequence["sequence_id"], proof["image"])
        pictures.setdefault(proof["kind"], {})[proof["about"]] = path
    subjects = subjects_of(sequence)
    labels = {subject["subject_id"]: subject["label"] for subject in subjects}
    targets = [{**t, "label": labels.get(t["subject_id"])} for t in targets_of(sequence)]
    return {
        **block,
        "pictures": pictures,
        "clips": clips_of(sequence, shots),
        "context": [c for c in sequence["clips"] if c["is_context"]],
        "subjects": subjects,
        "targets": targets,
        "models": models_of(sequence, film),
        "calls": sequence["caption_calls"] or [],
        "texts": overlay_counts(sequence["overlays"] or []),
    }


def overlay_counts(overlays: list[Row]) -> dict[str, int]:
    """How many texts of each kind were found."""
    kinds = sorted({overlay["kind"] for overlay in overlays})
    return {kind: sum(o["kind"] == kind for o in overlays) for kind in kinds}
