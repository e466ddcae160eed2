"""Faces with five landmarks by YuNet (Wu et al., 2023) through ONNX Runtime, any picture size."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from curation.models.onnx_file import session
from curation.models.subject_detector import suppress

STRIDES = (8, 16, 32)
MAX_IOU = 0.3


class Faces(NamedTuple):
    """N faces, best first.

    Attributes:
        boxes: float32 [N, 4], x, y, width, height in pixels of the picture.
        scores: float32 [N], 0..1.
        landmarks: float32 [N, 5, 2], x and y of right eye, left eye, nose, right and left mouth corner.
    """

    boxes: np.ndarray
    scores: np.ndarray
    landmarks: np.ndarray


class YuNet:
    """The face detector of an ONNX file with dynamic input size."""

    def __init__(self, path: Path, *, min_score: float = 0.7) -> None:
        self._session, self._min_score = session(path), min_score
        self._input = self._session.get_inputs()[0].name
        self._outputs = [o.name for o in self._session.get_outputs()]

    def detect(self, picture_bgr_u8: np.ndarray) -> Faces:
        """Faces in a picture uint8 [H, W, 3]."""
        height, width = picture_bgr_u8.shape[:2]
        size = tuple(-(-side // STRIDES[-1]) * STRIDES[-1] for side in (height, width))
        canvas = np.zeros((*size, 3), np.float32)
        canvas[:height, :width] = picture_bgr_u8
        blob = np.ascontiguousarray(canvas.transpose(2, 0, 1)[None])
        raw = dict(zip(self._outputs, self._session.run(None, {self._input: blob}), strict=True))
        parts = [
            decode({k: raw[f"{k}_{stride}"][0] for k in ("cls", "obj", "bbox", "kps")}, stride, size[1])
            for stride in STRIDES
        ]
        boxes, scores, marks = (np.concatenate(column) for column in zip(*parts, strict=True))
        keep = np.flatnonzero(scores >= self._min_score)
        keep = keep[suppress(boxes[keep], scores[keep], MAX_IOU)]
        return Faces(boxes[keep], scores[keep], marks[keep])


def decode(raw: Mapping[str, np.ndarray], stride: int, width: int) -> Faces:
    """One level of the head as faces, unsuppressed.

    Args:
        raw: float32, for the level's A cells, row by row: `cls` [A, 1] face probability, `obj` [A, 1]
            objectness, `bbox` [A, 4] centre offset and log size in cells, `kps` [A, 10] landmark offsets
            in cells.
        stride: pixels per cell.
        width: of the network's picture, pixels.
    """
    columns = width // stride
    cell = np.arange(len(raw["bbox"]))
    corner = np.stack([cell % columns, cell // columns], 1).astype(np.float32)
    scores = np.sqrt(np.clip(raw["cls"][:, 0], 0, 1) * np.clip(raw["obj"][:, 0], 0, 1))
    extent = np.exp(raw["bbox"][:, 2:]) * stride
    centre = (corner + raw["bbox"][:, :2]) * stride
    points = (raw["kps"].reshape(-1, 5, 2) + corner[:, None]) * stride
    return Faces(np.concatenate([centre - extent / 2, extent], 1), scores, points)
