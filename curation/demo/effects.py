"""What moves by itself in the demo film: the rocket with its flame and smoke, steam over a cup."""

from __future__ import annotations

from math import pi, sin

import numpy as np

from curation.demo.cast import Gains, Seen
from curation.demo.compose import (
    affine,
    apply,
    box_of,
    chain,
    clouds,
    cut_out,
    paste,
    sprite,
)
from curation.demo.pictures import ROCKET, load
from curation.demo.sets import PAD_SCALE, enlarge


class Launch:
    """The rocket leaves its pad: it belongs to the place, so it moves with the camera."""

    name = "rocket"
    base = (322 * PAD_SCALE, 405 * PAD_SCALE)  # of the rocket on the pad, in pixels of the set

    def __init__(self, light: Gains = (1, 1, 1)) -> None:
        outline = [(x * PAD_SCALE, y * PAD_SCALE) for x, y in ROCKET]
        self.rocket = cut_out(enlarge(load("rocket.jpg"), PAD_SCALE), outline, self.base)
        y, x = np.mgrid[0:420, 0:160].astype(np.float32)
        spread = 13 + 30 * (y / 420) ** 0.8
        heat = np.exp(-(((x - 80) / spread) ** 2)) * np.clip(1 - y / 400, 0, 1) ** 0.9
        hot = np.clip(np.stack([3.2 * heat - 1.7, 2.6 * heat - 0.55, 2.4 * heat + 0.55], 2), 0, 1)
        opacity = np.clip(1.7 * heat, 0, 1) ** 1.4 * np.clip(y / 6, 0, 1)
        self.flame = sprite(_u8(hot), _u8(opacity), [(0, 0)], (80, 4))
        y, x = np.mgrid[-1:1:260j, -1:1:520j]
        puff = np.clip(1.25 - np.hypot(x, y) * 1.25, 0, 1) * (0.35 + 0.65 * clouds(61, (260, 520), 80))
        grey = np.full((260, 520, 3), (150, 176, 205), np.uint8)
        self.smoke = sprite(grey, _u8(puff), [(0, 0)], (260, 200))

    def draw(self, canvas: np.ndarray, camera: np.ndarray, time_s: float) -> Seen | None:
        """Draw the rocket `time_s` seconds into the shot; `camera` maps the set to the picture."""
        thrust = min(max(time_s - 0.5, 0) / 1.4, 1)
        climb = 16 * max(time_s - 1.0, 0) ** 2.2
        top = (self.base[0], self.base[1] - climb)
        if thrust > 0:
            flicker = 1 + 0.05 * sin(2 * pi * 5.3 * time_s) + 0.03 * sin(2 * pi * 8.1 * time_s)
            fire = affine(self.flame.pivot, top, 0.25 + 0.75 * thrust * flicker)
            paste(canvas, self.flame, chain(camera, fire), 0.3 + 0.7 * thrust)
        matrix = chain(camera, affine(self.rocket.pivot, top, 1.0))
        paste(canvas, self.rocket, matrix)
        for k in range(6):  # smoke rolls away to both sides
            side = 1 if k % 2 else -1
            grown = thrust * (0.35 + 0.22 * k + 0.12 * time_s)
            at = (self.base[0] + side * (40 + 55 * k * thrust + 14 * time_s), self.base[1] + 40)
            if grown > 0.05:
                puff = affine(self.smoke.pivot, at, grown, flip=side < 0)
                paste(canvas, self.smoke, chain(camera, puff), 0.75 * thrust)
        box = box_of(apply(matrix, self.rocket.outline))
        return Seen(self.name, box) if box else None


class Steam:
    """Steam that rises from the cup."""

    name = "steam"
    mouth = (650.0, 300.0)  # in pixels of the set

    def __init__(self, light: Gains = (1, 1, 1)) -> None:
        wisps = clouds(71, (900, 260), 70)
        self.wisps = np.clip((wisps - 0.45) * 2.4, 0, 1).astype(np.float32)
        y, x = np.mgrid[0:1:300j, -1:1:260j]
        self.shape = (np.exp(-((x / (0.75 - 0.35 * y)) ** 4)) * np.sin(pi * y**0.8)).astype(np.float32)
        self.white = np.full((300, 260, 3), 240, np.uint8)

    def draw(self, canvas: np.ndarray, camera: np.ndarray, time_s: float) -> Seen | None:
        """Draw the steam `time_s` seconds into the shot."""
        import cv2

        shift = np.array([[1, 0, 6 * sin(1.3 * time_s)], [0, 1, -70 * time_s - 20]])
        rising = cv2.warpAffine(self.wisps, shift, (260, 300), borderMode=cv2.BORDER_WRAP)
        veil = sprite(self.white, _u8(0.75 * rising * self.shape), [(0, 0)], (130, 285))
        paste(canvas, veil, chain(camera, affine(veil.pivot, self.mouth, 1.5)))
        return None


def _u8(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values * 255), 0, 255).astype(np.uint8)
