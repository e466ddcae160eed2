"""Where there is text in a picture: PP-OCR text detection behind one interface, recognition never runs.

Chosen by measurement, default backend (PP-OCRv6 small). Recall of lines drawn on 124 frames of two animated
films, 16 to 30 px high in 480 lines, white with and without outline and yellow, each counted when four fifths
of it are covered: 1.000 at a longest side of 640 and 736, .968 to 1.000 at 480; PP-OCRv3 .968 to 1.000 at
640. A real line of 12 px in 720 lines: found in 16 of 16 frames at 640, in 15 at 480, in 2 of 8 at 320.
Burnt-in lines in 480x204: 44 of 44 frames from 320 to 960. A frame takes three times as long at 960 as it
does at 640.
With the mean and deviation that PP-OCR was trained with (ImageNet's), frames without any text get a fourth
fewer false boxes at 640 than with RapidOCR's default of one half. What is left of them is mostly large and
lasts; `curation.framing.overlays` tells it from text.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from curation.engine.stage import Row
from curation.optional import MissingExtra, require

BACKENDS = ("rapidocr", "paddleocr")
MEAN, DEVIATION = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]  # PP-OCR's training normalisation
STRIDE = 32  # the networks take sides that are multiples of it


@dataclass(frozen=True, kw_only=True)
class TextSettings:
    """How text is looked for.

    Attributes:
        backend: rapidocr (ONNX Runtime, weights in its wheel) or paddleocr (the `ocr-gpu` extra).
        model: rapidocr: a PP-OCR detection ONNX file, empty for the one in the wheel. paddleocr: the folder
            of a PP-OCR detection model as PaddleOCR saves it; needed, since nothing is downloaded here.
        device: of paddleocr, "cpu" or "gpu:0"; rapidocr runs on the CPU.
        max_side: pictures are scaled down to this longest side before the network sees them.
        max_upscale: smaller pictures are scaled up to `max_side`, but not by more than this.
        min_score: boxes under this mean text probability are dropped.
        threads: CPU threads of the network.
    """

    backend: str = "rapidocr"
    model: str = ""
    device: str = "cpu"
    max_side: int = 640
    max_upscale: float = 1.0
    min_score: float = 0.5
    threads: int = 1

    def __post_init__(self) -> None:
        if self.backend not in BACKENDS:
            raise ValueError(f"text backend {self.backend!r} is unknown; choose from {BACKENDS}")
        if self.backend == "paddleocr" and not self.model:
            raise ValueError("text backend paddleocr needs `model`: the folder of a detection model")
        if self.max_side < STRIDE or self.max_upscale < 1 or self.threads < 1:
            raise ValueError(
                f"text detection needs max_side >= {STRIDE}, max_upscale >= 1 and threads >= 1; got "
                f"{self.max_side}, {self.max_upscale}, {self.threads}"
            )


class Network(Protocol):
    """A loaded network: picture of uint8 [H, W, 3] BGR -> (corners [N, 4, 2] in its pixels, scores [N])."""

    def __call__(self, picture_bgr_u8: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Detect; the sides of the picture are multiples of `STRIDE`."""


class TextDetector:
    """Finds text lines. Build it once per process; the same picture always gives the same boxes."""

    def __init__(self, settings: TextSettings | None = None) -> None:
        """Load the network.

        Raises:
            MissingExtra: the packages of the backend are not installed.
            ValueError: the weights are not there.
        """
        self.settings = settings or TextSettings()
        load = {"rapidocr": _load_rapidocr, "paddleocr": _load_paddleocr}[self.settings.backend]
        self._network: Network = load(self.settings, weight_file(self.settings))

    def detect(self, picture_bgr_u8: np.ndarray) -> np.ndarray:
        """Upright boxes of text, a line each as a rule.

        Args:
            picture_bgr_u8: uint8 [H, W, 3]; any size. A picture already scaled to `max_side` saves time.

        Returns:
            float32 [N, 5]: x, y, width, height in pixels of the picture, score 0..1. Top to bottom.
        """
        import cv2

        if picture_bgr_u8.ndim != 3 or picture_bgr_u8.shape[2] != 3:
            raise ValueError(f"expected a picture [H, W, 3], got {picture_bgr_u8.shape}")
        height, width = picture_bgr_u8.shape[:2]
        size = network_size(height, width, self.settings)
        shrinks = size[0] < height
        scaled = picture_bgr_u8
        if size != (height, width):
            how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
            scaled = cv2.resize(picture_bgr_u8, size[::-1], interpolation=how)
        corners, scores = self._network(scaled)
        scale = (width / size[1], height / size[0])
        return upright(corners, scores, scale, (height, width), self.settings.min_score)

    def describe(self) -> Row:
        """The model that runs, as `curation.rows.MODEL`."""
        return describe(self.settings)


def describe(settings: TextSettings) -> Row:
    """The model that `settings` would run, as `curation.rows.MODEL`, without loading it.

    Raises:
        MissingExtra, ValueError: as the constructor of `TextDetector`.
    """
    weights = weight_file(settings)
    _require(settings.backend)
    folder = settings.backend == "paddleocr"
    return {
        "part": "text",
        "tier": "full" if folder else "embedded",
        "backend": settings.backend,
        "model_id": weights.parent.name if folder else weights.stem,
        "revision": metadata.version(settings.backend),
        "sha256": _sha256(weights),
    }


def weight_file(settings: TextSettings) -> Path:
    """The file with the weights that `settings` names.

    Raises:
        MissingExtra: rapidocr is not installed.
        ValueError: there is no such file.
    """
    path = Path(settings.model)
    if settings.backend == "paddleocr":
        path = path / "inference.pdiparams"
    elif not settings.model:
        path = _wheel_weights()
    if not path.is_file():
        raise ValueError(f"text detection weights not found: {path}")
    return path


def network_size(height: int, width: int, settings: TextSettings) -> tuple[int, int]:
    """(height, width) that the network sees: multiples of `STRIDE`, aspect kept as near as that allows."""
    scale = min(settings.max_side / max(height, width), settings.max_upscale)
    return tuple(max(1, round(side * scale / STRIDE)) * STRIDE for side in (height, width))  # type: ignore[return-value]


def upright(
    corners: np.ndarray,
    scores: np.ndarray,
    scale: tuple[float, float],
    size: tuple[int, int],
    min_score: float,
) -> np.ndarray:
    """Boxes around slanted ones, in the picture's pixels.

    Args:
        corners: [N, 4, 2], x and y in network pixels.
        scores: [N].
        scale: picture pixels per network pixel, (x, y).
        size: (height, width) of the picture; boxes are cut off at its edges.
        min_score: lower ones are dropped.

    Returns:
        float32 [M, 5] as `TextDetector.detect`.
    """
    keep = np.asarray(scores, np.float64).reshape(-1) >= min_score
    points = np.asarray(corners, np.float64).reshape(-1, 4, 2)[keep] * scale
    limit = np.array([size[1], size[0]], np.float64)
    low, high = points.min(axis=1).clip(0, limit), points.max(axis=1).clip(0, limit)
    scored = np.asarray(scores, np.float64).reshape(-1, 1)[keep]
    boxes = np.concatenate([low, high - low, scored], axis=1).astype(np.float32)
    boxes = boxes[(boxes[:, 2] > 0) & (boxes[:, 3] > 0)]
    return boxes[np.lexsort((boxes[:, 0], boxes[:, 1]))]


def _load_rapidocr(settings: TextSettings, weights: Path) -> Network:
    rapidocr = _require("rapidocr")
    engine = rapidocr.RapidOCR(
        params={
            "Global.log_level": "error",
            # Sizes are settled here, so that the same holds for every backend and version.
            "Global.max_side_len": 8192,
            "Global.use_cls": False,
            "Global.use_rec": False,
            "Det.model_path": str(weights),
            "Det.limit_type": "max",
            "Det.limit_side_len": 8192,
            "Det.box_thresh": settings.min_score,
            "Det.mean": MEAN,
            "Det.std": DEVIATION,
            "EngineConfig.onnxruntime.intra_op_num_threads": settings.threads,
            "EngineConfig.onnxruntime.inter_op_num_threads": 1,
        }
    )

    def network(picture_bgr_u8: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found: Any = engine(picture_bgr_u8, use_det=True, use_cls=False, use_rec=False)
        if found.boxes is None or not len(found.boxes):
            return np.zeros((0, 4, 2)), np.zeros(0)
        return np.asarray(found.boxes), np.asarray(found.scores)

    return network


def _load_paddleocr(settings: TextSettings, weights: Path) -> Network:
    model = _require("paddleocr").TextDetection(
        model_dir=str(weights.parent),
        model_name=_paddle_name(weights.parent),
        device=settings.device,
        limit_type="max",
        limit_side_len=8192,
        box_thresh=settings.min_score,
        cpu_threads=settings.threads,
    )

    def network(picture_bgr_u8: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        (found,) = model.predict(picture_bgr_u8, batch_size=1)
        return np.asarray(found["dt_polys"]), np.asarray(found["dt_scores"])

    return network


def _paddle_name(folder: Path) -> str:
    """The model's name from the `inference.yml` that PaddleOCR keeps beside the weights."""
    import yaml

    path = folder / "inference.yml"
    if not path.is_file():
        raise ValueError(f"text detection model incomplete: {path} not found")
    return str(yaml.safe_load(path.read_text(encoding="utf-8"))["Global"]["model_name"])


def _require(backend: str) -> Any:
    if backend == "paddleocr":
        return require("paddleocr", extra="ocr-gpu")
    try:
        import rapidocr
    except ImportError as error:
        raise MissingExtra(f"rapidocr is not usable here ({error}); reinstall memento-video") from error
    return rapidocr


def _wheel_weights() -> Path:
    spec = find_spec("rapidocr")
    if spec is None or spec.origin is None:
        raise MissingExtra("rapidocr is not installed; reinstall memento-video")
    found = sorted((Path(spec.origin).parent / "models").glob("*det*.onnx"))
    if len(found) != 1:
        raise ValueError(f"expected one detection model in rapidocr's wheel, found {found}")
    return found[0]


@cache
def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
