"""ByteTrack over any detector's boxes, one shot at a time.

Zhang et al., ByteTrack: Multi-Object Tracking by Associating Every Detection Box (arXiv 2110.06864). Two
engines, the same boxes in, the same tracks out: `trackers` (Apache-2.0, no torch; the core) and
Ultralytics' own (extra).
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import metadata
from typing import Any, NamedTuple, Protocol

import numpy as np

from curation.engine.stage import Row
from curation.models.subject_detector import Detections, iou
from curation.optional import require


@dataclass(frozen=True, kw_only=True)
class TrackSettings:
    """How boxes are joined to tracks.

    Attributes:
        start_score: a track starts with a box of at least this score.
        high_score: boxes of at least this score are joined first, the others to what is then left.
        min_iou: least overlap of a box with where the track is expected.
        keep_s: seconds a track outlives its last box.
    """

    start_score: float = 0.4
    high_score: float = 0.35
    min_iou: float = 0.2
    keep_s: float = 1.0


class Update(NamedTuple):
    """What one picture taught.

    Attributes:
        ids: int64 [N], track of each box of this picture, -1 for none (yet).
        earlier: int64 [M], the same for the picture before, now that it is known which boxes began a track.
    """

    ids: np.ndarray
    earlier: np.ndarray


class Engine(Protocol):
    """A tracker's bare association."""

    def associate(self, found: Detections) -> np.ndarray:
        """Track of each box, int64 [N], -1 for none."""


class Tracker:
    """ByteTrack for the pictures of one shot; ids are unique over all shots of this object.

    Args:
        rate: pictures a second.
        settings: see `TrackSettings`.
        engine: "core" or "ultralytics".
    """

    def __init__(self, rate: float, settings: TrackSettings, engine: str = "core") -> None:
        if engine not in ENGINES:
            raise ValueError(f"no tracker {engine!r}; there are: {', '.join(ENGINES)}")
        self._make = lambda: ENGINES[engine](rate, settings)
        self._min_iou, self._engine_name, self._taken = settings.min_iou, engine, 0
        self.start_shot()

    def start_shot(self) -> None:
        """Drop all tracks: nothing is joined across a cut. Ids go on counting."""
        self._engine = self._make()
        self._names: dict[int, int] = {}
        self._before, self._ids_before = Detections(), np.zeros(0, np.int64)

    def update(self, found: Detections) -> Update:
        """Join the boxes of the next picture to tracks."""
        raw = self._engine.associate(found)
        earlier = self._ids_before.copy()
        ids = np.full(len(found), -1, np.int64)
        for i, name in enumerate(raw.tolist()):
            if name < 0:
                continue
            if name not in self._names:
                self._names[name] = self._taken
                self._taken += 1
                self._begin(found.boxes[i], self._names[name], earlier)
            ids[i] = self._names[name]
        self._before, self._ids_before = found, ids
        return Update(ids, earlier)

    def _begin(self, box: np.ndarray, name: int, earlier: np.ndarray) -> None:
        """Give a new track the box of the picture before with which it began.

        ByteTrack names a track at its second box; the first one has no velocity yet, so it is the free box
        with the largest overlap.
        """
        if not len(self._before):
            return
        table = np.where(earlier < 0, iou(box[None], self._before.boxes)[0], -1.0)
        best = int(table.argmax())
        if table[best] >= self._min_iou:
            earlier[best] = name

    def describe(self) -> Row:
        """`curation.rows.MODEL` values."""
        package = "trackers" if self._engine_name == "core" else "ultralytics"
        return {
            "part": "tracker",
            "tier": "full",
            "backend": self._engine_name,
            "model_id": f"ByteTrack ({package})",
            "revision": metadata.version(package),
            "sha256": None,
        }


def _corners(boxes: np.ndarray) -> np.ndarray:
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1).astype(np.float64)


class _Core:
    """`trackers`' ByteTrack."""

    def __init__(self, rate: float, settings: TrackSettings) -> None:
        import supervision
        import trackers

        self._boxes: Any = supervision.Detections
        self._tracker = trackers.ByteTrackTracker(
            lost_track_buffer=max(1, round(30 * settings.keep_s)),  # counted at 30 a second
            frame_rate=rate,
            track_activation_threshold=settings.start_score,
            high_conf_det_threshold=settings.high_score,
            minimum_iou_threshold=settings.min_iou,
            minimum_consecutive_frames=2,
        )

    def associate(self, found: Detections) -> np.ndarray:
        given = self._boxes(
            xyxy=_corners(found.boxes),
            confidence=found.scores.astype(np.float64),
            data={"position": np.arange(len(found))},
        )
        answer = self._tracker.update(given)
        ids = np.full(len(found), -1, np.int64)
        if len(answer):
            ids[answer.data["position"]] = np.asarray(answer.tracker_id)
        return ids


class _Ultralytics:
    """Ultralytics' BYTETracker."""

    def __init__(self, rate: float, settings: TrackSettings) -> None:
        from types import SimpleNamespace

        module = require("ultralytics.trackers.byte_tracker", extra="yolo")
        self._boxes = require("ultralytics.engine.results", extra="yolo").Boxes
        options = SimpleNamespace(
            track_high_thresh=settings.high_score,
            track_low_thresh=0.0,
            new_track_thresh=settings.start_score,
            track_buffer=max(1, int(np.ceil(rate * settings.keep_s))),
            match_thresh=1 - settings.min_iou,
            fuse_score=False,
        )
        self._tracker = module.BYTETracker(options)

    def associate(self, found: Detections) -> np.ndarray:
        side = int(found.boxes.max(initial=0)) * 2 + 2
        table = np.concatenate(
            [_corners(found.boxes), found.scores[:, None], np.zeros((len(found), 1))], 1
        ).astype(np.float32)
        answer = self._tracker.update(self._boxes(table, (side, side)))
        ids = np.full(len(found), -1, np.int64)
        for line in np.asarray(answer).reshape(-1, 8):
            ids[int(line[7])] = int(line[4])
        return ids


ENGINES: dict[str, Any] = {"core": _Core, "ultralytics": _Ultralytics}
