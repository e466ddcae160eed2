"""Subject detectors behind one interface: BGR picture in, boxes with class names and scores out.

    backend   tier      what
    yolo      full      Ultralytics YOLO (extra `yolo`), weights from a file
    yolox     full      a YOLOX-family ONNX file through ONNX Runtime
    opencv    embedded  what ships with OpenCV: people by HOG, faces by cascades, and salient moving regions

`auto` takes the first one that can run here without a download.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Protocol

import numpy as np

from curation import weights
from curation.engine.stage import Row
from curation.optional import MissingExtra, available, install_command

BACKENDS = ("auto", "opencv", "yolox", "yolo")
PERSON, FACE, REGION = "person", "face", "region"
"""Class names with a meaning of their own; `region` is a salient moving region of unknown class."""


@dataclass(frozen=True)
class Detections:
    """N boxes of one picture, best score first.

    Attributes:
        boxes: float32 [N, 4], x, y, width, height in pixels of the picture, inside it.
        scores: float32 [N], 0..1.
        class_names: N names, COCO's or `region`.
        belief: float32 [h, w] in 0..1 at any size, how likely each part of the picture belongs to something
            that moves; None if the detector does not know.
    """

    boxes: np.ndarray = field(default_factory=lambda: np.zeros((0, 4), np.float32))
    scores: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    class_names: list[str] = field(default_factory=list)
    belief: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.boxes)

    def __post_init__(self) -> None:
        if self.boxes.shape != (len(self.scores), 4) or len(self.class_names) != len(self.scores):
            raise ValueError(
                f"boxes {self.boxes.shape}, scores {self.scores.shape} and {len(self.class_names)} class "
                "names do not belong together"
            )

    def take(self, index: np.ndarray | Sequence[int]) -> Detections:
        """The detections at the positions `index`, in that order."""
        index = np.asarray(index, np.int64)
        names = [self.class_names[i] for i in index]
        return Detections(self.boxes[index], self.scores[index], names, self.belief)


def detections(boxes: Sequence[Sequence[float]], scores: Sequence[float], names: Sequence[str]) -> Detections:
    """Detections from plain lists, best score first (ties by position)."""
    made = Detections(
        np.asarray(boxes, np.float32).reshape(-1, 4), np.asarray(scores, np.float32), list(names)
    )
    return made.take(np.argsort(-made.scores, kind="stable"))


class SubjectDetector(Protocol):
    """What a backend offers. It may remember pictures of the shot in work."""

    def start_shot(self) -> None:
        """Forget earlier pictures: the next one is the first of a shot."""

    def detect(self, picture_bgr_u8: np.ndarray) -> Detections:
        """Boxes in a picture uint8 [H, W, 3]; pictures of a shot come in order of time."""

    def describe(self) -> list[Row]:
        """`curation.rows.MODEL` values, one per model in it."""


@dataclass(frozen=True)
class Choice:
    """Which backend runs, with which file, and why this one."""

    backend: str
    path: Path | None
    why: str

    @property
    def fingerprint(self) -> str:
        """What decides its results besides the settings."""
        if self.path is not None:
            return f"{self.backend}:{weights.sha256_of(self.path)}"
        return f"{self.backend}:{opencv_version()}"


def choose(backend: str = "auto", path: str | None = None, *, allow_download: bool = False) -> Choice:
    """Settle `auto` and find the weights, without importing anything heavy.

    Args:
        backend: one of `BACKENDS`.
        path: explicit weights; with `auto`, .onnx means yolox and .pt means yolo.
        allow_download: fetch YOLOX's weights when they are not here (yolox only).

    Raises:
        ValueError: unknown backend, or a path for a backend that takes none.
        WeightsMissing: the backend that was asked for has no weights here.
        MissingExtra: yolo was asked for and Ultralytics is not installed.
    """
    if backend not in BACKENDS:
        raise ValueError(f"no subject detector {backend!r}; there are: {', '.join(BACKENDS)}")
    if backend == "opencv":
        if path:
            raise ValueError("the opencv detector takes no weights file; use yolox or yolo for one")
        return Choice("opencv", None, "asked for")
    if backend == "auto" and path:
        backend = "yolox" if path.endswith(".onnx") else "yolo"
    if backend == "yolox":
        file = weights.resolve("yolox_nano", path, allow_download=allow_download)
        return Choice("yolox", file, "asked for")
    if backend == "yolo":
        return _choose_yolo(path)
    found = weights.find("yolox_nano")
    if found is not None:
        return Choice("yolox", found, f"weights found at {found}")
    return Choice("opencv", None, "no detector weights on this machine")


def _choose_yolo(path: str | None) -> Choice:
    if not available("ultralytics"):
        raise MissingExtra(f"the yolo detector needs Ultralytics; get it with: {install_command('yolo')}")
    if not path:
        raise weights.WeightsMissing(
            "the yolo detector needs a weights file of yours (a .pt of Ultralytics); give its path"
        )
    file = Path(path).expanduser()
    if not file.is_file():
        raise weights.WeightsMissing(f"yolo: no file at {file}; correct the path")
    return Choice("yolo", file, "asked for")


def build(choice: Choice, *, min_score: float = 0.2, region_backup: bool = True) -> SubjectDetector:
    """The detector of a choice; imports its packages and loads its weights.

    Args:
        choice: from `choose`.
        min_score: boxes below are not returned (yolox and yolo; opencv has its own scale).
        region_backup: give yolox and yolo the moving regions that they have no box for.
    """
    if choice.backend == "opencv":
        from curation.models.opencv_detectors import OpenCvDetector

        return OpenCvDetector()
    assert choice.path is not None
    detector: SubjectDetector
    if choice.backend == "yolox":
        from curation.models.yolox import YoloxDetector

        detector = YoloxDetector(choice.path, min_score=min_score)
    else:
        from curation.models.ultralytics_yolo import UltralyticsDetector

        detector = UltralyticsDetector(choice.path, min_score=min_score)
    if not region_backup:
        return detector
    from curation.models.moving_regions import WithRegions

    return WithRegions(detector)


def iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes [N, 4] and [M, 4] (x, y, width, height): float [N, M]."""
    inner = overlap(a, b)
    area_a, area_b = a[:, 2] * a[:, 3], b[:, 2] * b[:, 3]
    union = area_a[:, None] + area_b[None] - inner
    return inner / np.maximum(union, 1e-9)


def overlap(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Common area of boxes [N, 4] and [M, 4] (x, y, width, height): float [N, M]."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, :2] + a[:, None, 2:], b[None, :, :2] + b[None, :, 2:])
    return np.clip(high - low, 0, None).prod(-1)


def suppress(boxes: np.ndarray, scores: np.ndarray, max_iou: float) -> np.ndarray:
    """Greedy non-maximum suppression: positions of the boxes kept, best score first.

    Args:
        boxes: [N, 4], x, y, width, height.
        scores: [N].
        max_iou: a box that overlaps a better one more than this is dropped.
    """
    order = np.argsort(-scores, kind="stable")
    table = iou(boxes, boxes)
    kept: list[int] = []
    for i in order:
        if all(table[i, k] <= max_iou for k in kept):
            kept.append(int(i))
    return np.asarray(kept, np.int64)


def clip_boxes(boxes: np.ndarray, height: int, width: int) -> np.ndarray:
    """Boxes [N, 4] (x, y, width, height) cut to the picture."""
    low = np.clip(boxes[:, :2], 0, (width, height))
    high = np.clip(boxes[:, :2] + boxes[:, 2:], 0, (width, height))
    return np.concatenate([low, high - low], 1).astype(np.float32)


@functools.lru_cache(maxsize=1)
def opencv_version() -> str:
    """Version of the installed OpenCV, whose data files are the embedded detectors' models."""
    for name in ("opencv-python-headless", "opencv-python", "opencv-contrib-python"):
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return "unknown"
