"""Ultralytics YOLO (extra `yolo`; AGPL-3.0), with weights from a file; nothing is downloaded."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from curation.engine.stage import Row
from curation.models.onnx_file import file_facts
from curation.models.subject_detector import Detections, clip_boxes
from curation.optional import require


class UltralyticsDetector:
    """An Ultralytics detection model; see `curation.models.subject_detector.SubjectDetector`.

    Raises:
        MissingExtra: Ultralytics is not installed.
    """

    def __init__(self, path: Path, *, min_score: float = 0.25) -> None:
        package = require("ultralytics", extra="yolo")
        self._path, self._min_score = path, min_score
        self._model = package.YOLO(str(path))

    def start_shot(self) -> None:
        """Nothing to forget: every picture stands alone."""

    def detect(self, picture_bgr_u8: np.ndarray) -> Detections:
        """Boxes of a picture uint8 [H, W, 3], best score first."""
        found = self._model.predict(picture_bgr_u8, conf=self._min_score, verbose=False)[0]
        corners = found.boxes.xyxy.cpu().numpy().reshape(-1, 4)
        boxes = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], 1)
        scores = found.boxes.conf.cpu().numpy().astype(np.float32)
        names = [found.names[int(c)] for c in found.boxes.cls.cpu().numpy()]
        made = Detections(clip_boxes(boxes, *picture_bgr_u8.shape[:2]), scores, names)
        return made.take(np.argsort(-scores, kind="stable"))

    def describe(self) -> list[Row]:
        """`curation.rows.MODEL` values."""
        facts = file_facts(self._path)
        return [{"part": "detector", "tier": "full", "backend": "yolo", **facts}]
