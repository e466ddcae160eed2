"""Rows of the pipeline to rows of the published tables, one function per table."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from curation.engine.stage import KEPT, REJECTED, Row
from curation.engine.store import Store
from curation.schema import FILMS, SCORES, SHOTS
from curation.stages.sequences import film_verdict as no_window
from curation.stages.sequences import without_tails

VERDICT = ("status", "stage", "reason", "detail")
STORY = ("story_caption", "reconstruct_target")
SPAN = ("start_pts", "end_pts", "start_frame", "end_frame", "start_s", "end_s")


@dataclass(frozen=True)
class World:
    """All rows of a run, in the order of the tables, with what joins them.

    Attributes:
        films: film rows with their final verdict.
        sequences: sequence rows, by film and start.
        of_film: sequence rows by film id.
        store: where artefacts lie.
        preset: the packing preset of the run.
        settings_hash: of the resolved settings of the run.
    """

    films: tuple[Row, ...]
    sequences: tuple[Row, ...]
    of_film: Mapping[str, tuple[Row, ...]]
    store: Store
    preset: str | None
    settings_hash: str | None

    def kept(self) -> Iterator[Row]:
        """Sequences that made it to the end."""
        return (s for s in self.sequences if s["status"] == KEPT)

    def shown_films(self) -> Iterator[Row]:
        """Films by id, each id once (the same bytes may lie at two paths)."""
        seen: set[str] = set()
        for film in self.films:
            if film["film_id"] is not None and film["film_id"] not in seen:
                seen.add(film["film_id"])
                yield film


def gather(
    films: Iterable[Row],
    sequences: Iterable[Row],
    store: Store,
    *,
    preset: str | None = None,
    settings_hash: str | None = None,
) -> World:
    """Sort the rows and settle the films that kept no sequence.

    Args:
        films: film rows as they stand after the last film stage.
        sequences: sequence rows as they stand after the last stage.
        store: of the run.
        preset: written into every sequence.
        settings_hash: written into every sequence.
    """
    ordered = sorted(sequences, key=lambda s: (s["film_id"], s["start_pts"], s["sequence_id"]))
    groups = {film: tuple(rows) for film, rows in itertools.groupby(ordered, key=lambda s: s["film_id"])}
    # A kept film goes before a copy of it, so that its row stands for the id.
    settled = sorted(
        ({**film, **film_verdict(film, groups.get(film["film_id"], ()))} for film in films),
        key=lambda f: (f["film_id"] or "", f.get("shots") is None, f["path"]),
    )
    return World(tuple(settled), tuple(ordered), groups, store, preset, settings_hash)


def film_verdict(film: Row, sequences: Sequence[Row]) -> Row:
    """A film is kept if one of its sequences is; otherwise it is rejected with the reason."""
    if film["status"] == KEPT and not sequences:
        status, reason, detail = no_window(film)
        return {"status": status, "stage": "sequences", "reason": reason, "detail": detail}
    if film["status"] != KEPT or any(s["status"] == KEPT for s in sequences):
        return {name: film[name] for name in VERDICT}
    reasons = Counter(s["reason"] for s in sequences).most_common()
    told = ", ".join(f"{reason} ({count})" for reason, count in reasons)
    return {
        "status": REJECTED,
        "stage": "publish",
        "reason": "no_sequence_left",
        "detail": f"none of {len(sequences)} packed sequences was kept: {told}",
    }


# -- rows, one function per table ---------------------------------------------------------------


def film_row(world: World, film: Row) -> Row:
    """The published row of a film."""
    stream = film.get("stream") or {}
    sequences = world.of_film.get(film["film_id"], ()) if film.get("shots") is not None else ()
    kept = [s for s in sequences if s["status"] == KEPT]
    shots, verdicts = film.get("shots"), film.get("shot_verdicts")
    row = {
        **{c: film.get(c) for c in ("film_id", "path", "licence", "sha256", "size_bytes", *VERDICT)},
        **stream,
        "num_shots": None if shots is None else len(shots),
        "num_usable_shots": None if verdicts is None else sum(bool(v["usable"]) for v in verdicts),
        "num_sequences": len(sequences),
        "num_kept_sequences": len(kept),
        "kept_s": sum(c["end_s"] - c["start_s"] for s in kept for c in s["clip_files"]),
        "preset_coverage": film.get("preset_coverage"),
        "notes": film.get("notes"),
        "models": None if film.get("boundary_models") is None else film_models(film),
    }
    return {column: row.get(column) for column in FILMS.names}


def film_rows(world: World) -> Iterator[Row]:
    """One row per file found."""
    return (film_row(world, film) for film in world.films)


def shots_of(world: World, film: Row) -> list[Row]:
    """Published shots of a film."""
    shots = film.get("shots") or []
    scores = film.get("shot_scores") or [{}] * len(shots)
    aesthetics = film.get("aesthetics") or [None] * len(shots)
    verdicts = film.get("shot_verdicts") or [{}] * len(shots)
    used = {
        clip["shot_id"]: (sequence["sequence_id"], clip["is_context"])
        for sequence in world.of_film.get(film["film_id"], ())
        for clip in sequence["clips"]
    }
    copies = {copy["shot_id"]: copy for copy in film.get("duplicates") or []}
    better: dict[str, list[Row]] = {}
    for pair in film.get("copies") or []:
        better.setdefault(pair["shot_id"], []).append({**pair, "shot_id": pair["copy_of"]})
    rows = []
    for shot, score, looks, verdict in zip(shots, scores, aesthetics, verdicts, strict=True):
        sequence, context = used.get(shot["shot_id"], (None, None))
        copy = copies.get(shot["shot_id"], {})
        row = {
            **shot,
            **(score or {}),
            "aesthetic": looks,
            **(verdict or {}),
            "film_id": film["film_id"],
            "duration_s": shot["end_s"] - shot["start_s"],
            "sequence_id": sequence,
            "is_context": context,
            "duplicate_of": copy.get("duplicate_of"),
            "duplicate_distance": copy.get("distance"),
            "better_copies": None if film.get("copies") is None else better.get(shot["shot_id"], []),
        }
        rows.append({column: row.get(column) for column in SHOTS.names})
    return rows


def shot_rows(world: World) -> Iterator[Row]:
    """One row per shot of a film."""
    return itertools.chain.from_iterable(shots_of(world, film) for film in world.shown_films())


def film_models(film: Row) -> list[Row]:
    """What ran on a film before it was packed."""
    columns = ("boundary_models", "title_models", "aesthetic_models")
    return [model for column in columns for model in film.get(column) or []]


def models_of(sequence: Row, film: Row | None) -> list[Row]:
    """What ran on a sequence: boundaries, titles, aesthetics, analysis, captions; each once, so ordered."""
    models = [*film_models(film or {}), *(sequence["analysis_models"] or [])]
    for call in sequence["caption_calls"] or []:
        models.append(
            {
                "part": "captions",
                "tier": caption_tier(call["backend"]),
                "backend": call["backend"],
                "model_id": call["model_id"],
                "revision": call["revision"],
                "sha256": None,
            }
        )
    unique = {tuple(model.values()): model for model in models}
    return list(unique.values())


def caption_tier(backend: str | None) -> str:
    """`embedded` for the describer that needs no model, `full` for a language model."""
    return "embedded" if backend == "describe" else "full"


def scores_of(sequence: Row) -> Row:
    """Published scores of a sequence."""
    return {**(sequence["scores"] or {}), "aesthetic": sequence["aesthetic"]}


def sequence_rows(world: World) -> Iterator[Row]:
    """One row per packed sequence, kept or not."""
    films = {film["film_id"]: film for film in world.shown_films()}
    names = [s.name for s in SCORES]
    same = ("sequence_id", "film_id", *SPAN, "num_shots", "overlays", "licence", *STORY)
    crop = ("crop_x", "crop_y", "crop_width", "crop_height")
    for row in world.sequences:
        scores, subjects = scores_of(row), row["subjects"]
        primary = [s["subject_id"] for s in subjects or [] if s["is_primary"]]
        yield {
            **{c: row[c] for c in (*same, *crop, *VERDICT, "analysed_frames")},
            **{name: scores.get(name) for name in names},
            "duration_s": row["end_s"] - row["start_s"],
            "num_context": sum(bool(c["is_context"]) for c in row["clips"]),
            "num_clips": len(row["clip_files"]) if row["status"] == KEPT else 0,
            "num_subjects": None if subjects is None else len(subjects),
            "primary_subject_id": primary[0] if primary else None,
            "models": models_of(row, films.get(row["film_id"])),
            "preset": world.preset,
            "settings_hash": world.settings_hash,
        }


def video_path(sequence_id: str, clip_index: int) -> str:
    """Where a clip lies in the dataset folder."""
    return f"clips/{sequence_id}/{clip_index:02d}.mp4"


def image_path(recon_id: str, ref: str) -> str:
    """Where a target's picture lies in the dataset folder; `ref` gives the suffix."""
    return f"recon/{recon_id}{Path(ref).suffix}"


def proof_path(sequence_id: str, ref: str) -> str:
    """Where a picture of the review lies, relative to the review page."""
    return f"media/{sequence_id}/{Path(ref).name}"


def clips_of(sequence: Row, shots: Mapping[str, Row]) -> list[Row]:
    """Published clips of a sequence; `shots` by id gives the transitions."""
    texts = {c["clip_index"]: c for c in sequence["shot_captions"] or []}
    rows = []
    for clip in sorted(sequence["clip_files"] or [], key=lambda c: c["clip_index"]):
        index, shot = clip["clip_index"], shots.get(clip["shot_id"], {})
        text = texts.get(index, {})
        rows.append(
            {
                **{c: v for c, v in clip.items() if c != "video"},
                "sequence_id": sequence["sequence_id"],
                "film_id": sequence["film_id"],
                "video_path": video_path(sequence["sequence_id"], index),
                "duration_s": clip["num_frames"] / clip["fps"],
                **{c: shot.get(c) for c in ("transition_in", "transition_out")},
                **{c: text.get(c) for c in ("global_caption", "shot_caption", "caption")},
                "licence": sequence["licence"],
            }
        )
    return rows


def clip_rows(world: World) -> Iterator[Row]:
    """One row per exported shot of a kept sequence."""
    for film in world.shown_films():
        shots = {shot["shot_id"]: shot for shot in film.get("shots") or []}
        for sequence in world.of_film.get(film["film_id"], ()):
            if sequence["status"] == KEPT:
                yield from clips_of(sequence, shots)


def subjects_of(sequence: Row) -> list[Row]:
    """Published subjects of a sequence."""
    told = {d["subject_id"]: d["description"] for d in sequence["descriptions"] or []}
    return [
        {
            **subject,
            "sequence_id": sequence["sequence_id"],
            "film_id": sequence["film_id"],
            "description": told.get(subject["subject_id"]),
            "num_clips": len(subject["clip_indices"]),
        }
        for subject in sorted(sequence["subjects"] or [], key=lambda s: s["subject_id"])
    ]


def subject_rows(world: World) -> Iterator[Row]:
    """One row per subject of a kept sequence."""
    return itertools.chain.from_iterable(subjects_of(s) for s in world.kept())


def targets_of(sequence: Row) -> list[Row]:
    """Published reconstruction targets of a sequence: those whose picture was exported."""
    images = {i["recon_id"]: i for i in sequence["recon_images"] or []}
    texts = {c["recon_id"]: c["caption"] for c in sequence["recon_captions"] or []}
    clips = {c["clip_index"]: c["clip_id"] for c in sequence["clip_files"] or []}
    return [
        {
            **target,
            "sequence_id": sequence["sequence_id"],
            "film_id": sequence["film_id"],
            "clip_id": clips[target["clip_index"]],
            "image_path": image_path(target["recon_id"], images[target["recon_id"]]["image"]),
            "sha256": images[target["recon_id"]]["sha256"],
            "caption": texts.get(target["recon_id"]),
        }
        for target in sorted(sequence["recon_targets"] or [], key=lambda t: t["recon_id"])
        if target["recon_id"] in images
    ]


def target_rows(world: World) -> Iterator[Row]:
    """One row per reconstruction target of a kept sequence."""
    return itertools.chain.from_iterable(targets_of(s) for s in world.kept())


def caption_rows(world: World) -> Iterator[Row]:
    """One row per caption request, of rejected sequences too."""
    for sequence in world.sequences:
        for index, call in enumerate(sequence["caption_calls"] or []):
            ids = {"sequence_id": sequence["sequence_id"], "film_id": sequence["film_id"]}
            yield {**call, **ids, "call_index": index}


def _reject(grain: str, row_id: str, film: Row, verdict: Row, span: Row | None = None) -> Row:
    return {
        "id": row_id,
        "grain": grain,
        "film_id": film["film_id"],
        "path": film["path"],
        **{c: verdict[c] for c in VERDICT},
        **{c: span[c] if span else None for c in ("start_s", "end_s")},
    }


def reject_rows(world: World) -> Iterator[Row]:
    """Everything that was not kept: films, then shots, then sequences."""
    for film in world.films:
        if film["status"] != KEPT:
            yield _reject("film", film["film_id"] or film["path"], film, film)
    for film in world.shown_films():
        for shot in shots_of(world, film):
            if shot.get("usable") is False:
                settled = {"status": REJECTED, "stage": "filters"}
                verdict = {**settled, "reason": shot["reason"], "detail": shot["detail"]}
                yield _reject("shot", shot["shot_id"], film, verdict, shot)
    for row in world.sequences:
        if row["status"] != KEPT:
            yield _reject("sequence", row["sequence_id"], row, row, row)


def coverage_of(world: World, film: Row) -> list[Row]:
    """Spans that tile a film; those of a sequence that was not kept carry its reason."""
    sequences = world.of_film.get(film["film_id"], ())
    lost = {s["sequence_id"]: s["reason"] for s in sequences if s["status"] != KEPT}
    tails = [tail for s in sequences if s["status"] == KEPT for tail in _tails(s)]
    rows = []
    for span in _spans(film):
        packed = span["used_by"]
        used = packed is not None and packed not in lost
        reason = span["reason"] if used else lost.get(packed, span["reason"])
        whole = {**span, "used_by": packed if used else None, "reason": reason}
        parts = without_tails(whole, tails) if used and reason is None else [whole]
        rows += [{"film_id": film["film_id"], **part, "sequence_id": packed} for part in parts]
    return rows


def _tails(sequence: Row) -> Iterator[tuple[float, float]]:
    """The ends of its shots, in seconds of the film, that its clips of 4n+1 frames do not show."""
    ends = {clip["clip_index"]: clip["end_s"] for clip in sequence["clips"]}
    return ((clip["end_s"], ends[clip["clip_index"]]) for clip in sequence["clip_files"])


def _spans(film: Row) -> list[Row]:
    if film.get("coverage"):
        return film["coverage"]
    if not film.get("stream"):
        return []
    whole = {"start_s": 0.0, "end_s": film["stream"]["duration_s"]}
    return [{**whole, "used_by": None, "reason": film["reason"]}]


def coverage_rows(world: World) -> Iterator[Row]:
    """One row per span of a film."""
    return itertools.chain.from_iterable(coverage_of(world, f) for f in world.shown_films())


ROWS: dict[str, Callable[[World], Iterator[Row]]] = {
    "films": film_rows,
    "shots": shot_rows,
    "sequences": sequence_rows,
    "clips": clip_rows,
    "subjects": subject_rows,
    "recon_targets": target_rows,
    "captions": caption_rows,
    "rejects": reject_rows,
    "coverage": coverage_rows,
}
