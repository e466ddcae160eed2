"""YOLOX-family detectors from an ONNX file, through ONNX Runtime on the CPU.

Ge et al., YOLOX: Exceeding YOLO Series in 2021 (arXiv 2107.08430). The file's output is the raw head: [1,
A, 5 + classes] with, for each of A cells, centre offsets and log sizes in units of the cell's stride,
objectness and class probabilities.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from curation.engine.stage import Row
from curation.models.onnx_file import file_facts, session
from curation.models.subject_detector import Detections, clip_boxes, suppress

STRIDES = (8, 16, 32)
PAD = 114  # grey of the letterbox in YOLOX's training
MAX_IOU = 0.45  # class-wise suppression, the value of YOLOX's demo
MAX_IOU_ACROSS = 0.7  # one thing under two class names stays one thing

_COCO = """
person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant, stop sign,
parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe, backpack, umbrella,
handbag, tie, suitcase, frisbee, skis, snowboard, sports ball, kite, baseball bat, baseball glove, skateboard,
surfboard, tennis racket, bottle, wine glass, cup, fork, knife, spoon, bowl, banana, apple, sandwich, orange,
broccoli, carrot, hot dog, pizza, donut, cake, chair, couch, potted plant, bed, dining table, toilet, tv,
laptop, mouse, remote, keyboard, cell phone, microwave, oven, toaster, sink, refrigerator, book, clock, vase,
scissors, teddy bear, hair drier, toothbrush
"""
COCO_NAMES = tuple(name.strip() for name in _COCO.split(","))


def letterbox(picture_bgr_u8: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, float]:
    """The picture scaled into the top left of a grey one of `size`, and the scale.

    Args:
        picture_bgr_u8: uint8 [H, W, 3].
        size: (height, width) of the network's input.

    Returns:
        float32 [1, 3, height, width] in 0..255 (BGR), and network pixels per picture pixel.
    """
    import cv2

    height, width = picture_bgr_u8.shape[:2]
    scale = min(size[0] / height, size[1] / width)
    inner = (max(1, round(width * scale)), max(1, round(height * scale)))
    canvas = np.full((*size, 3), PAD, np.uint8)
    canvas[: inner[1], : inner[0]] = cv2.resize(picture_bgr_u8, inner, interpolation=cv2.INTER_LINEAR)
    return np.ascontiguousarray(canvas.transpose(2, 0, 1)[None], np.float32), scale


def grid(size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Cell corners float32 [A, 2] (x, y, in cells) and strides float32 [A, 1] of the head's A cells."""
    corners, strides = [], []
    for stride in STRIDES:
        rows, columns = size[0] // stride, size[1] // stride
        y, x = np.mgrid[:rows, :columns]
        corners.append(np.stack([x.ravel(), y.ravel()], 1))
        strides.append(np.full((rows * columns, 1), stride))
    return np.concatenate(corners).astype(np.float32), np.concatenate(strides).astype(np.float32)


def decode(
    raw: np.ndarray, size: tuple[int, int], min_score: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes from the raw head, before suppression.

    Args:
        raw: float32 [A, 5 + classes].
        size: (height, width) of the network's input.
        min_score: cells below are dropped.

    Returns:
        Boxes float32 [N, 4] (x, y, width, height in network pixels), scores [N], class indices [N].
    """
    corners, strides = grid(size)
    if len(raw) != len(corners):
        raise ValueError(f"the head has {len(raw)} cells, {size} pixels need {len(corners)}")
    scores_all = raw[:, 4:5] * raw[:, 5:]
    classes = scores_all.argmax(1)
    scores = scores_all[np.arange(len(raw)), classes]
    keep = scores >= min_score
    corners, strides, raw = corners[keep], strides[keep], raw[keep]
    centres = (raw[:, :2] + corners) * strides
    extent = np.exp(raw[:, 2:4]) * strides
    boxes = np.concatenate([centres - extent / 2, extent], 1)
    return boxes.astype(np.float32), scores[keep], classes[keep]


def suppress_by_class(boxes: np.ndarray, scores: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Positions kept by suppression within each class, then of near-equal boxes across classes."""
    kept: list[int] = []
    for name in np.unique(classes):
        where = np.flatnonzero(classes == name)
        kept.extend(where[suppress(boxes[where], scores[where], MAX_IOU)])
    index = np.sort(np.asarray(kept, np.int64))
    return index[suppress(boxes[index], scores[index], MAX_IOU_ACROSS)]


class YoloxDetector:
    """A YOLOX ONNX file; see `curation.models.subject_detector.SubjectDetector`.

    Raises:
        ValueError: the file is no YOLOX detector with a fixed input size.
    """

    def __init__(self, path: Path, *, min_score: float = 0.25) -> None:
        self._path, self._min_score = path, min_score
        self._session = session(path)
        source = self._session.get_inputs()[0]
        self._input = source.name
        if len(source.shape) != 4 or not all(isinstance(side, int) for side in source.shape[1:]):
            raise ValueError(f"{path}: input {source.shape} is not a fixed [1, 3, height, width]")
        self._size = (int(source.shape[2]), int(source.shape[3]))

    def start_shot(self) -> None:
        """Nothing to forget: every picture stands alone."""

    def detect(self, picture_bgr_u8: np.ndarray) -> Detections:
        """Boxes of a picture uint8 [H, W, 3], best score first."""
        blob, scale = letterbox(picture_bgr_u8, self._size)
        raw = self._session.run(None, {self._input: blob})[0][0]
        boxes, scores, classes = decode(raw, self._size, self._min_score)
        kept = suppress_by_class(boxes, scores, classes)
        inside = clip_boxes(boxes[kept] / scale, *picture_bgr_u8.shape[:2])
        names = [self._name(int(c), raw.shape[1] - 5) for c in classes[kept]]
        found = Detections(inside, scores[kept].astype(np.float32), names)
        return found.take(np.flatnonzero((inside[:, 2] >= 1) & (inside[:, 3] >= 1)))

    @staticmethod
    def _name(index: int, count: int) -> str:
        return COCO_NAMES[index] if count == len(COCO_NAMES) else f"class_{index}"

    def describe(self) -> list[Row]:
        """`curation.rows.MODEL` values."""
        facts = file_facts(self._path)
        return [{"part": "detector", "tier": "full", "backend": "yolox", **facts}]
