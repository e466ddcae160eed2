"""Collects the tracks of a sequence while its pictures pass by: boxes, sharpness, best crops, looks."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from curation.engine.stage import Row
from curation.models.appearance import Appearance, Crop, Look, crop_of, sharpness
from curation.models.subject_detector import Detections
from curation.models.tracker import Update

KEPT_CROPS = 5  # per track: those with the most sharpness times area
MIN_BOXES = 3  # a track with fewer is noise


@dataclass
class _Track:
    rows: list[Row] = field(default_factory=list)
    votes: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    crops: list[tuple[float, int, Crop]] = field(default_factory=list)

    @property
    def class_name(self) -> str:
        """The class with the largest sum of scores, the first by name among equals."""
        return min(self.votes, key=lambda name: (-self.votes[name], name))


class Collector:
    """Tracks so far. `rows` are `curation.rows.TRACK_BOX` values, `looks` by track id.

    Args:
        scale: source pixels per picture pixel for x, y, width, height.
    """

    def __init__(self, scale: np.ndarray) -> None:
        self.rows: list[Row] = []
        self.looks: dict[int, Look] = {}
        self._scale = scale
        self._open: dict[int, _Track] = defaultdict(_Track)
        self._before: tuple[Detections, list[Row]] = (Detections(), [])
        self._ids_before = np.zeros(0, np.int64)
        self._order = 0

    def add(self, picture: np.ndarray, place: Row, found: Detections, update: Update) -> None:
        """Take the boxes of a picture.

        Args:
            picture: uint8 [H, W, 3] BGR.
            place: the columns that say which frame it is.
            found: what was detected in it.
            update: what the tracker made of that.
        """
        boxes_before, rows_before = self._before
        for i in np.flatnonzero(update.earlier != self._ids_before).tolist():
            self._take(int(update.earlier[i]), rows_before[i], boxes_before.class_names[i])
        made = [self._row(picture, place, found, i) for i in range(len(found))]
        for i, name in enumerate(update.ids.tolist()):
            if name < 0:
                continue
            track = self._take(name, made[i], found.class_names[i])
            worth = made[i]["sharpness"] * float(found.boxes[i, 2] * found.boxes[i, 3])
            self._order += 1
            if len(track.crops) == KEPT_CROPS and worth <= track.crops[0][0]:
                continue
            crop = crop_of(picture, found.boxes[i], found.belief)
            heapq.heappush(track.crops, (worth, -self._order, crop))
            if len(track.crops) > KEPT_CROPS:
                heapq.heappop(track.crops)
        self._before, self._ids_before = (found, made), update.ids

    def end_shot(self, appearance: Appearance) -> None:
        """Settle the tracks of the shot: their class, their look; what is too short is dropped."""
        for name in sorted(self._open):
            track = self._open[name]
            if len(track.rows) < MIN_BOXES:
                continue
            crops = [crop for _, _, crop in sorted(track.crops, key=lambda item: -item[1])]
            self.looks[name] = appearance.look(crops, track.class_name)
            for row in sorted(track.rows, key=lambda r: r["pts"]):
                self.rows.append({**row, "track_id": name, "class_name": track.class_name})
        self._open.clear()
        self._before, self._ids_before = (Detections(), []), np.zeros(0, np.int64)

    def _take(self, name: int, row: Row, class_name: str) -> _Track:
        track = self._open[name]
        track.rows.append(row)
        track.votes[class_name] += row["score"]
        return track

    def _row(self, picture: np.ndarray, place: Row, found: Detections, i: int) -> Row:
        box: Sequence[float] = found.boxes[i].astype(np.float64)
        x, y, width, height = (box * self._scale).tolist()
        return {
            **place,
            "x": x,
            "y": y,
            "width": width,
            "height": height,
            "score": float(found.scores[i]),
            "sharpness": sharpness(picture, box),
        }
