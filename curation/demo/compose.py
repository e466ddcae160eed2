"""Layers of the demo film: cut-outs with soft edges, placed by affine maps and blended by OpenCV."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import cos, radians, sin

import numpy as np

HEIGHT, WIDTH = 480, 854  # of the coded frame
BAR = 26  # black rows above and below the picture
PICTURE_HEIGHT = HEIGHT - 2 * BAR  # a 2:1 picture in a 16:9 frame

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Sprite:
    """A cut-out.

    Attributes:
        bgra_u8: uint8 [h, w, 4], premultiplied.
        outline: float64 [n, 2], x and y of what counts as the subject.
        pivot: x and y of the point that is placed.
    """

    bgra_u8: np.ndarray
    outline: np.ndarray
    pivot: tuple[float, float]


def cut_out(picture: np.ndarray, outline: Points, pivot: tuple[float, float], soft: float = 0.9) -> Sprite:
    """Cut a polygon out of a picture uint8 [h, w, 3]; `soft` is the blur of the edge in pixels."""
    import cv2

    mask: np.ndarray = np.zeros(picture.shape[:2], np.uint8)
    cv2.fillPoly(mask, [np.array(outline, np.int32)], 255, lineType=cv2.LINE_AA)
    mask = cv2.erode(mask, np.ones((3, 3), np.uint8), borderValue=255)
    mask = cv2.GaussianBlur(mask, (0, 0), soft, borderType=cv2.BORDER_REPLICATE)
    return sprite(picture, mask, outline, pivot)


def sprite(picture: np.ndarray, alpha: np.ndarray, outline: Points, pivot: tuple[float, float]) -> Sprite:
    """A sprite from a picture uint8 [h, w, 3] and its opacity uint8 [h, w]."""
    import cv2

    alpha3 = cv2.merge([alpha] * 3)
    colour = cv2.multiply(picture, alpha3, scale=1 / 255)
    return Sprite(cv2.merge([*cv2.split(colour), alpha]), np.array(outline, float), pivot)


def tinted(source: Sprite, gains: tuple[float, float, float]) -> Sprite:
    """The sprite in other light: gains of blue, green and red."""
    scaled = source.bgra_u8[..., :3] * np.array(gains, np.float32)
    bgra = source.bgra_u8.copy()
    bgra[..., :3] = np.minimum(np.clip(scaled, 0, 255), bgra[..., 3:]).astype(np.uint8)
    return Sprite(bgra, source.outline, source.pivot)


def affine(
    pivot: tuple[float, float],
    place: tuple[float, float],
    scale: float,
    angle: float = 0.0,
    flip: bool = False,
) -> np.ndarray:
    """The 2x3 map that turns (degrees clockwise) and scales about `pivot` and brings it to `place`."""
    c, s = scale * cos(radians(angle)), scale * sin(radians(angle))
    matrix = np.array([[c, -s], [s, c]])
    if flip:
        matrix[:, 0] *= -1
    return np.column_stack([matrix, np.array(place) - matrix @ np.array(pivot)])


def chain(outer: np.ndarray, inner: np.ndarray) -> np.ndarray:
    """The 2x3 map that applies `inner` first."""
    return np.column_stack([outer[:, :2] @ inner[:, :2], outer[:, :2] @ inner[:, 2] + outer[:, 2]])


def apply(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Map points [n, 2]."""
    return points @ matrix[:, :2].T + matrix[:, 2]


def paste(canvas: np.ndarray, layer: Sprite, matrix: np.ndarray, opacity: float = 1.0) -> None:
    """Draw the sprite onto the canvas uint8 [h, w, 3] in place."""
    import cv2

    h, w = layer.bgra_u8.shape[:2]
    corners = apply(matrix, np.array([[0, 0], [w, 0], [w, h], [0, h]], float))
    x0, y0 = np.maximum(np.floor(corners.min(0)).astype(int), 0)
    x1, y1 = np.minimum(np.ceil(corners.max(0)).astype(int), canvas.shape[1::-1])
    if x1 <= x0 or y1 <= y0:
        return
    shifted = matrix.copy()
    shifted[:, 2] -= (x0, y0)
    shrink = float(np.hypot(matrix[0, 0], matrix[1, 0]))
    smooth = cv2.INTER_AREA if shrink < 0.45 else cv2.INTER_LINEAR
    warped = cv2.warpAffine(layer.bgra_u8, shifted, (int(x1 - x0), int(y1 - y0)), flags=smooth)
    if opacity < 1:
        warped = cv2.convertScaleAbs(warped, alpha=opacity)
    blue, green, red, alpha = cv2.split(warped)
    rest = cv2.merge([cv2.bitwise_not(alpha)] * 3)
    below = cv2.multiply(canvas[y0:y1, x0:x1], rest, scale=1 / 255)
    canvas[y0:y1, x0:x1] = cv2.add(below, cv2.merge([blue, green, red]))


def box_of(points: np.ndarray) -> tuple[int, int, int, int] | None:
    """x, y, width, height in the coded frame of points in the picture, clipped; None when outside."""
    x0, y0 = np.maximum(np.floor(points.min(0)).astype(int), 0)
    x1, y1 = np.minimum(np.ceil(points.max(0)).astype(int), (WIDTH, PICTURE_HEIGHT))
    if x1 - x0 < 2 or y1 - y0 < 2:
        return None
    return int(x0), int(y0) + BAR, int(x1 - x0), int(y1 - y0)


def noise(seed: int, size: tuple[int, int], grain_px: float) -> np.ndarray:
    """Smooth noise float32 [h, w] in 0..1 with details of about `grain_px` pixels."""
    import cv2

    rows, columns = (max(2, round(side / grain_px) + 2) for side in size)
    coarse = np.random.default_rng(seed).random((rows, columns), dtype=np.float32)
    return np.clip(cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC), 0, 1)


def clouds(seed: int, size: tuple[int, int], grain_px: float) -> np.ndarray:
    """Noise of four octaves, float32 [h, w] in 0..1."""
    layers = [noise(seed + i, size, grain_px / 2**i) / 2**i for i in range(4)]
    total = sum(layers[1:], layers[0])
    return (total - total.min()) / (total.max() - total.min())


def grain(seed: int, strength: float = 2.0) -> np.ndarray:
    """A sheet of film grain around 128, uint8, larger than the picture so that crops of it differ."""
    import cv2

    size = (PICTURE_HEIGHT + 128, WIDTH + 128)
    sheet: np.ndarray = np.random.default_rng(seed).standard_normal(size).astype(np.float32)
    sheet = cv2.GaussianBlur(sheet, (0, 0), 0.7)
    sheet = sheet * np.float32(strength / float(sheet.std()))
    return cv2.merge([np.clip(np.rint(sheet + 128), 0, 255).astype(np.uint8)] * 3)


def vignette() -> np.ndarray:
    """Fall-off of light towards the corners, uint8 [h, w, 3], 255 in the middle."""
    import cv2

    y, x = np.mgrid[-1 : 1 : PICTURE_HEIGHT * 1j, -1 : 1 : WIDTH * 1j]
    fall = 1 - 0.28 * np.clip((x**2 + y**2) / 2, 0, 1) ** 1.5
    return cv2.merge([np.rint(fall * 255).astype(np.uint8)] * 3)
