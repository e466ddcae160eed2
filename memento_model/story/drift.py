"""How alike the shots of a story are to its first shot and to the one before: numbers and a small chart.

Drift is what memory is there to prevent: subjects and places that slowly turn into others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from memento_model.story.storymem import ImageEmbedder
from memento_model.story.video import from_pixels

WIDTH, HEIGHT = 720, 220
LEFT, RIGHT, TOP, BOTTOM = 40, 12, 12, 26
"""Margins of the chart in its own units."""
MAX_TICKS = 16


@dataclass(frozen=True)
class Likeness:
    """Of one shot; None where there is no shot to compare with."""

    stem: str
    to_first: float | None
    to_previous: float | None


class Drift:
    """Compares shots by the small pictures that are kept of them; each shot is looked at once."""

    def __init__(self, embedder: ImageEmbedder) -> None:
        self._embedder = embedder
        self.method = embedder.name
        self._looks: dict[str, Tensor] = {}

    def look(self, key: str, stills: Sequence[Path]) -> Tensor:
        """Unit vector of a shot: the mean of its pictures'; `key` says which shot it is."""
        if key not in self._looks:
            images_nchw = from_pixels(np.stack([_pixels(path) for path in stills])).transpose(0, 1)
            mean_d = self._embedder(images_nchw).float().cpu().mean(dim=0)
            self._looks[key] = F.normalize(mean_d, dim=0)
        return self._looks[key]

    def measure(self, shots: Sequence[tuple[str, str, Sequence[Path]]]) -> list[Likeness]:
        """Likenesses of shots (stem, key, pictures) in order: cosines, rounded to three digits."""
        made: list[Likeness] = []
        looks = [self.look(key, stills) for _, key, stills in shots]
        for i, (stem, _, _) in enumerate(shots):
            first, previous = (_cosine(looks[i], looks[j]) if i else None for j in (0, i - 1))
            made.append(Likeness(stem, first, previous))
        return made


def _pixels(path: Path) -> np.ndarray:
    from PIL import Image

    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def _cosine(left_d: Tensor, right_d: Tensor) -> float:
    return round(float(left_d @ right_d), 3)


def chart(likenesses: Sequence[Likeness]) -> dict[str, Any] | None:
    """What the page needs to draw the curves; None for fewer than three shots, whose one point is no curve.

    Returns:
        `lines`: for either curve its points (x, y, value, stem); `ticks`: (y, value); `stems`: (x, stem).
    """
    if len(likenesses) < 3:
        return None
    values = [v for one in likenesses for v in (one.to_first, one.to_previous) if v is not None]
    low = min(0.9, np.floor(min(values) * 10) / 10)
    x_of = np.linspace(LEFT + 8, WIDTH - RIGHT - 8, len(likenesses))

    def y_of(value: float) -> float:
        return round(TOP + (1 - value) / (1 - low) * (HEIGHT - TOP - BOTTOM), 1)

    lines = {
        name: [
            (round(float(x), 1), y_of(value), value, one.stem)
            for x, one in zip(x_of, likenesses, strict=True)
            if (value := getattr(one, name)) is not None
        ]
        for name in ("to_first", "to_previous")
    }
    step = max(0.05, round((1 - low) / 5, 1))
    ticks = [(y_of(v), round(float(v), 2)) for v in np.arange(1, low - 1e-6, -step)]
    every = -(-len(likenesses) // MAX_TICKS)
    stems = [(round(float(x), 1), one.stem) for x, one in list(zip(x_of, likenesses, strict=True))[::every]]
    return {"lines": lines, "ticks": ticks, "stems": stems, "width": WIDTH, "height": HEIGHT, "left": LEFT}
