"""Film and sequence rows of the whole contract, as they stand after the last stage, with their artefacts."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from curation import ids, rows
from curation.engine.stage import Row
from curation.engine.store import Store

HOSTILE = "it's <script>alert(1)</script> \"q\"\n'); DROP TABLE films;-- | {{ 7*7 }} \u00e9"
TICKS = 1000  # per second
SHOT_S = (4.0, 5.0, 6.0, 3.0, 7.0, 5.0)
NO_VERDICT = {"status": "kept", "stage": None, "reason": None, "detail": None}
MODEL = {
    "part": "shots",
    "tier": "embedded",
    "backend": "scenedetect",
    "model_id": "adaptive",
    "revision": "0.7",
    "sha256": None,
}


def artefact(store: Store, ref: str, content: bytes) -> str:
    path = store.path(ref)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return ref


def span(start_s: float, end_s: float, fps: int = 25) -> Row:
    return {
        "start_pts": round(start_s * TICKS),
        "end_pts": round(end_s * TICKS),
        "start_frame": round(start_s * fps),
        "end_frame": round(end_s * fps),
        "start_s": start_s,
        "end_s": end_s,
    }


def scores(value: float = 40.0) -> Row:
    out: dict[str, Any] = {f.name: value for f in rows.SHOT_SCORES}
    out |= dict.fromkeys(("bar_top", "bar_bottom", "bar_left", "bar_right"), 12)
    return {**out, "phash": ["0123456789abcdef" * 2, None], "phash_end": []}


def stream(duration_s: float) -> Row:
    numbers = {f.name: 1 for f in rows.STREAM if f.type in (pa.int32(), pa.int64())}
    return {
        **numbers,
        "stream_index": 0,
        "width": 1280,
        "height": 720,
        "rotation": 0,
        "time_base_den": TICKS,
        "first_pts": 0,
        "fps": 25.0,
        "vfr": False,
        "interlaced": False,
        "codec": "h264",
        "pix_fmt": "yuv420p",
        "container": "mov,mp4",
        "duration_s": duration_s,
    }


def source(path: str, film_hash: str | None, licence: str = "CC-BY-3.0") -> Row:
    return {
        "path": path,
        "licence": licence,
        "film_id": film_hash and ids.film_id(film_hash),
        "sha256": film_hash,
        "size_bytes": 12345 if film_hash else None,
    }


FILM_COLUMNS = (
    *("stream", "segments", "notes", "signals", "shots", "boundary_models", "shot_scores"),
    *("aesthetics", "aesthetic_models"),
    *("copies", "duplicates", "shot_verdicts", "windows", "coverage", "preset_coverage"),
    "no_window_because",
)


def bad_film(path: str, *, film_hash: str | None = None, reason: str = "not_a_video") -> Row:
    verdict = {"status": "failed", "stage": "ingest", "reason": reason, "detail": f"{path}: no video"}
    return {**source(path, film_hash), **dict.fromkeys(FILM_COLUMNS), **verdict}


def film(path: str, film_hash: str, *, packed: bool = True, licence: str = "CC-BY-3.0") -> Row:
    """A film of six shots: the first is dark, the others are packed into one window."""
    where = source(path, film_hash, licence)
    film_id, shots, at = where["film_id"], [], 0.0
    for index, length in enumerate(SHOT_S):
        times = span(at, at + length)
        shots.append(
            {
                "shot_id": ids.shot_id(film_id, times["start_pts"], times["end_pts"]),
                "shot_index": index,
                **times,
                "transition_in": "start" if index == 0 else "fade" if index == 3 else "cut",
                "transition_out": "end" if index == len(SHOT_S) - 1 else "cut",
                "confidence": 1.0 if index == 0 else 0.75,
            }
        )
        at += length
    start, end = shots[1]["start_pts"], shots[-1]["end_pts"]
    used = ids.sequence_id(film_id, start, end) if packed else None
    dark = {"usable": False, "reason": "too_dark", "detail": HOSTILE}
    window = {
        **span(shots[1]["start_s"], at),
        "num_shots": 4,
        "clips": [{"shot_index": i, "is_context": i == 3} for i in range(1, 6)],
    }
    rest = {"start_s": SHOT_S[0], "end_s": at, "used_by": used}
    return {
        **where,
        "stream": stream(at),
        "segments": [{"index": 0, "start_pts": 0, "end_pts": None}],
        "notes": ["variable frame rate: times are used, not indices"],
        "signals": ["scan/aa/signals.npz"],
        "shots": shots,
        "boundary_models": [MODEL],
        "shot_scores": [scores(30.0 + i) for i in range(len(SHOT_S))],
        "aesthetics": [None, 4.5, 5.0, 5.5, None, 6.0],
        "aesthetic_models": [{**MODEL, "part": "aesthetic"}],
        "copies": [
            {"shot_id": shots[0]["shot_id"], "copy_of": "f0-s0-1", "distance": 3.5, "is_part": False},
        ],
        "duplicates": [
            {"shot_id": shots[0]["shot_id"], "duplicate_of": "f0-s0-1", "distance": 3.5},
        ],
        "shot_verdicts": [dark] + [{"usable": True, "reason": None, "detail": None}] * 5,
        "windows": [window] if packed else [],
        "coverage": [
            {"start_s": 0.0, "end_s": SHOT_S[0], "used_by": None, "reason": "too_dark"},
            {**rest, "reason": None if packed else "no_window"},
        ],
        "preset_coverage": [
            {"preset": "paper-table", "num_sequences": int(packed), "covered_s": 23.0, "share": 0.77}
        ],
        "no_window_because": None if packed else "no setting helps",
        **NO_VERDICT,
    }


def sequence(of: Row, store: Store, *, text: str = HOSTILE) -> Row:
    """The sequence of `film`, kept, with clips, subjects, targets, captions and their files."""
    members = of["shots"][1:]
    first, last = members[0], members[-1]
    name = ids.sequence_id(of["film_id"], first["start_pts"], last["end_pts"])
    clips = [
        {
            **{k: shot[k] for k in ("shot_id", *(c for c, _ in rows.SPAN))},
            "clip_index": index,
            "is_context": index == 2,
        }
        for index, shot in enumerate(members)
    ]
    exported = [c for c in clips if not c["is_context"]]
    row = {
        "sequence_id": name,
        **{k: of[k] for k in ("film_id", "path", "licence", "stream", "signals", "segments")},
        **span(first["start_s"], last["end_s"]),
        "num_shots": 4,
        "clips": clips,
        "scores": scores(),
        "aesthetic": 5.25,
        "text_boxes": None,
        "embeddings": None,
        "stills": [],
        "analysed_frames": 60,
        "analysis_models": [{**MODEL, "part": "detect", "backend": "opencv", "model_id": "hog"}],
        **{"crop_x": 100, "crop_y": 60, "crop_width": 1040, "crop_height": 600},
        "overlays": [
            {"kind": "subtitle", "x": 300.0, "y": 650.0, "width": 600.0, "height": 40.0}
            | {"start_s": 5.0, "end_s": 9.0}
        ],
        **NO_VERDICT,
    }
    row["boxes"] = _boxes(store, name, exported)
    return row | _subjects(name, exported, text) | _exported(store, name, exported) | _texts(name, text)


def _boxes(store: Store, name: str, clips: list[Row]) -> str:
    ref = f"analyse/bb/{name}/boxes.parquet"
    boxes = [
        {
            "track_id": track,
            "clip_index": clip["clip_index"],
            "shot_id": clip["shot_id"],
            **{"frame": clip["start_frame"] + 5 * step, "pts": clip["start_pts"] + 200 * step},
            "time_s": clip["start_s"] + 0.2 * step,
            **{"x": 400.0 + 10 * step, "y": 150.0, "width": 120.0, "height": 300.0},
            **{"score": 0.9, "class_name": "person", "sharpness": 50.0},
        }
        for track, clip in enumerate([*clips, clips[0]])  # the last track belongs to no subject
        for step in range(5)
    ]
    store.path(ref).parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(boxes, schema=rows.TRACK_BOX), store.path(ref))
    return ref


def _subjects(name: str, clips: list[Row], text: str) -> Row:
    subject = {
        "subject_id": ids.subject_id(name, 0),
        "label": "[Person A]",
        "class_name": "person",
        "is_primary": True,
        "screen_time_s": 12.5,
        "track_ids": list(range(len(clips))),
        "clip_indices": [c["clip_index"] for c in clips],
        "confidence": 0.8,
        "colours": ["red", "navy"],
    }
    targets = [
        {
            "recon_id": ids.recon_id(name, k),
            "subject_id": subject["subject_id"],
            "clip_index": clips[k]["clip_index"],
            **{"frame": clips[k]["start_frame"] + 5, "pts": clips[k]["start_pts"] + 200},
            "time_s": clips[k]["start_s"] + 0.2,
            "frame_in_clip_16fps": 4,
            **{"x": 410.0, "y": 150.0, "width": 120.0, "height": 300.0},
            **{"area_share": 0.04, "sharpness": 50.0},
        }
        for k in range(2)
    ]
    told = {"subject_id": subject["subject_id"], "label": "[Person A]", "description": text}
    return {"subjects": [subject], "recon_targets": targets, "descriptions": [told]}


def _exported(store: Store, name: str, clips: list[Row]) -> Row:
    files, images = [], []
    for clip in clips:
        content = f"video {name} {clip['clip_index']}".encode()
        ref = artefact(store, f"export/cc/{name}/{clip['clip_index']:02d}.mp4", content)
        files.append(
            {
                "clip_id": ids.clip_id(name, clip["clip_index"]),
                "clip_index": clip["clip_index"],
                "shot_id": clip["shot_id"],
                "video": ref,
                **{"num_frames": 81, "fps": 16.0, "height": 480, "width": 832},
                "sha256": hashlib.sha256(content).hexdigest(),
                **{k: clip[k] for k in ("start_s", "end_s")},
            }
        )
    for k in range(2):
        content = f"picture {name} {k}".encode()
        recon = ids.recon_id(name, k)
        ref = artefact(store, f"export/cc/{name}/{recon}.png", content)
        digest = hashlib.sha256(content).hexdigest()
        images.append({"recon_id": recon, "image": ref, "sha256": digest})
    return {"clip_files": files, "recon_images": images, "looks": f"export/cc/{name}/looks.parquet"}


def _texts(name: str, text: str) -> Row:
    call = {
        **{"stage": "shot", "target": "0", "status": "ok", "backend": "describe"},
        **{"model_id": "describer", "revision": "1", "prompt_hash": "ab" * 32},
        **{"tokens_in": None, "tokens_out": None, "faults": ["unknown_label"]},
        **{"sampling": None, "attempts": 1, "asked": None, "answered": text},
    }
    return {
        "story_caption": text,
        "reconstruct_target": f"[Person A] {text}",
        "shot_captions": [
            {
                "clip_index": i,
                "global_caption": f"[Person A]: {text}",
                "shot_caption": f"[Person A] walks, {i}.",
                "caption": f"global caption: [Person A]: {text}; shot caption: [Person A] walks, {i}.",
            }
            for i in (0, 1, 3, 4)
        ],
        "recon_captions": [{"recon_id": ids.recon_id(name, k), "caption": f"{text} {k}"} for k in range(2)],
        "caption_calls": [{**call, "stage": "story", "target": name}, call],
    }


def rejected(row: Row, *, stage: str = "captions", reason: str = "no_label") -> Row:
    return {**row, "status": "rejected", "stage": stage, "reason": reason, "detail": HOSTILE}


def outcome(folder: Path) -> tuple[dict[str, list[Row]], Store]:
    """Five files: two films with a kept sequence, one whose sequence is rejected, a copy and a text file."""
    store = Store(folder)
    one = film(f"/films/{HOSTILE.replace('/', '')}.mp4", "1" * 64)
    two = film("/films/two.mp4", "2" * 64, licence="CC0")
    three = film("/films/three.mp4", "3" * 64)
    four = film("/films/four.mp4", "4" * 64, packed=False)
    copy = bad_film("/films/again.mp4", film_hash="2" * 64, reason="same_film") | {
        "status": "rejected",
        "stage": "same_film",
    }
    sequences = [sequence(one, store), sequence(two, store), rejected(sequence(three, store))]
    films = [three, bad_film("/films/notes.txt"), one, copy, two, four]
    return {"film": films, "sequence": sequences}, store
