"""Salient moving regions: boxes around whatever moves against the background, whatever it is.

Per picture of a shot, at a small size: dense optical flow to the picture before; the camera's part of it
(an affine motion fitted robustly) is taken off; what is left is evidence of a moving thing. Evidence is
carried along from picture to picture, so that a thing that pauses stays found, and colours that moved are
told from colours that did not, so that the whole thing is found and not only its waving arm. Regions near
the middle count for more.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from curation.engine.stage import Row
from curation.models.subject_detector import (
    REGION,
    Detections,
    SubjectDetector,
    detections,
    iou,
    opencv_version,
    overlap,
)

SIDE = 192  # longest side of the working picture
BINS = 16  # per Lab channel of the colour model
FADE = 0.9  # share of the evidence that is carried to the next picture
MIN_MOTION = 0.4  # working pixels per picture: what flow makes of noise
MIN_CHANGE = 6.0  # grey levels after the camera's motion is taken off
BLACK = 24  # luma of black bars at most
MIN_SHARE, MAX_SHARE, ALL_SHARE, MIN_FILL = 0.004, 0.6, 0.85, 0.65  # of the picture's area
MAX_REGIONS = 4
MIN_BELIEF, THRESHOLDS, MIN_CONTRAST = 0.3, (0.5, 0.6, 0.7, 0.8, 0.9), 2.0
MAX_RESTLESS = 0.15  # mean evidence of motion up to which a picture counts as still
STILL_WEIGHT = 0.6  # of a still thing's belief: enough to be followed, less than anything that moves
"""Numbers above were set on animation and live action at 4 to 8 pictures a second."""


def lit(grey_u8: np.ndarray) -> np.ndarray:
    """Bool [H, W]: outside of black bars, that is inside the rows and columns that hold any light."""
    rows, columns = (grey_u8.max(1) > BLACK), (grey_u8.max(0) > BLACK)
    inside = np.zeros(grey_u8.shape, bool)
    if rows.any() and columns.any():
        y, x = np.flatnonzero(rows), np.flatnonzero(columns)
        inside[y[0] : y[-1] + 1, x[0] : x[-1] + 1] = True
    return inside


def affine_motion(flow: np.ndarray, inside: np.ndarray, rounds: int = 5) -> np.ndarray:
    """The camera's part of a dense flow: an affine motion fitted by reweighted least squares.

    Args:
        flow: float32 [H, W, 2], pixels.
        inside: bool [H, W], pixels that count.
        rounds: of reweighting; outliers (things with a motion of their own) lose weight in each.

    Returns:
        float32 [H, W, 2], the affine motion at each pixel.
    """
    height, width = flow.shape[:2]
    y, x = np.mgrid[:height, :width].astype(np.float32)
    x, y = (x - width / 2) / width, (y - height / 2) / width
    basis = np.stack([np.ones_like(x), x, y], -1)
    sample = (slice(2, None, 4), slice(2, None, 4))
    design = basis[sample].reshape(-1, 3).astype(np.float64)
    target = flow[sample].reshape(-1, 2).astype(np.float64)
    # The rim of a picture is background more often than its middle.
    start = 0.3 + 2 * np.maximum(np.abs(design[:, 1]), np.abs(design[:, 2]) * width / height)
    start = start * inside[sample].ravel()
    weight = start
    solution = np.zeros((3, 2))
    for _ in range(rounds):
        scaled = design * weight[:, None]
        solution = np.linalg.solve(scaled.T @ design + 1e-6 * np.eye(3), scaled.T @ target)
        error = np.linalg.norm(design @ solution - target, axis=1)
        counted = error[start > 0]
        spread = max(0.25, 1.5 * float(np.median(counted)) if len(counted) else 0.0)
        weight = start / (1 + (error / spread) ** 2)
    return (basis @ solution).astype(np.float32)


def centre_prior(height: int, width: int) -> np.ndarray:
    """float32 [H, W]: 1 in the middle, 0.5 in the corners."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    distance = ((x / width - 0.5) ** 2 + (y / height - 0.5) ** 2) * 2
    return (1 - 0.5 * distance).astype(np.float32)


@dataclass
class _Memory:
    grey: np.ndarray
    evidence: np.ndarray
    moving: np.ndarray
    still: np.ndarray


class MovingRegions:
    """Boxes of class `region`; pictures of a shot come in order of time, after `start_shot`."""

    def __init__(self) -> None:
        import cv2

        opencv: Any = cv2  # its type stubs lack some names
        self._flow = opencv.DISOpticalFlow_create(opencv.DISOPTICAL_FLOW_PRESET_FAST)
        self._memory: _Memory | None = None
        self._still: np.ndarray | None = None

    def start_shot(self) -> None:
        """Forget the pictures so far."""
        self._memory, self._still = None, None

    def detect(self, picture_bgr_u8: np.ndarray) -> Detections:
        """Regions in a picture uint8 [H, W, 3], best score first; none in the first picture of a shot."""
        saliency = self.saliency(picture_bgr_u8)
        if saliency is None:
            return Detections()
        found = boxes_of(saliency, *picture_bgr_u8.shape[:2])
        if not len(found) and self._still is not None:
            saliency = self._still
            found = boxes_of(saliency, *picture_bgr_u8.shape[:2])
        return dataclasses.replace(found, belief=saliency)

    def describe(self) -> list[Row]:
        """`curation.rows.MODEL` values."""
        return [
            {
                "part": "regions",
                "tier": "embedded",
                "backend": "opencv",
                "model_id": "salient motion against the camera's",
                "revision": opencv_version(),
                "sha256": None,
            }
        ]

    def saliency(self, picture_bgr_u8: np.ndarray) -> np.ndarray | None:
        """Belief 0..1 that a pixel belongs to a moving thing, float32 at the working size; None at first."""
        import cv2

        height, width = picture_bgr_u8.shape[:2]
        scale = SIDE / max(height, width)
        size = (max(16, round(width * scale)), max(16, round(height * scale)))
        small = cv2.resize(picture_bgr_u8, size, interpolation=cv2.INTER_AREA)
        lab = cv2.cvtColor(small, cv2.COLOR_BGR2LAB)
        grey, code = lab[..., 0].copy(), colour_code(lab)
        memory = self._memory
        if memory is None or memory.grey.shape != grey.shape:
            nothing = np.zeros(BINS**3, np.float32)
            self._memory = _Memory(grey, np.zeros(grey.shape, np.float32), nothing, nothing.copy())
            return None
        back = self._flow.calc(grey, memory.grey, None)  # where each pixel came from
        inside = lit(grey)
        camera = affine_motion(back, inside)
        own = np.linalg.norm(back - camera, axis=-1)
        seen = cv2.blur(cv2.absdiff(grey, warp(memory.grey, camera)), (5, 5)).astype(np.float32)
        fresh = np.clip(own / motion_scale(own[inside]), 0, 1) * np.clip(seen / MIN_CHANGE, 0, 1)
        # What a thing uncovers has the colours of the rest; there the evidence goes at once.
        known = np.clip(2 * posterior(memory.moving, memory.still)[code], 0, 1)
        carried = warp(memory.evidence, back) * known
        memory.evidence = (np.maximum(fresh, FADE * carried) * inside).astype(np.float32)
        restless = float(memory.evidence[inside].mean()) if inside.any() else 1.0
        self._still = STILL_WEIGHT * standing_out(code, inside) if restless < MAX_RESTLESS else None
        memory.moving = FADE * memory.moving + histogram(code, memory.evidence)
        memory.still = FADE * memory.still + histogram(code, (1 - memory.evidence) * inside)
        memory.grey = grey
        colour = posterior(memory.moving, memory.still)[code]
        evidence = np.maximum(cv2.blur(memory.evidence, (7, 7)), 0)
        mixed = np.sqrt(evidence * np.maximum(cv2.blur(colour, (3, 3)), 0))
        return (mixed * centre_prior(*grey.shape) * inside).astype(np.float32)


def motion_scale(own: np.ndarray) -> float:
    """Own motion, in pixels, that counts as certain: well above noise and what most of the picture does."""
    if not own.size:
        return 2 * MIN_MOTION
    return max(2 * MIN_MOTION, 3 * float(np.median(own)), 0.35 * float(np.percentile(own, 99)))


def colour_code(lab_u8: np.ndarray) -> np.ndarray:
    """Index of each pixel's colour among BINS^3, from Lab uint8 [H, W, 3]: int32 [H, W]."""
    cell = lab_u8.astype(np.int32) * BINS // 256
    return (cell[..., 0] * BINS + cell[..., 1]) * BINS + cell[..., 2]


def histogram(code: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Weighted share of the picture per colour: float32 [BINS^3]."""
    counts = np.bincount(code.ravel(), weight.ravel(), BINS**3)
    return (counts / code.size).astype(np.float32)


def posterior(moving: np.ndarray, still: np.ndarray) -> np.ndarray:
    """Belief that a colour belongs to what moves, 0.5 for unseen ones: float32 [BINS^3]."""
    floor = 1e-4
    a = moving / max(float(moving.sum()), 1e-6) + floor
    b = still / max(float(still.sum()), 1e-6) + floor
    return (a / (a + b)).astype(np.float32)


def warp(values: np.ndarray, back: np.ndarray) -> np.ndarray:
    """`values` [H, W] moved along the flow `back` [H, W, 2] (from each pixel to where it came from)."""
    import cv2

    height, width = values.shape
    y, x = np.mgrid[:height, :width].astype(np.float32)
    return cv2.remap(
        values, x + back[..., 0], y + back[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )


def boxes_of(belief: np.ndarray, height: int, width: int) -> Detections:
    """Boxes around the connected parts of a belief map, in pixels of a picture of `height` x `width`.

    A threshold must set something off from the rest: where belief is spread over the picture (a camera that
    moves through a scene) the threshold rises until it does, or there are no boxes.
    """
    peak, lit_area = float(belief.max()), max(int((belief > 0).sum()), 1)
    for share in THRESHOLDS:
        parts = components(belief, max(MIN_BELIEF, share * peak))
        if all(part.is_compact(lit_area) for part in parts) and _contrast(belief, parts) >= MIN_CONTRAST:
            break
    else:
        parts = [part for part in parts if part.is_compact(lit_area)]
    scale = (width / belief.shape[1], height / belief.shape[0]) * 2
    parts.sort(key=lambda part: -part.score)
    parts = parts[:MAX_REGIONS]
    boxes = [np.multiply(part.box, scale).tolist() for part in parts]
    return detections(boxes, [part.score for part in parts], [REGION] * len(parts))


class Part(NamedTuple):
    """A connected part of a belief map: its pixels bool [H, W], its box and its score 0..1."""

    mask: np.ndarray
    box: tuple[int, int, int, int]
    score: float

    def is_compact(self, lit_area: int) -> bool:
        """Whether it looks like a thing: its box is not most of the picture, or it fills that box well."""
        area = self.box[2] * self.box[3]
        if area <= MAX_SHARE * lit_area:
            return True
        return area <= ALL_SHARE * lit_area and float(self.mask.sum()) >= MIN_FILL * area


def _contrast(belief: np.ndarray, parts: list[Part]) -> float:
    """Mean belief inside the parts over that outside; infinite where one of them is empty."""
    mask = np.zeros(belief.shape, bool)
    for part in parts:
        mask |= part.mask
    if not mask.any() or mask.all():
        return float("inf")
    return float(belief[mask].mean()) / max(float(belief[~mask].mean()), 1e-6)


def components(belief: np.ndarray, threshold: float) -> list[Part]:
    """Connected parts over a threshold, small holes closed, tiny ones dropped."""
    import cv2

    mask: Any = (belief > threshold).astype(np.uint8)
    mask = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))
    mask = cv2.morphologyEx(mask, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    count, names, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    parts = []
    for i in range(1, count):
        x, y, w, h, area = (int(v) for v in stats[i])
        share = area / mask.size
        if share >= MIN_SHARE:
            own = names == i
            score = float(belief[own].mean()) * min(1.0, 0.6 + 4 * share)
            parts.append(Part(own, (x, y, w, h), score))
    return parts


def standing_out(code: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Belief 0..1 that a pixel is of a thing that stands still: colours that the rim lacks, near the middle.

    Args:
        code: int32 [H, W] from `colour_code`.
        inside: bool [H, W], pixels that count.
    """
    import cv2

    height, width = code.shape
    y, x = np.mgrid[:height, :width].astype(np.float32)
    rim = (np.minimum(x, width - 1 - x) < 0.08 * width) | (np.minimum(y, height - 1 - y) < 0.1 * height)
    middle = np.exp(-(((x / width - 0.5) / 0.25) ** 2 + ((y / height - 0.5) / 0.3) ** 2) / 2)
    other = histogram(code, (rim & inside).astype(np.float32))
    own = histogram(code, (middle * inside).astype(np.float32))
    colour = posterior(own, other)[code]
    return (cv2.blur(colour, (5, 5)) * middle**0.5 * inside).astype(np.float32)


class WithRegions:
    """Another detector, with the moving regions that it has no box for."""

    def __init__(self, detector: SubjectDetector) -> None:
        self._detector, self._regions = detector, MovingRegions()

    def start_shot(self) -> None:
        """Forget earlier pictures: the next one is the first of a shot."""
        self._detector.start_shot()
        self._regions.start_shot()

    def detect(self, picture_bgr_u8: np.ndarray) -> Detections:
        """The detector's boxes and uncovered regions of a picture uint8 [H, W, 3], best score first."""
        found = self._detector.detect(picture_bgr_u8)
        regions = self._regions.detect(picture_bgr_u8)
        made = join(found, regions.take(np.flatnonzero(~covered(found, regions))))
        return dataclasses.replace(made, belief=regions.belief)

    def describe(self) -> list[Row]:
        """`curation.rows.MODEL` values of both."""
        return [*self._detector.describe(), *self._regions.describe()]


def covered(found: Detections, regions: Detections) -> np.ndarray:
    """Bool [R]: regions that are (part of) what the other boxes show, or whose motion those explain."""
    if not len(found) or not len(regions):
        return np.zeros(len(regions), bool)
    area = np.maximum(regions.boxes[:, 2:].prod(1), 1)
    inside = overlap(found.boxes, regions.boxes) / area
    known = np.maximum(found.boxes[:, 2:].prod(1), 1)[:, None]
    explained = (overlap(found.boxes, regions.boxes) > 0.6 * known) & (known > 0.1 * area)
    same = iou(found.boxes, regions.boxes) > 0.3
    return ((inside > 0.6) | explained | same).any(0)


def join(a: Detections, b: Detections) -> Detections:
    """All boxes of both, best score first."""
    return detections(
        [*a.boxes.tolist(), *b.boxes.tolist()],
        [*a.scores.tolist(), *b.scores.tolist()],
        [*a.class_names, *b.class_names],
    )
