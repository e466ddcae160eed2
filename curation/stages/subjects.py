"""Recurring subjects of a sequence: tracks joined across its cuts, labelled, the primary ones marked."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curation import ids, rows
from curation.engine.stage import Folder, Resources, Row, Stage, Worker
from curation.identity import REGION_PENALTY, Cluster, Track, group_of, join, labels, subject_class
from curation.models.appearance import KINDS, Look, load_looks

INTEREST = {"person": 1.0, "animal": 1.0, "region": 0.8, "vehicle": 0.7, "object": 0.4}
"""Stories are about people and animals sooner than about things of the same size."""


class Standing(NamedTuple):
    """How much of a sequence a subject is.

    Attributes:
        screen_time_s: seconds it is visible.
        size: mean share of the cropped picture while visible.
        clips: how many clips show it.
    """

    screen_time_s: float
    size: float
    clips: int


@dataclass(frozen=True, kw_only=True)
class Subjects(Stage):
    """Joins tracks to subjects and marks the primary ones.

    Attributes:
        min_odds: log-odds of being one subject above which tracks are joined; higher joins less.
        region_penalty: log-odds taken off where only one of two tracks has a class, the other is a region.
        min_track_s: shorter tracks are noise.
        min_area_share: tracks smaller than this share of the picture are noise.
        min_inside: boxes with less of their area inside the crop count as not visible.
        min_screen_s: subjects visible for less are dropped.
        groups: what may be a subject: person, animal, vehicle, object, region (of unknown class).
        max_subjects: at most this many, by standing.
        max_primary: at most this many primary subjects.
        primary_share: a further primary subject has at least this share of the first one's standing.
    """

    name: ClassVar[str] = "subjects"
    version: ClassVar[int] = 2
    reads: ClassVar[tuple[str, ...]] = (
        *("sequence_id", "stream", "clips", "boxes", "embeddings"),
        *("crop_x", "crop_y", "crop_width", "crop_height"),
    )
    writes: ClassVar[pa.Schema] = rows.SUBJECTS
    resources: ClassVar[Resources] = Resources(cpus=1)

    min_odds: float = 0.0
    region_penalty: float = REGION_PENALTY
    min_track_s: float = 0.5
    min_area_share: float = 0.004
    min_inside: float = 0.5
    min_screen_s: float = 0.75
    groups: tuple[str, ...] = ("person", "animal", "vehicle", "region")
    max_subjects: int = 12
    max_primary: int = 2
    primary_share: float = 0.6

    def __post_init__(self) -> None:
        unknown = [g for g in self.groups if g not in INTEREST]
        if unknown:
            raise ValueError(f"unknown groups {unknown}; there are: {', '.join(INTEREST)}")

    def worker(self) -> Worker:
        """Arithmetic only."""
        return self.subjects

    def subjects(self, row: Row, folder: Folder) -> Row:
        """The subjects of one sequence."""
        crop = (row["crop_x"], row["crop_y"], row["crop_width"], row["crop_height"])
        boxes = pq.read_table(folder.open(row["boxes"])).to_pylist()
        looks = load_looks(folder.open(row["embeddings"]))
        tracks = read_tracks(boxes, looks)
        tracks = [t for t in tracks if self._counts(t, crop)]
        clusters = join(tracks, self.min_odds, self.region_penalty)
        standings = [standing(c, crop, self.min_inside) for c in clusters]
        classes = [subject_class(c.tracks) for c in clusters]
        keep = [
            i
            for i, s in enumerate(standings)
            if s.screen_time_s >= self.min_screen_s and group_of(classes[i]) in self.groups
        ]
        worth = {i: weight(standings[i]) * INTEREST[group_of(classes[i])] for i in keep}
        keep = sorted(sorted(keep, key=lambda i: (-worth[i], i))[: self.max_subjects])
        primary = self._primary(worth, keep)
        names = [classes[i] for i in keep]
        return {
            "subjects": [
                {
                    "subject_id": ids.subject_id(row["sequence_id"], n),
                    "label": label,
                    "class_name": names[n],
                    "is_primary": i in primary,
                    "screen_time_s": round(standings[i].screen_time_s, 6),
                    "track_ids": [t.track_id for t in clusters[i].tracks],
                    "clip_indices": sorted({t.clip_index for t in clusters[i].tracks}),
                    "confidence": round(clusters[i].confidence, 6),
                    "colours": subject_colours(clusters[i], looks),
                }
                for n, (i, label) in enumerate(zip(keep, labels(names), strict=True))
            ]
        }

    def _counts(self, track: Track, crop: tuple[int, int, int, int]) -> bool:
        if duration(track) < self.min_track_s:
            return False
        share = np.median(track.boxes[:, 2] * track.boxes[:, 3]) / (crop[2] * crop[3])
        visible = inside_share(track.boxes, crop) >= self.min_inside
        return bool(share >= self.min_area_share and visible.any())

    def _primary(self, worth: dict[int, float], keep: Sequence[int]) -> set[int]:
        best = sorted(keep, key=lambda i: (-worth[i], i))[: self.max_primary]
        return {i for i in best if worth[i] >= self.primary_share * worth[best[0]]}


def read_tracks(boxes: Sequence[Row], looks: dict[int, Look]) -> list[Track]:
    """Tracks from `curation.rows.TRACK_BOX` values and looks by track id."""
    by_track: dict[int, list[Row]] = defaultdict(list)
    for box in boxes:
        by_track[box["track_id"]].append(box)
    made = []
    for track_id, part in sorted(by_track.items()):
        part = sorted(part, key=lambda b: b["frame"])
        look = looks.get(track_id)
        vectors = {k: v for k in KINDS if look and (v := getattr(look, k)) is not None}
        made.append(
            Track(
                track_id=track_id,
                clip_index=part[0]["clip_index"],
                class_name=part[0]["class_name"],
                score=float(np.mean([b["score"] for b in part])),
                frames=np.array([b["frame"] for b in part], np.int64),
                boxes=np.array([[b[k] for k in ("x", "y", "width", "height")] for b in part]),
                times_s=np.array([b["time_s"] for b in part]),
                looks=vectors,
            )
        )
    return made


def inside_share(boxes: np.ndarray, crop: tuple[int, int, int, int]) -> np.ndarray:
    """Share of each box's area inside the crop (x, y, width, height): float [N]."""
    low = np.maximum(boxes[:, :2], crop[:2])
    high = np.minimum(boxes[:, :2] + boxes[:, 2:], np.add(crop[:2], crop[2:]))
    return np.clip(high - low, 0, None).prod(1) / np.maximum(boxes[:, 2:].prod(1), 1e-9)


def box_seconds(track: Track) -> float:
    """Seconds that one box of the track stands for: the usual distance of its boxes in time."""
    return float(np.median(np.diff(track.times_s))) if len(track.times_s) > 1 else 0.0


def duration(track: Track) -> float:
    """Seconds from the first box to the end of the last."""
    return float(track.times_s[-1] - track.times_s[0]) + box_seconds(track)


def standing(cluster: Cluster, crop: tuple[int, int, int, int], min_inside: float = 0.5) -> Standing:
    """Screen time, size and recurrence of a subject inside the crop; a frame counts once."""
    seen: dict[tuple[int, int], tuple[float, float]] = {}
    for track in cluster.tracks:
        inside = inside_share(track.boxes, crop)
        step = box_seconds(track)
        area = track.boxes[:, 2] * track.boxes[:, 3] * inside / (crop[2] * crop[3])
        for frame, share, size in zip(track.frames, inside, area, strict=True):
            if share >= min_inside:
                key = (track.clip_index, int(frame))
                seen[key] = (step, max(float(size), seen.get(key, (0.0, 0.0))[1]))
    steps = np.array([s for s, _ in seen.values()])
    sizes = np.array([a for _, a in seen.values()])
    total = float(steps.sum())
    mean = float((steps * sizes).sum() / total) if total > 0 else 0.0
    return Standing(total, mean, len({clip for clip, _ in seen}))


def weight(s: Standing) -> float:
    """How much of the sequence's story a subject carries: screen time x root of size x root of clips."""
    return float(s.screen_time_s * s.size**0.5 * s.clips**0.5)


def subject_colours(cluster: Cluster, looks: dict[int, Look]) -> list[str]:
    """Colour names of the subject's tracks, most common first, each track by its length."""
    votes: dict[str, float] = defaultdict(float)
    for track in cluster.tracks:
        if track.track_id in looks:
            for rank, name in enumerate(looks[track.track_id].colours):
                votes[name] += len(track.frames) / (1 + rank)
    return sorted(votes, key=lambda name: (-votes[name], name))[:3]
