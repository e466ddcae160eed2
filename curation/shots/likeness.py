"""How unlike two tiny luma pictures are, whatever their contrast and, on demand, whatever the camera does."""

from __future__ import annotations

import numpy as np

FLOOR = 4.0  # squared luma levels: coding noise in black must not look like structure
REACH = (2, 4)  # largest shift that is tried, rows and columns: a pan of an eighth of the width per frame
CHUNK = 1024  # pairs per step: memory stays flat in film length


def structure(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Structural difference of pictures, pairwise.

    Squared difference of the mean-free pictures over their energy, so a change between two dark or two
    grey pictures counts as much as any other.

    Args:
        a: uint8 [N, H, W].
        b: uint8 [N, H, W].

    Returns:
        float64 [N], 0 for the same picture, about 1 for unlike ones.
    """
    out = np.empty(len(a))
    for i in range(0, len(a), CHUNK):
        pp, qq, pq = _moments(a[i : i + CHUNK], b[i : i + CHUNK])
        out[i : i + CHUNK] = (pp + qq - 2 * pq) / (pp + qq + FLOOR)
    return out


def structure_shifted(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Structural difference and correlation at the shift of `b` that suits each pair best.

    Args:
        a: uint8 [N, H, W].
        b: uint8 [N, H, W].

    Returns:
        float64 [N] least difference, float64 [N] greatest correlation (1 for pictures without structure).
    """
    least, greatest = np.full(len(a), np.inf), np.full(len(a), -np.inf)
    for i in range(0, len(a), CHUNK):
        part = slice(i, i + CHUNK)
        for p, q in _shifts(a[part], b[part]):
            pp, qq, pq = _moments(p, q)
            least[part] = np.minimum(least[part], (pp + qq - 2 * pq) / (pp + qq + FLOOR))
            alike = (pq + FLOOR / 2) / np.sqrt((pp + FLOOR / 2) * (qq + FLOOR / 2))
            greatest[part] = np.maximum(greatest[part], alike)
    return least, greatest


def _shifts(a: np.ndarray, b: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    _, height, width = a.shape
    pairs = []
    for dy in range(-REACH[0], REACH[0] + 1):
        for dx in range(-REACH[1], REACH[1] + 1):
            p = a[:, max(0, dy) : height + min(0, dy), max(0, dx) : width + min(0, dx)]
            q = b[:, max(0, -dy) : height + min(0, -dy), max(0, -dx) : width + min(0, -dx)]
            pairs.append((p, q))
    return pairs


def _moments(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Variances and covariance over the pixels of each pair; exact, because sums are of integers."""
    pixels = a.shape[1] * a.shape[2]
    p, q = (x.reshape(len(x), pixels).astype(np.int32) for x in (a, b))
    mean_p, mean_q = p.sum(axis=1) / pixels, q.sum(axis=1) / pixels
    pp = np.einsum("ij,ij->i", p, p) / pixels - mean_p**2
    qq = np.einsum("ij,ij->i", q, q) / pixels - mean_q**2
    pq = np.einsum("ij,ij->i", p, q) / pixels - mean_p * mean_q
    return pp, qq, pq


def deviation(pictures: np.ndarray) -> np.ndarray:
    """Standard deviation over the pixels of each picture, uint8 [N, H, W] to float64 [N]."""
    out = np.empty(len(pictures))
    for i in range(0, len(pictures), CHUNK):
        part = pictures[i : i + CHUNK]
        out[i : i + CHUNK] = np.sqrt(np.maximum(_moments(part, part)[0], 0))
    return out


def lit_box(thumbs: np.ndarray) -> tuple[slice, slice]:
    """Rows and columns of thumbs, uint8 [N, H, W], that are ever lit: the picture inside black bars.

    The whole picture if what is lit is smaller than half of it either way.
    """
    lit = thumbs.max(axis=0, initial=0) > 24
    rows, columns = np.flatnonzero(lit.any(axis=1)), np.flatnonzero(lit.any(axis=0))
    whole = slice(None), slice(None)
    if not len(rows):
        return whole
    box = slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)
    big = 2 * (box[0].stop - box[0].start) >= lit.shape[0]
    return box if big and 2 * (box[1].stop - box[1].start) >= lit.shape[1] else whole
