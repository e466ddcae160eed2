"""The subjects of the demo film, as puppets: cut out of their photographs, moved over the sets."""

from __future__ import annotations

from dataclasses import dataclass
from math import pi, sin

import numpy as np

from curation.demo.compose import (
    Sprite,
    affine,
    apply,
    box_of,
    chain,
    clouds,
    cut_out,
    paste,
    sprite,
    tinted,
)
from curation.demo.pictures import (
    ASTRONAUT_BODY,
    ASTRONAUT_FACE,
    ASTRONAUT_HEAD,
    ASTRONAUT_NECK,
    CAT_FACE,
    load,
)

Gains = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class Pose:
    """Where a puppet stands: its pivot in picture pixels, its scale and its tilt in degrees."""

    x: float
    y: float
    scale: float
    angle: float = 0.0


@dataclass(frozen=True)
class Seen:
    """A subject in a frame: boxes x, y, width, height in the coded frame."""

    subject: str
    box: tuple[int, int, int, int]
    face: tuple[int, int, int, int] | None = None


class Astronaut:
    """Two layers: the head turns a little on the shoulders. The pivot is the middle of the lower edge."""

    name = "astronaut"

    def __init__(self, light: Gains = (1, 1, 1)) -> None:
        import cv2

        picture = load("astronaut.png")
        pivot = (266.0, 511.0)
        self.head = tinted(cut_out(picture, ASTRONAUT_HEAD, ASTRONAUT_NECK), light)
        hidden: np.ndarray = np.zeros(picture.shape[:2], np.uint8)
        cv2.fillPoly(hidden, [np.array(ASTRONAUT_HEAD, np.int32)], 255)
        hidden = cv2.dilate(hidden, np.ones((5, 5), np.uint8))
        body = picture.copy()
        body[hidden > 0] = (26, 22, 22)  # the collar's dark inside, where the neck hid it
        soft = cv2.GaussianBlur(hidden, (0, 0), 1.5).astype(np.float32)[..., None] / 255
        body = (body * soft + picture * (1 - soft)).astype(np.uint8)
        self.body = tinted(cut_out(body, ASTRONAUT_BODY, pivot), light)
        x, y, w, h = ASTRONAUT_FACE
        self.face = np.array([(x, y), (x + w, y), (x + w, y + h), (x, y + h)], float)

    def draw(self, canvas: np.ndarray, pose: Pose, time_s: float, flip: bool) -> Seen | None:
        """Draw her in `pose`; she breathes and turns her head with time."""
        breath = 1 + 0.004 * sin(2 * pi * 0.27 * time_s)
        body = affine(self.body.pivot, (pose.x, pose.y), pose.scale * breath, pose.angle, flip)
        nod = 2.6 * sin(2 * pi * 0.21 * time_s + 0.6) + 1.2 * sin(2 * pi * 0.47 * time_s)
        head = chain(body, affine(ASTRONAUT_NECK, ASTRONAUT_NECK, 1.0, nod))
        paste(canvas, self.body, body)
        paste(canvas, self.head, head)
        outline = np.vstack([apply(body, self.body.outline), apply(head, self.head.outline)])
        box = box_of(outline)
        return Seen(self.name, box, box_of(apply(head, self.face))) if box else None


class Cat:
    """Chelsea behind the round window of her little ship. The pivot is the middle of the window."""

    name = "cat"
    side, radius = 520, 168  # of the ship's drawing and of its window

    def __init__(self, light: Gains = (1, 1, 1)) -> None:
        import cv2

        lit = np.clip(load("chelsea.png") * np.array(light, np.float32), 0, 255)
        self.photo = np.dstack([lit.astype(np.uint8), np.zeros(lit.shape[:2], np.uint8)])
        shell, alpha = _ship(self.side, self.radius)
        self.shell = tinted(
            sprite(shell, alpha, _circle(self.side / 2, 246), (self.side / 2, self.side / 2)), light
        )
        window = np.zeros((self.side, self.side), np.uint8)
        middle = (self.side // 2, self.side // 2)
        cv2.circle(window, middle, self.radius, 255, -1, cv2.LINE_AA)
        self.window = cv2.merge([window] * 4)
        self.glass = _glass(self.side, self.radius)

    def draw(self, canvas: np.ndarray, pose: Pose, time_s: float, flip: bool) -> Seen | None:
        """Draw her in `pose`; she moves her head behind the glass with time."""
        import cv2

        x, y, radius = CAT_FACE
        half = self.side / 2
        drift = (half + 5 * sin(2 * pi * 0.19 * time_s), half + 3 * sin(2 * pi * 0.31 * time_s + 1))
        zoom = self.radius / radius * 1.06
        face = affine((x, y), drift, zoom, 3 * sin(2 * pi * 0.23 * time_s + 2))
        inside = cv2.warpAffine(self.photo, face, (self.side, self.side), borderMode=cv2.BORDER_REFLECT_101)
        inside = cv2.multiply(inside, self.window, scale=1 / 255)
        inside = cv2.add(inside, self.glass)
        bgra = cv2.add(self.shell.bgra_u8, inside)
        ship = Sprite(bgra, self.shell.outline, self.shell.pivot)
        matrix = affine(ship.pivot, (pose.x, pose.y), pose.scale, pose.angle, flip)
        paste(canvas, ship, matrix)
        box = box_of(apply(matrix, ship.outline))
        return Seen(self.name, box) if box else None


def _circle(centre: float, radius: float) -> list[tuple[float, float]]:
    turn = np.linspace(0, 2 * pi, 48, endpoint=False)
    return [(centre + radius * np.cos(a), centre + radius * np.sin(a)) for a in turn]


def _ship(side: int, window: int) -> tuple[np.ndarray, np.ndarray]:
    """A white sphere with an orange band and a bolted ring; black where the window is."""
    import cv2

    half, radius = side / 2, 240
    y, x = (np.mgrid[0:side, 0:side] + 0.5 - half) / radius
    z = np.sqrt(np.clip(1 - x**2 - y**2, 0, 1))
    shade = np.clip(0.30 + 0.75 * np.clip(-0.5 * x - 0.6 * y + 0.62 * z, 0, 1), 0, 1)
    colour = np.full((side, side, 3), (226, 228, 230), np.float32)
    colour[np.abs(y - 0.06) < 0.13] = (40, 110, 235)
    colour[np.abs(np.abs(y - 0.06) - 0.15) < 0.008] = (70, 70, 74)
    colour *= (shade * (0.95 + 0.08 * clouds(51, (side, side), 40)))[..., None]
    picture = np.clip(colour, 0, 255).astype(np.uint8)
    alpha = (np.clip((1 - np.hypot(x, y)) * radius, 0, 1) * 255).astype(np.uint8)
    centre = (side // 2, side // 2)
    for ring, thick, grey in ((window + 16, 32, 120), (window + 31, 3, 205), (window + 3, 6, 52)):
        cv2.circle(picture, centre, ring, (grey + 8, grey, grey - 4), thick, cv2.LINE_AA)
    for k in range(12):
        a = k * pi / 6 + 0.26
        at = (round(half + (window + 17) * np.cos(a)), round(half + (window + 17) * np.sin(a)))
        cv2.circle(picture, at, 7, (60, 56, 54), -1, cv2.LINE_AA)
        cv2.circle(picture, (at[0] - 1, at[1] - 2), 3, (190, 186, 182), -1, cv2.LINE_AA)
    cv2.circle(picture, centre, window, (0, 0, 0), -1, cv2.LINE_AA)
    return picture, alpha


def _glass(side: int, window: int) -> np.ndarray:
    """Reflections on the window, to be added: uint8 [side, side, 4] without opacity."""
    import cv2

    sheen: np.ndarray = np.zeros((side, side), np.uint8)
    middle = (side // 2, side // 2)
    cv2.ellipse(sheen, middle, (window - 22,) * 2, 0, 200, 252, 120, 12, cv2.LINE_AA)
    cv2.ellipse(sheen, middle, (window - 20,) * 2, 0, 20, 44, 60, 8, cv2.LINE_AA)
    sheen = cv2.GaussianBlur(sheen, (0, 0), 5)
    return cv2.merge([sheen, sheen, sheen, np.zeros_like(sheen)])
