"""Faces compared without a network: local binary patterns in a grid of cells.

Ahonen, Hadid and Pietikainen, Face Recognition with Local Binary Patterns (2004): knows a face again that is
seen from the front twice, with much the same expression; it says little about other pairs.
"""

from __future__ import annotations

from typing import Any

import numpy as np

SIDE, GRID, STEP = 60, 5, 2  # pixels of the face; cells across and down; distance of the pixels compared
SCALE, NEIGHBOURS, LEAST = 1.1, 4, 0.12  # of the cascade; smallest face, share of the crop's shorter side
LEAST_SURE = 55.5  # stage weight of the cascade, whose last threshold is 54: leaves and shelves reach 55
RING = ((-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1))
NUM_PATTERNS = 59
# Where in a person's box the middle of its face may be: share of the height down to which, and how far off
# the middle line as a share of the width. Who leans has it in an upper corner; lower there is a neighbour's.
OWN_PLACES = ((0.35, 0.40), (0.62, 0.25))


def uniform_codes() -> np.ndarray:
    """Bin of each 8-bit pattern: its own if it changes at most twice around the ring, else the first."""
    changes = [bin(code ^ ((code >> 1) | ((code & 1) << 7))).count("1") for code in range(256)]
    bins, taken = np.zeros(256, np.int64), 1
    for code, count in enumerate(changes):
        if count <= 2:
            bins[code], taken = taken, taken + 1
    return bins


def binary_patterns(light_u8: np.ndarray, step: int) -> np.ndarray:
    """Bin of the pattern around each pixel, int64 [H - 2 step, W - 2 step], below `NUM_PATTERNS`.

    Args:
        light_u8: uint8 [H, W].
        step: how far off the eight neighbours are, pixels.
    """
    light = light_u8.astype(np.int32)
    height, width = light.shape
    inner = light[step : height - step, step : width - step]
    codes = np.zeros(inner.shape, np.int64)
    for bit, (down, across) in enumerate(RING):
        top, left = step * (1 + down), step * (1 + across)
        near = light[top : top + inner.shape[0], left : left + inner.shape[1]]
        codes |= (near >= inner).astype(np.int64) << bit
    return uniform_codes()[codes]


def pattern(face_u8: np.ndarray) -> np.ndarray:
    """The vector of a face, float32, length 1; that of its mirror image is the same.

    Args:
        face_u8: luma uint8 [H, W] of the face alone.
    """
    return _unit(_one_way(face_u8) + _one_way(np.ascontiguousarray(face_u8[:, ::-1])))


def _one_way(face_u8: np.ndarray) -> np.ndarray:
    import cv2

    side = SIDE + 2 * STEP
    small: Any = cv2.resize(face_u8, (side, side), interpolation=cv2.INTER_AREA)
    bins = binary_patterns(cv2.GaussianBlur(small, (3, 3), 0), STEP)
    step = SIDE // GRID
    cells = []
    for row in range(GRID):
        for column in range(GRID):
            cell = bins[row * step : (row + 1) * step, column * step : (column + 1) * step]
            counts = np.bincount(cell.ravel(), minlength=NUM_PATTERNS)
            cells.append(np.sqrt(counts / counts.sum()))
    return _unit(np.concatenate(cells))


def _unit(vector: np.ndarray) -> np.ndarray:
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def own_face(faces: np.ndarray, height: int, width: int) -> int | None:
    """Position of the face that belongs to a person's box, or None: others look into boxes from the side.

    Args:
        faces: [N, 4], x, y, width, height in the box.
        height: of the box.
        width: of the box.

    Returns:
        The largest of those where a person's own may be (`OWN_PLACES`); off the middle counts less.
    """
    best, most = None, 0.0
    for i, (x, y, w, h) in enumerate(np.asarray(faces, np.float64).reshape(-1, 4).tolist()):
        off, down = abs((x + w / 2) / width - 0.5), (y + h / 2) / height
        worth = w * h * (1 - off)
        if any(down <= lowest and off <= farthest for lowest, farthest in OWN_PLACES) and worth > most:
            best, most = i, worth
    return best


class FacePattern:
    """Finds a person's frontal face and describes it."""

    def __init__(self) -> None:
        import cv2

        opencv: Any = cv2  # its type stubs lack some names
        file = opencv.data.haarcascades + "haarcascade_frontalface_alt2.xml"
        self._cascade = opencv.CascadeClassifier(file)

    def vector(self, picture_bgr_u8: np.ndarray) -> np.ndarray | None:
        """The vector of the own face of a person's box uint8 [H, W, 3], or None without one."""
        import cv2

        grey = cv2.cvtColor(picture_bgr_u8, cv2.COLOR_BGR2GRAY)
        least = max(20, round(LEAST * min(grey.shape)))
        found, _, weights = self._cascade.detectMultiScale3(
            grey, SCALE, NEIGHBOURS, minSize=(least, least), outputRejectLevels=True
        )
        sure = np.asarray(found).reshape(-1, 4)[np.ravel(weights) >= LEAST_SURE]
        own = own_face(sure, *grey.shape)
        if own is None:
            return None
        x, y, w, h = sure[own].tolist()
        return pattern(grey[y : y + h, x : x + w])
