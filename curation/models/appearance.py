"""What a tracked thing looks like, as vectors that are near for the same thing in other shots.

    kind     tier      what                                                                     for
    colour   embedded  Lab colours of upper, middle and lower part at one lightness, where they  everything
                       differ from the surround; light and dark parts; outline; texture
    pattern  embedded  local binary patterns of a frontal face, whichever way it looks          persons
    reid     full      OSNet (Zhou et al., 2019): 256x128 -> 512                                everything
    face     full      YuNet finds it, MobileFaceNet (Chen et al., 2018): 112x112 -> 128        persons

All vectors have length 1. The vectors of a track are means over its best crops.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from curation.engine.stage import Row
from curation.framing.colours import colour_names
from curation.models.face_pattern import NUM_PATTERNS, FacePattern, binary_patterns, own_face
from curation.models.onnx_file import file_facts, session
from curation.models.subject_detector import PERSON, opencv_version
from curation.models.yunet import YuNet

MARGIN = 0.25  # of the box on each side: the surround that colours are compared with
CROP_SIDE = 320  # longest side of a kept crop
L_BINS, AB_BINS = 8, 16
AB_REACH = 50  # a and b beyond +-50 fall into the outermost cells; few surfaces have more
BANDS = 3
GRADIENT_CELLS, GRADIENT_BINS = (6, 3), 8
# Tried on the tracks that docs/tiers.md counts; the ranking of pairs changes little around these.
WEIGHTS = {"colour": 1.0, "tone": 0.5, "outline": 0.5, "texture": 0.5}
MID_LIGHT, LEAST_LIGHT, MOST_GAIN = 127.5, 20.0, 3.0  # luma levels a thing is brought to; what is black stays
LEAST_BELIEF = 0.1  # weight of a pixel that did not move at all, against one that did
FACE_SCORE = 0.7
# Eyes, nose and mouth corners (x, y) in an aligned 112x112 face, as the face network was trained.
FACE_TEMPLATE = np.array(
    [[38.29, 51.70], [73.53, 51.50], [56.03, 71.74], [41.55, 92.37], [70.73, 92.20]], np.float32
)


@dataclass(frozen=True)
class Crop:
    """A tracked box with its surround.

    Attributes:
        picture_bgr_u8: uint8 [H, W, 3], longest side <= 320.
        belief: float32 [H, W] in 0..1, how likely a pixel is of a moving thing; None if not known.
        box: x, y, width, height of the thing in it.
    """

    picture_bgr_u8: np.ndarray
    belief: np.ndarray | None
    box: tuple[float, float, float, float]

    @property
    def inner(self) -> np.ndarray:
        """The box alone, uint8 [h, w, 3], at least one pixel."""
        x, y, w, h = self.box
        left, top = int(x), int(y)
        return self.picture_bgr_u8[top : max(top + 1, round(y + h)), left : max(left + 1, round(x + w))]


@dataclass(frozen=True)
class Look:
    """How a track looks: unit vectors per kind (None where the kind does not apply) and colour names."""

    colour: np.ndarray
    pattern: np.ndarray | None
    reid: np.ndarray | None
    face: np.ndarray | None
    colours: list[str]


KINDS = ("colour", "pattern", "reid", "face")


def crop_of(picture_bgr_u8: np.ndarray, box: Sequence[float], belief: np.ndarray | None = None) -> Crop:
    """A box of a picture with its surround, small enough to keep.

    Args:
        picture_bgr_u8: uint8 [H, W, 3].
        box: x, y, width, height.
        belief: float32 [h, w] over the whole picture, at any size (see `Detections`).
    """
    import cv2

    x, y, w, h = (float(v) for v in box)
    height, width = picture_bgr_u8.shape[:2]
    left, top = max(0, int(x - MARGIN * w)), max(0, int(y - MARGIN * h))
    right = min(width, max(left + 1, int(np.ceil(x + w * (1 + MARGIN)))))
    bottom = min(height, max(top + 1, int(np.ceil(y + h * (1 + MARGIN)))))
    part = picture_bgr_u8[top:bottom, left:right]
    own = None if belief is None else _part(belief, (left, top, right, bottom), (height, width))
    scale = min(1.0, CROP_SIDE / max(part.shape[:2]))
    if scale < 1:
        size = (max(1, round(part.shape[1] * scale)), max(1, round(part.shape[0] * scale)))
        part = cv2.resize(part, size, interpolation=cv2.INTER_AREA)
    moved = ((x - left) * scale, (y - top) * scale, w * scale, h * scale)
    if own is not None:
        own = cv2.resize(own, (part.shape[1], part.shape[0]), interpolation=cv2.INTER_LINEAR)
    return Crop(part.copy(), own, moved)


def _part(belief: np.ndarray, corners: tuple[int, int, int, int], size: tuple[int, int]) -> np.ndarray:
    """The part of a small map for a rectangle (left, top, right, bottom) of a picture of `size`."""
    rows, columns = belief.shape[0] / size[0], belief.shape[1] / size[1]
    left, right = int(corners[0] * columns), int(np.ceil(corners[2] * columns))
    top, bottom = int(corners[1] * rows), int(np.ceil(corners[3] * rows))
    return belief[top : max(top + 1, bottom), left : max(left + 1, right)].astype(np.float32)


def sharpness(picture_bgr_u8: np.ndarray, box: Sequence[float]) -> float:
    """Variance of the Laplacian of luma inside a box (x, y, width, height) of a picture."""
    import cv2

    x, y, w, h = (float(v) for v in box)
    part = picture_bgr_u8[max(0, int(y)) : int(y + h) + 1, max(0, int(x)) : int(x + w) + 1]
    if not part.size:
        return 0.0
    return float(cv2.Laplacian(cv2.cvtColor(part, cv2.COLOR_BGR2GRAY), cv2.CV_32F).var())


def masks(crop: Crop) -> tuple[np.ndarray, np.ndarray]:
    """Weights float32 [H, W] of the thing (an ellipse in the box) and of its surround (outside the box)."""
    height, width = crop.picture_bgr_u8.shape[:2]
    x, y, w, h = crop.box
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    across = (columns + 0.5 - x - w / 2) / max(w / 2, 0.5)
    down = (rows + 0.5 - y - h / 2) / max(h / 2, 0.5)
    inside = (across**2 + down**2 <= 1).astype(np.float32)
    outside = ((np.abs(across) > 1) | (np.abs(down) > 1)).astype(np.float32)
    return inside, outside


def thing_weights(crop: Crop) -> np.ndarray:
    """How much a pixel tells of the thing: inside the ellipse; less if the surround has its colour too."""
    import cv2

    inside, outside = masks(crop)
    lab = cv2.cvtColor(crop.picture_bgr_u8, cv2.COLOR_BGR2LAB).astype(np.int32)
    code = ((lab[..., 0] // 32) * 16 + lab[..., 1] // 16) * 16 + lab[..., 2] // 16
    within = np.bincount(code.ravel(), inside.ravel(), 2048) / max(float(inside.sum()), 1)
    around = np.bincount(code.ravel(), outside.ravel(), 2048) / max(float(outside.sum()), 1)
    share = (within + 1e-3) / (within + around + 2e-3)
    weight = inside * np.clip(share[code], 0.1, 1).astype(np.float32)
    if crop.belief is not None and crop.belief.max() > 0:
        weight *= LEAST_BELIEF + (1 - LEAST_BELIEF) * crop.belief / float(crop.belief.max())
    return weight


def colour_vector(crop: Crop) -> np.ndarray:
    """The embedded appearance vector, float32, length 1.

    Square roots of histograms, so that the cosine of two vectors is a mean of Bhattacharyya coefficients.
    Chroma is taken at one mean lightness: in shade the same fur has less of it.
    """
    import cv2

    weight = thing_weights(crop)
    lab = cv2.cvtColor(crop.picture_bgr_u8, cv2.COLOR_BGR2LAB)
    evened = cv2.cvtColor(evenly_lit(crop.picture_bgr_u8, lab[..., 0], weight), cv2.COLOR_BGR2LAB)
    _, y, _, h = crop.box
    rows = np.arange(weight.shape[0], dtype=np.float32)
    parts = []
    for band in range(BANDS):
        centre = y + h * (band + 0.5) / BANDS
        near = np.clip(1.5 - np.abs(rows - centre) / max(h / BANDS, 1), 0, 1)[:, None]
        parts.append(WEIGHTS["colour"] * _chroma(evened, weight * near))
        parts.append(WEIGHTS["tone"] * _tone(lab, weight * near))
    parts.append(WEIGHTS["outline"] * BANDS**0.5 * _outline(crop.inner))
    parts.append(WEIGHTS["texture"] * BANDS**0.5 * _texture(lab[..., 0], weight))
    return unit(np.concatenate(parts).astype(np.float32))


def evenly_lit(picture_bgr_u8: np.ndarray, light_u8: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """The picture, uint8 [H, W, 3], brighter or darker so that the weighted mean of its light is mid-grey.

    Args:
        picture_bgr_u8: uint8 [H, W, 3].
        light_u8: its lightness, uint8 [H, W].
        weight: float32 [H, W].
    """
    mean = float((light_u8 * weight).sum()) / max(float(weight.sum()), 1e-6)
    gain = min(MOST_GAIN, MID_LIGHT / max(mean, LEAST_LIGHT))
    return np.clip(picture_bgr_u8 * np.float32(gain), 0, 255).astype(np.uint8)


def _texture(light_u8: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Local binary patterns at half size, where the thing is: float32 [59]."""
    import cv2

    if min(light_u8.shape) >= 8:
        size = (light_u8.shape[1] // 2, light_u8.shape[0] // 2)
        light_u8 = cv2.resize(light_u8, size, interpolation=cv2.INTER_AREA)
        weight = cv2.resize(weight, size, interpolation=cv2.INTER_AREA)
    codes = binary_patterns(light_u8, 1)
    return _root(np.bincount(codes.ravel(), weight[1:-1, 1:-1].ravel(), NUM_PATTERNS))


def _chroma(lab: np.ndarray, weight: np.ndarray) -> np.ndarray:
    import cv2

    cells = np.zeros((AB_BINS, AB_BINS), np.float32)
    place = (lab[..., 1:].astype(np.float32) - 128) / AB_REACH * 0.5 + 0.5
    place = np.clip(place, 0, 0.999) * AB_BINS
    index = place.astype(np.int32)
    np.add.at(cells, (index[..., 0], index[..., 1]), weight)
    return _root(cv2.GaussianBlur(cells, (3, 3), 0.7, borderType=cv2.BORDER_REPLICATE))


def _tone(lab: np.ndarray, weight: np.ndarray) -> np.ndarray:
    index = lab[..., 0].astype(np.int32) * L_BINS // 256
    counts = np.bincount(index.ravel(), weight.ravel(), L_BINS)
    return _root(np.convolve(counts, (0.25, 0.5, 0.25), "same"))


def _outline(picture: np.ndarray) -> np.ndarray:
    """Gradient directions in a grid of cells, signs dropped: float32 [6 * 3 * 8]."""
    import cv2

    rows, columns = GRADIENT_CELLS
    grey = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
    grey = cv2.resize(grey, (columns * 8, rows * 8), interpolation=cv2.INTER_AREA).astype(np.float32)
    across, down = cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1)
    size, angle = cv2.cartToPolar(across, down)
    turn = (angle % np.pi / np.pi * GRADIENT_BINS).astype(np.int32) % GRADIENT_BINS
    cells = np.zeros((rows, columns, GRADIENT_BINS), np.float32)
    y, x = np.mgrid[: rows * 8, : columns * 8] // 8
    np.add.at(cells, (y, x, turn), size)
    return _root(cells)


def _root(counts: np.ndarray) -> np.ndarray:
    total = float(counts.sum())
    return np.sqrt(np.maximum(counts, 0) / total).ravel() if total > 0 else np.zeros(counts.size)


def unit(vector: np.ndarray) -> np.ndarray:
    """The vector at length 1 (zero stays zero), float32."""
    length = float(np.linalg.norm(vector))
    return (vector / length if length > 0 else vector).astype(np.float32)


class Appearance:
    """Looks of tracks from their crops.

    Args:
        reid: OSNet ONNX file, or None.
        face_detector, face: YuNet and MobileFaceNet ONNX files; both or none.
    """

    def __init__(self, reid: Path | None, face_detector: Path | None, face: Path | None) -> None:
        self._paths = {"reid": reid, "face_detector": face_detector, "face": face}
        self._reid = session(reid) if reid else None
        self._face = session(face) if face and face_detector else None
        self._pattern = FacePattern()
        self._finder = YuNet(face_detector, min_score=FACE_SCORE) if face_detector else None

    def look(self, crops: Sequence[Crop], class_name: str) -> Look:
        """The look of a track from its best crops (at least one)."""
        person = class_name == PERSON
        reid = [self.reid_vector(c) for c in crops] if self._reid is not None else []
        patterns = [v for c in crops if (v := self._pattern.vector(c.inner)) is not None] if person else []
        faces = [v for c in crops if (v := self.face_vector(c)) is not None] if person else []
        return Look(
            colour=unit(np.mean([colour_vector(c) for c in crops], 0)),
            pattern=unit(np.mean(patterns, 0)) if patterns else None,
            reid=unit(np.mean(reid, 0)) if reid else None,
            face=unit(np.mean(faces, 0)) if faces else None,
            colours=colour_names([(c.picture_bgr_u8, thing_weights(c)) for c in crops]),
        )

    def reid_vector(self, crop: Crop) -> np.ndarray:
        """OSNet's vector of the box, float32 [512], length 1."""
        import cv2

        assert self._reid is not None
        picture = cv2.resize(crop.inner, (128, 256), interpolation=cv2.INTER_LINEAR)[..., ::-1]
        scaled = picture.astype(np.float32) / 255
        blob = (scaled - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)  # ImageNet, as in training
        batch = np.ascontiguousarray(blob.transpose(2, 0, 1)[None], np.float32)
        return unit(self._reid.run(None, {self._reid.get_inputs()[0].name: batch})[0][0])

    def face_vector(self, crop: Crop) -> np.ndarray | None:
        """MobileFaceNet's vector of the box's own face, float32 [128], or None without one."""
        import cv2

        if self._face is None or self._finder is None:
            return None
        picture = np.ascontiguousarray(crop.inner)
        found = self._finder.detect(picture)
        own = own_face(found.boxes, picture.shape[0], picture.shape[1])
        if own is None:
            return None
        marks = found.landmarks[own]
        turn, _ = cv2.estimateAffinePartial2D(marks, FACE_TEMPLATE, method=cv2.LMEDS)
        if turn is None:
            return None
        aligned = cv2.warpAffine(picture, turn, (112, 112))[..., ::-1].astype(np.float32)
        batch = np.ascontiguousarray(((aligned - 127.5) / 128).transpose(2, 0, 1)[None])
        return unit(self._face.run(None, {self._face.get_inputs()[0].name: batch})[0][0])

    def describe(self) -> list[Row]:
        """`curation.rows.MODEL` values, one per kind in use."""
        rows: list[Row] = [
            {
                "part": "appearance",
                "tier": "embedded",
                "backend": "colour",
                "model_id": "Lab colours in three bands, outline, texture; face patterns",
                "revision": opencv_version(),
                "sha256": None,
            }
        ]
        for part, backend in (("reid", "osnet"), ("face_detector", "yunet"), ("face", "mobilefacenet")):
            path = self._paths[part]
            if path is not None:
                rows.append({"part": part, "tier": "full", "backend": backend, **file_facts(path)})
        return rows


def save_looks(path: Path, looks: dict[int, Look]) -> None:
    """Write looks by track id as an npz.

    Its arrays: `track_id` [T]; one per kind [T, D], NaN where a track has none (D is 0 where no
    track has); `colours` [T, 3], empty strings after the last name.
    """
    ids = sorted(looks)
    arrays: dict[str, Any] = {"track_id": np.asarray(ids, np.int32)}
    for kind in KINDS:
        vectors = [getattr(looks[i], kind) for i in ids]
        width = max((len(v) for v in vectors if v is not None), default=0)
        table = np.full((len(ids), width), np.nan, np.float32)
        for row, vector in enumerate(vectors):
            if vector is not None:
                table[row] = vector
        arrays[kind] = table
    named = [[*looks[i].colours, "", "", ""][:3] for i in ids]
    arrays["colours"] = np.asarray(named, dtype="U24").reshape(len(ids), 3)
    with path.open("wb") as file:
        np.savez(file, **arrays)


def load_looks(path: Path) -> dict[int, Look]:
    """Read what `save_looks` wrote."""
    with np.load(path) as data:
        kinds = {kind: data[kind] for kind in KINDS}
        ids, colours = data["track_id"].tolist(), data["colours"].tolist()

    def vector(kind: str, row: int) -> np.ndarray | None:
        table = kinds[kind]
        return table[row] if table.shape[1] and not np.isnan(table[row, 0]) else None

    looks = {}
    for row, track in enumerate(ids):
        names = [name for name in colours[row] if name]
        colour = vector("colour", row)
        assert colour is not None
        looks[int(track)] = Look(
            colour, vector("pattern", row), vector("reid", row), vector("face", row), names
        )
    return looks
