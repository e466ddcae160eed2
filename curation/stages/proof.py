"""Proof: small pictures of what was made, for the review page; publishing itself never decodes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curation.engine.stage import Folder, Row, Stage, Worker
from curation.framing.pictures import (
    beside,
    cut_out,
    draw_boxes,
    draw_crop,
    jpeg,
    map_box,
    read_picture,
    resize,
)
from curation.rows import STR
from curation.timing import frame_index_16fps

PICTURE = pa.struct([("kind", STR), ("about", STR), ("image", STR)])
PROOF = pa.schema([("proof", pa.list_(PICTURE))])
"""`kind`: strip (about a clip index: its first, middle and last frame), boxes (about a clip index: its
subjects), crop (about the sequence: a source frame before and after), cast (about a subject id: it in each of
its clips)."""


@dataclass(frozen=True, kw_only=True)
class Proof(Stage):
    """Contact strips of clips, subjects with their boxes, and the crop drawn on a frame of the film.

    Attributes:
        strip_width: width of each of the three frames of a clip's strip, pixels.
        boxes_width: width of a frame with boxes drawn on it, pixels.
        film_width: width of the film's frame before the crop, pixels; the one after has its height.
        cast_height: height of the cut-outs of a subject, pixels.
        quality: quality of these JPEG files, 0 to 100.
    """

    name: ClassVar[str] = "proof"
    version: ClassVar[int] = 2
    reads: ClassVar[tuple[str, ...]] = (
        "sequence_id",
        "stream",
        "clips",
        "crop_x",
        "crop_y",
        "crop_width",
        "crop_height",
        "overlays",
        "subjects",
        "boxes",
        "clip_files",
        "stills",
    )
    writes: ClassVar[pa.Schema] = PROOF

    strip_width: int = 208
    boxes_width: int = 416
    film_width: int = 640
    cast_height: int = 128
    quality: int = 85

    def worker(self) -> Worker:
        """Decodes every exported clip once; the film itself is not opened again."""
        return self._work

    def _work(self, row: Row, folder: Folder) -> Row:
        boxes = _boxes(row, folder)
        cast: dict[str, list[np.ndarray]] = {s["subject_id"]: [] for s in row["subjects"]}
        pictures: list[Row] = []
        for clip in row["clip_files"]:
            start = next(c["start_pts"] for c in row["clips"] if c["clip_index"] == clip["clip_index"])
            seen = [
                {**box, "k": frame_index_16fps(row["stream"], start, box["pts"])}
                for box in boxes.get(clip["clip_index"], ())
            ]
            seen = [box for box in seen if box["k"] < clip["num_frames"]]
            pictures += self._clip(row, clip, seen, cast, folder)
        film = self._film_frame(row, folder)
        pictures.append(_save(self, folder, "crop", row["sequence_id"], "crop.jpg", film))
        for number, (subject, cuts) in enumerate(cast.items()):
            if cuts:
                name = f"cast-{number:02d}.jpg"
                pictures.append(_save(self, folder, "cast", subject, name, beside(cuts)))
        return {"proof": pictures}

    def _clip(
        self, row: Row, clip: Row, seen: list[Row], cast: dict[str, list[np.ndarray]], folder: Folder
    ) -> Iterator[Row]:
        index, count = clip["clip_index"], clip["num_frames"]
        busiest, largest = busiest_frame(seen), largest_boxes(seen)
        strip = [0, (count - 1) // 2, count - 1]
        wanted = {*strip, *(b["k"] for b in largest.values())}
        if busiest is not None:
            wanted.add(busiest)
        frames = _frames(folder.open(clip["video"]), wanted, folder)
        crop = (row["crop_x"], row["crop_y"], row["crop_width"], row["crop_height"])
        shown = beside([resize(frames[k], self.strip_width) for k in strip])
        yield _save(self, folder, "strip", str(index), f"strip-{index:02d}.jpg", shown)
        if busiest is not None:
            picture = resize(frames[busiest], self.boxes_width)
            drawn = draw_boxes(picture, [b for b in seen if b["k"] == busiest], row["subjects"], crop)
            yield _save(self, folder, "boxes", str(index), f"boxes-{index:02d}.jpg", drawn)
        for subject, box in sorted(largest.items()):
            cast[subject].append(cut_out(frames[box["k"]], map_box(box, crop), self.cast_height))

    def _film_frame(self, row: Row, folder: Folder) -> np.ndarray:
        still = telling_still(row)
        picture = read_picture(folder.open(still["image"]))
        scale = picture.shape[1] / row["stream"]["width"]
        x, y, width, height = (round(row[f"crop_{n}"] * scale) for n in ("x", "y", "width", "height"))
        overlays = [
            {**o, **{n: o[n] * scale for n in ("x", "y", "width", "height")}} for o in row["overlays"] or []
        ]
        return draw_crop(picture, (x, y, width, height), overlays, still["time_s"], self.film_width)


# -- choices ------------------------------------------------------------------------------------


def telling_still(row: Row) -> Row:
    """The still where the crop has most to show: in a subtitle, else with a logo, else the first."""
    inside = [
        still
        for start, end in telling_spans(row)
        for still in row["stills"]
        if start <= still["time_s"] < end
    ]
    return inside[0] if inside else row["stills"][0]


def telling_spans(row: Row) -> list[tuple[float, float]]:
    """Spans of subtitles in seconds, longest first; without any, of logos; without both, the first clip."""
    for kind in ("subtitle", "logo"):
        spans = [(o["start_s"], o["end_s"]) for o in row["overlays"] or [] if o["kind"] == kind]
        if spans:
            return sorted(spans, key=lambda span: (span[0] - span[1], span))
    clip = row["clip_files"][0]
    return [(clip["start_s"], clip["end_s"])]


def busiest_frame(boxes: Sequence[Row]) -> int | None:
    """The clip frame `k` with the most boxes of subjects; of equals the largest, then the first."""
    at: dict[int, tuple[int, float]] = {}
    for box in boxes:
        count, area = at.get(box["k"], (0, 0.0))
        at[box["k"]] = (count + (box["subject_id"] is not None), area + box["width"] * box["height"])
    return max(at, key=lambda k: (*at[k], -k)) if at else None


def largest_boxes(boxes: Sequence[Row]) -> dict[str, Row]:
    """The largest box of each subject, the first of equals."""
    best: dict[str, Row] = {}
    for box in boxes:
        subject = box["subject_id"]
        if subject is None:
            continue
        area = box["width"] * box["height"]
        if subject not in best or area > best[subject]["width"] * best[subject]["height"]:
            best[subject] = box
    return best


# -- files --------------------------------------------------------------------------------------


def _boxes(row: Row, folder: Folder) -> dict[int, list[Row]]:
    """Boxes by clip index, with the subject they belong to or None."""
    if row["boxes"] is None:
        return {}
    owner = {t: s["subject_id"] for s in row["subjects"] for t in s["track_ids"]}
    found: dict[int, list[Row]] = {}
    for box in pq.read_table(folder.open(row["boxes"])).to_pylist():
        mine = {**box, "subject_id": owner.get(box["track_id"])}
        found.setdefault(box["clip_index"], []).append(mine)
    return found


def _frames(video: Path, wanted: set[int], folder: Folder) -> dict[int, np.ndarray]:
    """BGR pictures of an exported clip by frame index; counted apart from the decoding of films."""
    found = {}
    with av.open(str(video)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        for index, frame in enumerate(container.decode(stream)):
            folder.count("decoded_clip_frames", 1)
            if index in wanted:
                found[index] = frame.to_ndarray(format="bgr24")
            if index == max(wanted):
                break
    return found


def _save(stage: Proof, folder: Folder, kind: str, about: str, name: str, picture: np.ndarray) -> Row:
    folder.path(name).write_bytes(jpeg(picture, stage.quality))
    return {"kind": kind, "about": about, "image": folder.ref(name)}
