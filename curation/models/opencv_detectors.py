"""The embedded subject detector: what ships with OpenCV, no download.

People: HOG with OpenCV's default people detector (Dalal and Triggs, 2005) for whole figures, Haar cascades
for frontal and profile faces (Viola and Jones, 2001); a face becomes the box of its person by fixed body
proportions. Everything else: salient moving regions (`curation.models.moving_regions`). A person inside a
moving region takes the region's outline where the two agree. Low tier: expect missed people, above all
small ones and those seen from behind.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from curation.engine.stage import Row
from curation.models.moving_regions import MovingRegions, covered, join, lit
from curation.models.subject_detector import (
    PERSON,
    Detections,
    clip_boxes,
    iou,
    opencv_version,
    suppress,
)

HOG_SIDE = 480  # longest side of the picture for HOG: figures taller than about half of a 16:9 picture
HOG_SCALE = 1.15
HOG_WEIGHT = (1.0, 2.5)  # SVM margins that become scores 0.5 and 1; weaker ones are mostly tree trunks
FRONTAL_SIDE, FRONTAL_SHARE = 480, 0.085  # longest side; smallest face, share of the shorter side
PROFILE_SIDE, PROFILE_SHARE = 320, 0.15
FACE_SCALE = 1.2
FACE_NEIGHBOURS = 4
# Cascade stage weights that become scores 0.5 and 1; the frontal one lets nothing under 53.8 through, and
# leaves and shelves reach 55.
FRONTAL_WEIGHT, PROFILE_WEIGHT = (54.5, 57.5), (2.0, 8.0)
EVERY = 2  # people are looked for in every second picture of a shot; regions in all


def person_of_face(faces: np.ndarray) -> np.ndarray:
    """Boxes of persons from boxes of their faces [N, 4]: 3 faces wide, from half a face above down 7 faces.

    The proportions are those of an upright adult (eight heads high); the caller cuts the box to the picture.
    """
    x, y, w, h = faces.T
    return np.stack([x - w, y - 0.5 * h, 3 * w, 7.5 * h], 1)


def inside_of(boxes: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Boxes [N, 4] cut to the smallest box around the true pixels of a mask [H, W]."""
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    if not len(rows):
        return boxes
    shift = np.array([columns[0], rows[0], 0, 0], np.float32)
    size = (int(rows[-1] - rows[0]) + 1, int(columns[-1] - columns[0]) + 1)
    return clip_boxes(boxes - shift, *size) + shift


def to_score(weight: np.ndarray, low_high: tuple[float, float]) -> np.ndarray:
    """A detector's weight as a score: `low` -> 0.5, `high` -> 1, linear between and below, cut to 0..1."""
    low, high = low_high
    return np.clip(0.5 + 0.5 * (np.asarray(weight, np.float64) - low) / (high - low), 0, 1)


class OpenCvDetector:
    """HOG people, cascade faces and moving regions; see `subject_detector.SubjectDetector`."""

    def __init__(self) -> None:
        import cv2

        opencv: Any = cv2  # its type stubs lack some names
        self._hog = opencv.HOGDescriptor()
        self._hog.setSVMDetector(opencv.HOGDescriptor_getDefaultPeopleDetector())
        folder = opencv.data.haarcascades
        self._frontal = opencv.CascadeClassifier(folder + "haarcascade_frontalface_alt2.xml")
        self._profile = opencv.CascadeClassifier(folder + "haarcascade_profileface.xml")
        self._regions = MovingRegions()
        self._seen = 0
        self._people = Detections()

    def start_shot(self) -> None:
        """Forget earlier pictures: the next one is the first of a shot."""
        self._regions.start_shot()
        self._seen, self._people = 0, Detections()

    def detect(self, picture_bgr_u8: np.ndarray) -> Detections:
        """Persons and moving regions of a picture uint8 [H, W, 3], best score first."""
        regions = self._regions.detect(picture_bgr_u8)
        if self._seen % EVERY == 0:
            self._people = self.people(picture_bgr_u8)
        self._seen += 1
        return dataclasses.replace(merge(self._people, regions), belief=regions.belief)

    def people(self, picture_bgr_u8: np.ndarray) -> Detections:
        """Persons only, without memory of earlier pictures."""
        height, width = picture_bgr_u8.shape[:2]
        bodies, body_scores = self._bodies(_shrunk(picture_bgr_u8, HOG_SIDE))
        bodies = bodies * (max(height, width) / min(HOG_SIDE, max(height, width)))
        faces, face_scores = self.faces(picture_bgr_u8)
        boxes = clip_boxes(np.concatenate([person_of_face(faces), bodies]), height, width)
        boxes = inside_of(boxes, lit(picture_bgr_u8.max(2)))
        scores = np.concatenate([face_scores, body_scores])
        kept = suppress(boxes, scores, 0.4)
        return Detections(boxes[kept], scores[kept].astype(np.float32), [PERSON] * len(kept))

    def _bodies(self, picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if picture.shape[0] < 128 or picture.shape[1] < 64:
            return np.zeros((0, 4)), np.zeros(0)
        found, weights = self._hog.detectMultiScale(
            picture, winStride=(8, 8), padding=(16, 16), scale=HOG_SCALE
        )
        boxes = np.asarray(found, np.float64).reshape(-1, 4)
        # HOG's window has a margin around the figure: 64x128 for a figure about 40x100 wide and high.
        inset = boxes * (0, 0, 0.15, 0.08)
        boxes = boxes + np.concatenate([inset[:, 2:], -2 * inset[:, 2:]], 1)
        scores = to_score(np.asarray(weights).ravel(), HOG_WEIGHT)
        keep = scores >= 0.5
        return boxes[keep], scores[keep]

    def faces(self, picture_bgr_u8: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Faces of a picture uint8 [H, W, 3]: boxes float [N, 4] and scores [N]."""
        import cv2

        grey = cv2.cvtColor(picture_bgr_u8, cv2.COLOR_BGR2GRAY)
        boxes: list[np.ndarray] = []
        found_scores: list[np.ndarray] = []
        for cascade, side, share, mirrored, scale in (
            (self._frontal, FRONTAL_SIDE, FRONTAL_SHARE, False, FRONTAL_WEIGHT),
            (self._profile, PROFILE_SIDE, PROFILE_SHARE, False, PROFILE_WEIGHT),
            (self._profile, PROFILE_SIDE, PROFILE_SHARE, True, PROFILE_WEIGHT),
        ):
            picture = _shrunk(grey, side)
            picture = cv2.flip(picture, 1) if mirrored else picture
            least = max(20, round(share * min(picture.shape)))
            found, _, stage_weights = cascade.detectMultiScale3(
                picture, FACE_SCALE, FACE_NEIGHBOURS, minSize=(least, least), outputRejectLevels=True
            )
            table = np.asarray(found, np.float64).reshape(-1, 4)
            if mirrored:
                table[:, 0] = picture.shape[1] - table[:, 0] - table[:, 2]
            boxes.append(table * (grey.shape[1] / picture.shape[1]))
            found_scores.append(to_score(np.asarray(stage_weights, np.float64).ravel(), scale))
        scores = np.concatenate(found_scores)
        keep = suppress(np.concatenate(boxes), scores, 0.3)
        keep = keep[scores[keep] >= 0.5]
        return np.concatenate(boxes)[keep], scores[keep]

    def describe(self) -> list[Row]:
        """`curation.rows.MODEL` values."""
        people = {
            "part": "detector",
            "tier": "embedded",
            "backend": "opencv",
            "model_id": "HOG people, Haar faces",
            "revision": opencv_version(),
            "sha256": None,
        }
        return [people, *self._regions.describe()]


def merge(people: Detections, regions: Detections) -> Detections:
    """Persons, and the regions that are not persons.

    A region that covers the same thing as a person (IoU of 0.5 or more) gives the person its outline, which
    moves with the picture; a region that is part of a person, or whose motion a person explains, is dropped.
    """
    boxes, scores = people.boxes.astype(np.float64).copy(), people.scores.copy()
    keep = np.ones(len(regions), bool)
    if len(people) and len(regions):
        same = iou(people.boxes, regions.boxes)
        for i in range(len(people)):
            j = int(same[i].argmax())
            if same[i, j] >= 0.5 and keep[j]:
                boxes[i] = regions.boxes[j]
                scores[i] = max(scores[i], regions.scores[j])
                keep[j] = False
        keep &= ~covered(people, regions)
    whole = Detections(boxes.astype(np.float32), scores, people.class_names)
    return join(whole, regions.take(np.flatnonzero(keep)))


def _shrunk(picture: np.ndarray, side: int) -> np.ndarray:
    import cv2

    height, width = picture.shape[:2]
    scale = side / max(height, width)
    if scale >= 1:
        return picture
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
