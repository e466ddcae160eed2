"""Reconstruction targets: the frames of a sequence in which its primary subject is largest and usable.

"We track the primary subject over time and select two frames where the subject occupies the largest visual
area" (Memento, arXiv 2606.14667), under what its trainer needs: the frame lies within the first 81 of a
clip at 16 a second, and in a clip that is followed by another one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curation import ids, rows, timing
from curation.engine.stage import Folder, Reject, Resources, Row, Stage, Worker
from curation.stages.subjects import inside_share


@dataclass(frozen=True)
class Candidate:
    """A box that may become a target."""

    subject_id: str
    box: Row
    index_16fps: int
    area_share: float
    inside: float


@dataclass(frozen=True, kw_only=True)
class ReconTargets(Stage):
    """Selects reconstruction targets and rejects sequences without any.

    Attributes:
        count: most targets of a sequence.
        max_frame: targets lie before this frame of their clip at 16 a second; the trainer reads 81.
        min_inside: share of the box inside the crop; frames that reach it come before all others.
        least_inside: no target has less than this inside the crop.
        min_area_share: least share of the cropped picture; smaller subjects teach nothing.
        max_area_share: boxes over this share of the picture show too little of the subject's outline.
        min_sharpness_share: least share of the subject's median sharpness; blurred frames are passed over.
        min_apart_s: two targets of one clip lie at least this far apart.
        other_clip_bonus: a second target from another clip may be smaller by this factor.
        keep_without: keep a sequence without a target instead of rejecting it.
    """

    name: ClassVar[str] = "recon_targets"
    version: ClassVar[int] = 1
    reads: ClassVar[tuple[str, ...]] = (
        *("sequence_id", "stream", "clips", "subjects", "boxes"),
        *("crop_x", "crop_y", "crop_width", "crop_height"),
    )
    writes: ClassVar[pa.Schema] = rows.RECON
    resources: ClassVar[Resources] = Resources(cpus=1)

    count: int = 2
    max_frame: int = timing.TRAINED_FRAMES
    min_inside: float = 0.95
    least_inside: float = 0.7
    min_area_share: float = 0.01
    max_area_share: float = 0.85
    min_sharpness_share: float = 0.6
    min_apart_s: float = 0.75
    other_clip_bonus: float = 0.4
    keep_without: bool = False

    def worker(self) -> Worker:
        """Arithmetic only."""
        return self.targets

    def targets(self, row: Row, folder: Folder) -> Row:
        """The targets of one sequence.

        Raises:
            Reject: no_recon_target.
        """
        boxes = pq.read_table(folder.open(row["boxes"])).to_pylist()
        crop = (row["crop_x"], row["crop_y"], row["crop_width"], row["crop_height"])
        chosen: list[Candidate] = []
        for subject in by_rank(row["subjects"]):
            if not chosen:
                chosen = self.select(self.candidates(row, subject, boxes, crop))
        if not chosen and not self.keep_without:
            raise Reject("no_recon_target", self._why(row))
        chosen.sort(key=lambda c: (c.box["clip_index"], c.box["frame"]))
        targets = [self._target(row["sequence_id"], n, c) for n, c in enumerate(chosen)]
        return {"recon_targets": targets}

    def candidates(
        self, row: Row, subject: Row, boxes: Sequence[Row], crop: tuple[int, int, int, int]
    ) -> list[Candidate]:
        """The boxes of a subject that the trainer could use."""
        exported = [c for c in row["clips"] if not c["is_context"]]
        clips = {c["clip_index"]: c for c in exported[:-1]}
        wanted = set(subject["track_ids"])
        own = [b for b in boxes if b["track_id"] in wanted and b["clip_index"] in clips]
        if not own:
            return []
        table = np.array([[b[k] for k in ("x", "y", "width", "height")] for b in own])
        inside = inside_share(table, crop)
        shares = table[:, 2] * table[:, 3] * inside / (crop[2] * crop[3])
        enough = self.min_sharpness_share * float(np.median([b["sharpness"] for b in own]))
        found = []
        for box, part, share in zip(own, inside, shares, strict=True):
            clip = clips[box["clip_index"]]
            index = timing.frame_index_16fps(row["stream"], clip["start_pts"], box["pts"])
            if (
                index < min(self.max_frame, exported_frames(row["stream"], clip))
                and part >= self.least_inside
                and self.min_area_share <= share <= self.max_area_share
                and box["sharpness"] >= enough
            ):
                found.append(Candidate(subject["subject_id"], box, index, float(share), float(part)))
        return found

    def select(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """The largest usable box, then the largest from another clip (or else from another moment)."""
        whole = [c for c in candidates if c.inside >= self.min_inside]
        pool = whole if len(whole) >= self.count else list(candidates)
        chosen: list[Candidate] = []
        while pool and len(chosen) < self.count:
            best = max(pool, key=lambda c: self._worth(c, chosen))
            chosen.append(best)
            pool = [c for c in pool if not self._same_moment(c, best)]
        return chosen

    def _worth(self, c: Candidate, chosen: Sequence[Candidate]) -> tuple[float, float, int]:
        """Area by certainty; less for a clip that has a target already: the trainer needs other poses too.

        Certainty keeps a sure box of the subject before a larger outline of whatever moved.
        """
        again = any(c.box["clip_index"] == other.box["clip_index"] for other in chosen)
        area = c.area_share * (self.other_clip_bonus if again else 1.0)
        return (area * c.inside * c.box["score"], c.box["sharpness"], -c.box["frame"])

    def _same_moment(self, a: Candidate, b: Candidate) -> bool:
        near = abs(a.box["time_s"] - b.box["time_s"]) < self.min_apart_s
        return a.box["clip_index"] == b.box["clip_index"] and near

    def _target(self, sequence_id: str, n: int, c: Candidate) -> Row:
        copied = ("clip_index", "frame", "pts", "time_s", "x", "y", "width", "height", "sharpness")
        return {
            "recon_id": ids.recon_id(sequence_id, n),
            "subject_id": c.subject_id,
            "frame_in_clip_16fps": c.index_16fps,
            "area_share": round(c.area_share, 6),
            **{k: c.box[k] for k in copied},
        }

    def _why(self, row: Row) -> str:
        if not row["subjects"]:
            return "no subject was found in it"
        return (
            f"none of its {len(row['subjects'])} subjects is sharp, at least {self.min_area_share:.0%} of "
            f"the picture and inside the crop in the first {self.max_frame} frames of a clip before the last"
        )


def by_rank(subjects: Sequence[Row]) -> list[Row]:
    """Primary subjects first, then the others; longest on screen first."""
    return sorted(subjects, key=lambda s: (not s["is_primary"], -s["screen_time_s"], s["subject_id"]))


def exported_frames(stream: Row, clip: Row) -> int:
    """How many frames the clip has once exported."""
    return timing.num_frames_16fps(stream, clip["start_pts"], clip["end_pts"])
