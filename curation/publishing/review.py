"""The review: static pages that show every film, what was kept of it, and why the rest was not."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from curation.engine.stage import KEPT, Row
from curation.engine.store import Store
from curation.framing.overlays import LOGO, SCENE_TEXT, SUBTITLE, TITLE
from curation.framing.pictures import COLOURS
from curation.publishing.card import environment
from curation.publishing.palette import IN_CLIPS, frame_legend, hexadecimal, paint, style_class
from curation.publishing.stills import (
    clips_seconds,
    film_pictures,
    lost_stills,
    spread,
    still_shape,
    unusable_stills,
)
from curation.publishing.tables import (
    World,
    clips_of,
    coverage_of,
    film_row,
    models_of,
    proof_path,
    scores_of,
    shots_of,
    subjects_of,
    targets_of,
)
from curation.schema import SCORES
from curation.stages.sequences import (
    CONTEXT,
    MIXED_FIELDS,
    NO_WINDOW,
    TOO_LONG,
    TOO_SHORT,
    TRANSITION,
    TRIMMED,
)

AXIS_STEPS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1200, 1800, 3600)
AXIS_MARKS = 12
EXAMPLES = 6
"""Sequences that the first page shows."""

USE_WORDS = {
    IN_CLIPS: "film time that the published clips show",
    CONTEXT: "inside a sequence, but too short to be a clip",
    TRIMMED: "end of a shot that its clip leaves out, because clips have 4n+1 frames",
    NO_WINDOW: "usable and long enough for a clip, but its neighbours do not make a sequence with it",
    TRANSITION: "fades, dissolves, and what lies before the first and after the last shot",
    MIXED_FIELDS: "frames of an interlaced film that hold a field of either of two shots",
    TOO_SHORT: "usable, but shorter than a clip may be (sequences.min_shot_s)",
    TOO_LONG: "usable, but longer than a clip may be (sequences.max_shot_s)",
}
"""What a use of film time means, where its name does not say it."""


def write_review(world: World, folder: Path, counts: Row, facts: Mapping[str, Any]) -> None:
    """Write `<folder>/review`: index.html and a page per film.

    Args:
        world: of the run.
        folder: the version being published; clips, target pictures and review pictures lie in it already.
        counts: of `curation.publishing.summary.summarise`.
        facts: of the run; only `dataset` and `preset` are used, so that equal runs give equal pages.
    """
    review = folder / "review"
    made = environment()
    made.filters |= {"use_class": style_class}
    made.globals |= {
        "dataset": facts.get("dataset", "Dataset"),
        "preset": facts.get("preset"),
        "paints": {style_class(use["use"]): paint(use["use"]) for use in counts["seconds_by_use"]},
        "use_words": USE_WORDS,
        "subject_colours": [hexadecimal(colour) for colour in COLOURS],
        "scores": SCORES,
    }
    shown = {f["path"]: f for f in world.shown_films() if f.get("stream") is not None}
    films = [
        {
            **film_row(world, film),
            "page": f"{film['film_id']}.html" if film["path"] in shown else None,
            "spans": coverage_of(world, film) if film["path"] in shown else [],
            "pictures": film_pictures(world, film) if film["path"] in shown else [],
        }
        for film in sorted(world.films, key=lambda f: (f["status"] != KEPT, f["path"]))
    ]
    for film in films:
        for group in film["pictures"]:
            _write_pictures(review, group["pictures"])
    index = made.get_template("index.html").render(counts=counts, films=films, examples=examples(world))
    (review / "index.html").write_text(index, encoding="utf-8")
    page = made.get_template("film.html")
    for film in shown.values():
        shown_page = film_page(world, film)
        _write_pictures(review, shown_page["unusable"])
        text = page.render(**shown_page)
        (review / f"{film['film_id']}.html").write_text(text, encoding="utf-8")


def _write_pictures(review: Path, pictures: list[Row]) -> None:
    """Write those pictures that are no files yet."""
    for picture in pictures:
        if picture["image"] is not None:
            (review / picture["src"]).parent.mkdir(parents=True, exist_ok=True)
            (review / picture["src"]).write_bytes(picture["image"])


def examples(world: World) -> list[Row]:
    """Kept sequences for the first page, evenly spaced over all: what each is, its caption and its crop."""
    found = []
    for film in sorted(world.shown_films(), key=lambda f: f["path"]):
        for number, sequence in enumerate(world.of_film.get(film["film_id"], ()), 1):
            if sequence["status"] == KEPT:
                found.append((film, number, sequence))
    shown = []
    for film, number, sequence in spread(found, EXAMPLES):
        proofs = {p["kind"]: p["image"] for p in reversed(sequence.get("proof") or [])}  # the first of a kind
        image = proofs.get("crop") or proofs.get("strip")
        shown.append(
            {
                **{c: sequence[c] for c in ("sequence_id", "num_shots", "story_caption")},
                "number": number,
                "film": film["path"].rsplit("/", 1)[-1],
                "page": f"{film['film_id']}.html#{sequence['sequence_id']}",
                "src": proof_path(sequence["sequence_id"], image) if image else None,
                "is_crop": "crop" in proofs,
                "num_subjects": len(sequence["subjects"] or []),
                "num_targets": len(sequence["recon_targets"] or []),
            }
        )
    return shown


def film_page(world: World, film: Row) -> Row:
    """What the page of a film shows."""
    shots = shots_of(world, film)
    spans = coverage_of(world, film)
    starts = {shot["start_s"]: shot for shot in shots}
    seconds: dict[str, float] = {}
    for span in spans:
        span["shot"] = starts.get(span["start_s"])
        span["use"] = span["reason"] or IN_CLIPS
        seconds[span["use"]] = seconds.get(span["use"], 0.0) + span["end_s"] - span["start_s"]
    row = film_row(world, film)
    sequences = world.of_film.get(film["film_id"], ()) if shots else ()
    blocks = [sequence_block(film, s, n, world.store) for n, s in enumerate(sequences, 1)]
    places = {c["shot_id"]: (b["number"], c.get("number")) for b in blocks for c in b["members"]}
    unused = {s["shot"]["shot_id"]: s["reason"] for s in spans if s["shot"] and not s["used_by"]}
    return {
        "film": row,
        "duration_s": row["duration_s"] or (spans[-1]["end_s"] if spans else 0.0),
        "shots": [
            {**shot, "place": places.get(shot["shot_id"]), "unused": unused.get(shot["shot_id"])}
            for shot in shots
        ],
        "unusable": unusable_stills(film, shots, world.store),
        "shape": still_shape(film["stream"]),
        "spans": spans,
        "seconds_by_use": sorted(seconds.items(), key=lambda item: (-item[1], item[0])),
        "axis": axis(row["duration_s"] or 0.0),
        "sequences": blocks,
    }


def axis(duration_s: float) -> list[float]:
    """Times to mark on a timeline: round steps, at most a dozen or so."""
    step = next((s for s in AXIS_STEPS_S if duration_s / s <= AXIS_MARKS), AXIS_STEPS_S[-1])
    return [float(t) for t in range(0, int(duration_s) + 1, step)]


def numbered(clips: list[Row]) -> list[Row]:
    """The shots of a sequence, those that are clips with their `number`, as people count them: from 1."""
    numbers = itertools.count(1)
    ordered = sorted(clips, key=lambda c: c["clip_index"])
    return [clip if clip["is_context"] else {**clip, "number": next(numbers)} for clip in ordered]


def sequence_block(film: Row, sequence: Row, number: int, store: Store) -> Row:
    """What the page shows of a sequence; of one that was not kept, its verdict, its span and stills."""
    members = numbered(sequence["clips"])
    kept = sequence["status"] == KEPT
    block = {**sequence, "number": number, "kept": kept, "members": members}
    if not kept:
        return {**block, "stills": lost_stills(sequence, store), "shape": still_shape(sequence["stream"])}
    shots = {shot["shot_id"]: shot for shot in film["shots"]}
    pictures: dict[str, dict[str, str]] = {}
    for proof in sequence.get("proof") or []:
        path = proof_path(sequence["sequence_id"], proof["image"])
        pictures.setdefault(proof["kind"], {})[proof["about"]] = path
    subjects = subjects_of(sequence)
    labels = {subject["subject_id"]: subject["label"] for subject in subjects}
    targets = [{**t, "label": labels.get(t["subject_id"])} for t in targets_of(sequence)]
    numbers = {c["clip_index"]: c["number"] for c in members if "number" in c}
    about = {sequence["sequence_id"]: "the sequence"}
    about |= {str(index): f"shot {n}" for index, n in numbers.items()}
    about |= {t["recon_id"]: f"target {n}" for n, t in enumerate(targets, 1)}
    clips = [{**c, "shot": shots.get(c["shot_id"])} for c in clips_of(sequence, shots)]
    return {
        **block,
        "clips_s": clips_seconds(sequence),
        "scores": scores_of(sequence),
        "pictures": pictures,
        "clips": clips,
        "numbers": numbers,
        "context": [c for c in sequence["clips"] if c["is_context"]],
        "subjects": subjects,
        "targets": targets,
        "models": models_of(sequence, film),
        "calls": [
            {**call, "about": about.get(call["target"], call["target"])}
            for call in sequence["caption_calls"] or []
        ],
        "missing": missing_captions(sequence["caption_calls"] or []),
        "texts": texts_told(sequence["overlays"] or []),
        "frames": frame_legend({o["kind"] for o in sequence["overlays"] or []}),
    }


def missing_captions(calls: list[Row]) -> dict[str, dict[str, str]]:
    """Kind of caption -> what it is of -> why there is none: the request's status and its first fault."""
    missing: dict[str, dict[str, str]] = {}
    for call in calls:
        if call["status"] not in ("ok", "repaired"):
            why = ": ".join(filter(None, [call["status"], next(iter(call["faults"] or []), "")]))
            missing.setdefault(call["stage"], {})[call["target"]] = f"No caption ({why})."
    return missing


TEXTS = {
    SUBTITLE: ("subtitle", "subtitles"),
    LOGO: ("logo", "logos"),
    TITLE: ("title", "titles"),
    SCENE_TEXT: ("text", "texts"),
}
"""Kind of text -> what people call one and several."""


def texts_told(overlays: list[Row]) -> str:
    """Sentences on the texts that were found: those that the crop leaves out, then those that stay."""
    counts = {kind: sum(o["kind"] == kind for o in overlays) for kind in TEXTS}
    named = {kind: f"{n} {TEXTS[kind][n > 1]}" for kind, n in counts.items() if n}
    stays = named.pop(SCENE_TEXT, None)
    gone = f"Cropped away: {', '.join(named.values())}." if named else "No subtitle or logo was found."
    return f"{gone} Left alone, as a part of the scene: {stays}." if stays else gone
