"""Faces compared without a network: local binary patterns in a grid of cells.

Ahonen, Hadid and Pietikainen, Face Recognition with Local Binary Patterns (2004): tells people apart in one
kind of light and pose, and knows a face again that is seen from the front twice; it says little about other
pairs.
"""

from __future__ import annotations

from typing import Any

import numpy as np

SIDE, GRID = 62, 5  # pixels of the face; cells across and down
SCALE, NEIGHBOURS, LEAST = 1.1, 4, 0.12  # of the cascade; smallest face, share of the crop's shorter side
RING = ((-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1))


def uniform_codes() -> np.ndarray:
    """Bin of each 8-bit pattern: its own if it changes at most twice around the ring, else the first."""
    changes = [bin(code ^ ((code >> 1) | ((code & 1) << 7))).count("1") for code in range(256)]
    bins, taken = np.zeros(256, np.int64), 1
    for code, count in enumerate(changes):
        if count <= 2:
            bins[code], taken = taken, taken + 1
    return bins


def pattern(face_u8: np.ndarray) -> np.ndarray:
    """The vector of a face, float32, length 1.

    Args:
        face_u8: luma uint8 [H, W] of the face alone.
    """
    import cv2

    small: Any = cv2.resize(face_u8, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (3, 3), 0).astype(np.int32)
    inner = small[1:-1, 1:-1]
    codes = np.zeros(inner.shape, np.int64)
    for bit, (down, across) in enumerate(RING):
        near = small[1 + down : SIDE - 1 + down, 1 + across : SIDE - 1 + across]
        codes |= (near >= inner).astype(np.int64) << bit
    bins = uniform_codes()[codes]
    step = len(inner) // GRID
    cells = []
    for row in range(GRID):
        for column in range(GRID):
            cell = bins[row * step : (row + 1) * step, column * step : (column + 1) * step]
            counts = np.bincount(cell.ravel(), minlength=59)
            cells.append(np.sqrt(counts / counts.sum()))
    vector = np.concatenate(cells)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


class FacePattern:
    """Finds the largest frontal face of a picture and describes it."""

    def __init__(self) -> None:
        import cv2

        opencv: Any = cv2  # its type stubs lack some names
        file = opencv.data.haarcascades + "haarcascade_frontalface_alt2.xml"
        self._cascade = opencv.CascadeClassifier(file)

    def vector(self, picture_bgr_u8: np.ndarray) -> np.ndarray | None:
        """The vector of the largest face in a picture uint8 [H, W, 3], or None without one."""
        import cv2

        grey = cv2.cvtColor(picture_bgr_u8, cv2.COLOR_BGR2GRAY)
        least = max(20, round(LEAST * min(grey.shape)))
        found = self._cascade.detectMultiScale(grey, SCALE, NEIGHBOURS, minSize=(least, least))
        if not len(found):
            return None
        x, y, w, h = max(np.asarray(found).tolist(), key=lambda box: box[2] * box[3])
        return pattern(grey[y : y + h, x : x + w])
