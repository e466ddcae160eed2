"""Names of dominant colours from a small fixed palette, by nearness in CIE Lab."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

PALETTE: dict[str, tuple[tuple[int, int, int], ...]] = {
    "black": ((18, 18, 18), (35, 32, 30), (28, 32, 40)),
    "dark grey": ((70, 70, 70), (75, 72, 80)),
    "grey": ((125, 125, 125), (130, 124, 128)),
    "light grey": ((185, 185, 185), (190, 186, 192)),
    "white": ((245, 245, 245), (228, 226, 228)),
    "red": ((205, 30, 35), (175, 25, 30)),
    "dark red": ((105, 20, 25),),
    "orange": ((235, 125, 30), (205, 95, 35)),
    "brown": ((110, 70, 40), (75, 48, 32), (140, 95, 60)),
    "beige": ((215, 190, 155), (230, 210, 185), (190, 165, 130)),
    "yellow": ((235, 215, 50), (205, 180, 40)),
    "olive": ((110, 105, 40),),
    "green": ((60, 145, 55), (100, 160, 60)),
    "dark green": ((35, 70, 35), (50, 75, 25)),
    "light green": ((165, 215, 110), (175, 225, 160)),
    "teal": ((30, 125, 125),),
    "light blue": ((150, 195, 235), (120, 180, 220)),
    "blue": ((45, 95, 195), (60, 110, 170)),
    "dark blue": ((25, 35, 85), (40, 50, 75)),
    "purple": ((110, 55, 150), (140, 100, 170)),
    "pink": ((235, 150, 175), (220, 110, 150), (240, 195, 200)),
}
"""sRGB examples (red, green, blue) of each name."""
MIN_SHARE = 0.15  # of the thing; rarer colours are not named
MAX_NAMES = 3


def colour_names(parts: Sequence[tuple[np.ndarray, np.ndarray]]) -> list[str]:
    """Dominant colour names, most common first, at least one and at most three.

    Args:
        parts: pictures uint8 [H, W, 3] BGR with weights float32 [H, W] of their pixels.
    """
    names, examples = _examples()
    shares = np.zeros(len(PALETTE))
    for picture, weight in parts:
        lab = to_lab(picture[::2, ::2].reshape(-1, 3))
        nearest = ((lab[:, None] - examples[None]) ** 2).sum(-1).argmin(1)
        counts = np.bincount(names[nearest], weight[::2, ::2].ravel(), len(PALETTE))
        shares += counts / max(float(counts.sum()), 1e-9)
    shares /= max(len(parts), 1)
    order = np.argsort(-shares, kind="stable")[:MAX_NAMES]
    chosen = [int(i) for i in order if shares[i] >= MIN_SHARE] or [int(order[0])]
    return [list(PALETTE)[i] for i in chosen]


def to_lab(bgr_u8: np.ndarray) -> np.ndarray:
    """CIE Lab (L 0..100) of uint8 [N, 3] BGR: float32 [N, 3]."""
    import cv2

    scaled = bgr_u8.reshape(-1, 1, 3).astype(np.float32) / 255
    return cv2.cvtColor(scaled, cv2.COLOR_BGR2LAB).reshape(-1, 3)


def _examples() -> tuple[np.ndarray, np.ndarray]:
    names, colours = [], []
    for index, examples in enumerate(PALETTE.values()):
        for rgb in examples:
            names.append(index)
            colours.append(rgb[::-1])
    return np.asarray(names), to_lab(np.asarray(colours, np.uint8))
