"""One crop per sequence, without black bars, subtitles and logos, that keeps the tracked subjects."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curation import rows
from curation.engine.stage import Folder, Reject, Row, Stage, Worker
from curation.framing.crop_search import Crop as Rectangle
from curation.framing.crop_search import SubjectMap, find_crop, subject_map
from curation.framing.overlays import (
    LOGO,
    OBSTACLES,
    SUBTITLE,
    TITLE,
    Inside,
    OverlaySettings,
    find_overlays,
    read_samples,
)
from curation.framing.pictures import read_picture
from curation.framing.static_marks import static_marks
from curation.shots.signals import Signals

SOFT_EDGE = 4  # pixels beside a black bar that blur and compression may have darkened; 3 were seen
FLAT_RANGE = 12  # 8-bit luma around the median that counts as flat
FLAT_SHARE = 0.6  # of the picture
BOX = ("x", "y", "width", "height")
REASONS = (
    ("title_over_picture", TITLE),
    ("subtitles_over_subject", SUBTITLE),
    ("logo_over_subject", LOGO),
)
"""Reason of a rejection and the kind of text without which there would have been a crop."""


@dataclass(frozen=True, kw_only=True)
class Crop(Stage):
    """Tells text that was drawn over the film from text of the scene and finds the crop without it.

    The sequence is rejected as `title_over_picture`, `subtitles_over_subject`, `logo_over_subject`,
    `text_over_picture`, `subjects_do_not_fit` or `crop_too_small` when no crop is large enough and keeps
    enough of the subjects.
    A title or credit in the middle of the picture leaves no room beside it: the whole sequence goes, as one
    crop serves all its clips. Scene text stays in the picture.

    Attributes:
        aspect_width: width of the crop's shape, in any unit; it should be that of `export`.
        aspect_height: height of the crop's shape, in the same unit.
        min_crop_share: least area of the crop, as a share of the picture inside the black bars.
        min_height: least height of the crop in source pixels; it is enlarged to the exported height.
        min_kept: least share of the subjects' weight (heads above all) that the crop must keep.
        subject_weight: what losing all subjects costs against losing all of the picture's area.
        find_marks: look for logos without letters as well, in the stills of every clip.
        text: when text counts as drawn over the film.
    """

    name: ClassVar[str] = "crop"
    version: ClassVar[int] = 1
    reads: ClassVar[tuple[str, ...]] = (
        "sequence_id",
        "stream",
        "clips",
        "scores",
        "signals",
        "segments",
        "text_boxes",
        "boxes",
        "stills",
    )
    writes: ClassVar[pa.Schema] = rows.CROP

    aspect_width: int = 832
    aspect_height: int = 480
    min_crop_share: float = 0.35
    min_height: int = 144
    min_kept: float = 0.6
    subject_weight: float = 2.0
    find_marks: bool = True
    text: OverlaySettings = field(default_factory=OverlaySettings)

    def __post_init__(self) -> None:
        if self.aspect_width < 1 or self.aspect_height < 1:
            raise ValueError("aspect_width and aspect_height must be positive")
        if not (0 <= self.min_crop_share <= 1 and 0 <= self.min_kept <= 1):
            raise ValueError("min_crop_share and min_kept are shares: 0 to 1")

    def worker(self) -> Worker:
        """Needs no model."""
        return self._crop

    def _crop(self, row: Row, folder: Folder) -> Row:
        stream, clips = row["stream"], row["clips"]
        inside = inside_bars(stream, row["scores"])
        text_rows = pq.read_table(folder.open(row["text_boxes"])).to_pylist()
        signals = [
            Signals.load(folder.open(ref))
            for ref, segment in zip(row["signals"], row["segments"], strict=True)
            if _overlaps(segment, clips)
        ]
        flat = flat_pictures(signals, sorted({r["pts"] for r in text_rows}), stream, inside)
        overlays = find_overlays(read_samples(text_rows, clips, flat), inside, self.text)
        if self.find_marks:
            overlays += marks(row["stills"], stream, clips, inside, overlays, folder)
        exported = {clip["clip_index"] for clip in clips if not clip["is_context"]}
        boxes = pq.read_table(folder.open(row["boxes"])).to_pylist()
        subjects = subject_map([b for b in boxes if b["clip_index"] in exported], inside)
        found = self.choose(inside, overlays, subjects, stream)
        return {
            "crop_x": found.x,
            "crop_y": found.y,
            "crop_width": found.width,
            "crop_height": found.height,
            "overlays": overlays,
        }

    def choose(self, inside: Inside, overlays: Sequence[Row], subjects: SubjectMap, stream: Row) -> Rectangle:
        """The best crop.

        Raises:
            Reject: there is none; the reason is the kind of text without which there would be one.
        """
        found = self._search(inside, overlays, OBSTACLES, subjects, stream)
        fault = self._fault(found)
        if not fault:
            assert found is not None
            return found
        for reason, kind in REASONS:
            culprits = [o for o in overlays if o["kind"] == kind]
            others = tuple(k for k in OBSTACLES if k != kind)
            if culprits and not self._fault(self._search(inside, overlays, others, subjects, stream)):
                first = culprits[0]
                where = f"; first {kind} from {first['start_s']:.1f} s to {first['end_s']:.1f} s"
                raise Reject(reason, fault + where)
        free = self._search(inside, overlays, (), subjects, stream)
        fault_of_film = self._fault(free)
        if not fault_of_film:
            raise Reject("text_over_picture", f"{fault}; text of several kinds leaves no room")
        too_small = free is None or self._too_small(free)
        raise Reject("crop_too_small" if too_small else "subjects_do_not_fit", fault_of_film)

    def _search(
        self,
        inside: Inside,
        overlays: Sequence[Row],
        kinds: Sequence[str],
        subjects: SubjectMap,
        stream: Row,
    ) -> Rectangle | None:
        walls = obstacles([o for o in overlays if o["kind"] in kinds], inside)
        aspect = self.aspect_width / self.aspect_height * stream["sar_den"] / stream["sar_num"]
        area = self.min_crop_share * inside.width * inside.height
        least = max(self.min_height, math.ceil(math.sqrt(area / aspect)))
        for min_height in (least, 2):  # a crop that will do comes first; else the one to report
            found = find_crop(
                inside,
                walls,
                subjects,
                aspect,
                subject_weight=self.subject_weight,
                min_height=min_height,
            )
            if found is not None:
                return found
        return None

    def _too_small(self, found: Rectangle) -> bool:
        return found.area_share < self.min_crop_share or found.height < self.min_height

    def _fault(self, found: Rectangle | None) -> str:
        """What is wrong with a crop, one line; empty if nothing."""
        if found is None:
            return "no crop of the wanted shape avoids the text"
        if self._too_small(found):
            return (
                f"the best crop is {found.width}x{found.height} ({found.area_share:.0%} of the picture "
                f"inside the bars); wanted: {self.min_crop_share:.0%} and {self.min_height} pixels high"
            )
        if found.kept < self.min_kept:
            return f"the best crop keeps {found.kept:.0%} of the subjects; wanted: {self.min_kept:.0%}"
        return ""


def inside_bars(stream: Row, scores: Row) -> Inside:
    """The picture inside its black bars, with a soft edge left off beside each bar."""
    top, bottom, left, right = ((scores[f"bar_{side}"] or 0) for side in ("top", "bottom", "left", "right"))
    edge = {True: SOFT_EDGE, False: 0}
    return Inside(
        left=left + edge[left > 0],
        top=top + edge[top > 0],
        right=stream["width"] - right - edge[right > 0],
        bottom=stream["height"] - bottom - edge[bottom > 0],
    )


def obstacles(overlays: Sequence[Row], inside: Inside) -> np.ndarray:
    """Boxes that the crop must not touch, float64 [K, 4].

    A subtitle bars the whole width of the picture: its other lines are as wide as they please.
    """
    boxes = [
        (inside.left, o["y"], inside.width, o["height"])
        if o["kind"] == SUBTITLE
        else (o["x"], o["y"], o["width"], o["height"])
        for o in overlays
    ]
    return np.asarray(boxes, np.float64).reshape(-1, 4)


def marks(
    stills: Sequence[Row],
    stream: Row,
    clips: Sequence[Row],
    inside: Inside,
    known: Sequence[Row],
    folder: Folder,
) -> list[Row]:
    """Logos without letters that are not among the `known` overlays, as `curation.rows.OVERLAY` values."""
    exported = [clip for clip in clips if not clip["is_context"]]
    pictures = [read_picture(folder.open(s["image"]), grey=True) for s in stills]
    if not pictures:
        return []
    scale = stream["width"] / pictures[0].shape[1]
    shots = [still["clip_index"] for still in stills]
    edges = (inside.left / scale, inside.top / scale, inside.right / scale, inside.bottom / scale)
    found = static_marks(pictures, shots, edges) * scale
    logos = [(o["x"], o["y"], o["width"], o["height"]) for o in known if o["kind"] == LOGO]
    start, end = exported[0]["start_s"], exported[-1]["end_s"]
    return [
        {
            "kind": LOGO,
            **{name: round(float(v), 2) for name, v in zip(BOX, box, strict=True)},
            "start_s": start,
            "end_s": end,
        }
        for box in found
        if not any(contains(logo, box) for logo in logos)
    ]


def contains(outer: Sequence[float], box: Sequence[float]) -> bool:
    """Whether one x, y, width, height lies inside another."""
    ends = zip((outer[0] + outer[2], outer[1] + outer[3]), (box[0] + box[2], box[1] + box[3]), strict=True)
    return outer[0] <= box[0] and outer[1] <= box[1] and all(b <= o for o, b in ends)


def flat_pictures(signals: Sequence[Signals], pts: Sequence[int], stream: Row, inside: Inside) -> list[bool]:
    """For each time, whether most of the picture has one brightness: a card, or a picture faded out."""
    if not signals:
        return [False] * len(pts)
    times = np.concatenate([s.pts for s in signals])
    thumbs = np.concatenate([s.thumbs_u8 for s in signals])
    rows_, columns = thumbs.shape[1:]
    top, bottom = (round(y / stream["height"] * rows_) for y in (inside.top, inside.bottom))
    left, right = (round(x / stream["width"] * columns) for x in (inside.left, inside.right))
    flat = []
    for at in np.clip(np.searchsorted(times, pts, side="right") - 1, 0, len(times) - 1):
        thumb = thumbs[at, top:bottom, left:right].astype(np.int64)
        near = np.abs(thumb - np.median(thumb)) <= FLAT_RANGE
        flat.append(bool(near.mean() >= FLAT_SHARE))
    return flat


def _overlaps(segment: Row, clips: Sequence[Row]) -> bool:
    starts, ends = min(c["start_pts"] for c in clips), max(c["end_pts"] for c in clips)
    return segment["start_pts"] < ends and (segment["end_pts"] is None or segment["end_pts"] > starts)
