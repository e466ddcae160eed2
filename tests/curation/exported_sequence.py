"""A sequence as the captions stage finds it: cut from a tiny film and exported, with subjects and targets."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq

from curation import ids, rows
from curation.stages.export import Export
from tests.curation.tiny_film import sequence_row, shots_of, write_film
from tests.support import scratch

SPANS = [(0, 40), (40, 64), (64, 110)]
CROP = (0, 0, 160, 92)


def subject(sequence, index, letter, tracks):
    return {
        "subject_id": ids.subject_id(sequence, index),
        "label": f"[Person {letter}]",
        "class_name": "person",
        "is_primary": index == 0,
        "screen_time_s": 2.0,
        "track_ids": tracks,
        "clip_indices": [0],
        "confidence": 0.5,
        "colours": ["red"],
    }


def box(track, clip, step, x):
    return {
        "track_id": track,
        "clip_index": clip["clip_index"],
        "shot_id": clip["shot_id"],
        "frame": clip["start_frame"] + 3 * step,
        "pts": clip["start_pts"] + 1536 * step,
        "time_s": clip["start_s"] + step / 8,
        **{"x": x + step, "y": 20.0, "width": 40.0, "height": 60.0},
        **{"score": 0.9, "class_name": "person", "sharpness": 9.0},
    }


def exported_sequence(tmp_path, *, seed=0):
    """The row of a sequence of two clips around a context shot; A in both, B in the last, C cropped away.

    Artefacts lie in the store that `scratch(tmp_path)` uses; another seed gives another film.
    """
    film = write_film(tmp_path / f"film{seed}.mp4", shots_of([40, 24, 46], seed=seed))
    row = sequence_row(film, SPANS, context=(1,), targets=[(0, 3)], crop=CROP, film=f"film{seed}")
    name, clips = row["sequence_id"], row["clips"]
    row["subjects"] = [
        subject(name, 0, "A", [1, 2]),
        subject(name, 1, "B", [3]),
        subject(name, 2, "C", [4]),
    ]
    frame = {"frame": clips[0]["start_frame"] + 3, "x": 11.0, "y": 20.0, "width": 40.0, "height": 60.0}
    row["recon_targets"][0] |= frame
    folder = scratch(tmp_path, f"analyse{seed}")
    boxes = [box(1, clips[0], i, 10.0) for i in range(12)]
    boxes += [box(2, clips[2], i, 20.0) for i in range(14)]
    boxes += [box(3, clips[2], i, 100.0) for i in range(14)]
    boxes += [{**box(4, clips[2], i, 100.0), "y": 90.0} for i in range(14)]
    boxes += [box(9, clips[0], i, 100.0) for i in range(12)]  # a track of nobody
    pq.write_table(pa.Table.from_pylist(boxes, schema=rows.TRACK_BOX), folder.path("boxes.parquet"))
    row["boxes"], row["scores"] = folder.ref("boxes.parquet"), None
    folder.commit()
    folder = scratch(tmp_path, f"export{seed}")
    row |= Export(height=96, width=160).worker()(row, folder)
    folder.commit()
    return row
