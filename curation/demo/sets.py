"""The places of the demo film: large pictures that the camera moves over, made from the photographs."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from curation.demo.compose import clouds, noise
from curation.demo.lettering import painted
from curation.demo.pictures import (
    ASTRONAUT_BODY,
    ASTRONAUT_FACE,
    ASTRONAUT_HEAD,
    CAMERAMAN,
    CAMERAMAN_FACE,
    load,
)

PAD_SCALE = 2.2
Box = tuple[int, int, int, int]
"""x, y, width, height."""


@dataclass(frozen=True)
class Set:
    """A place.

    Attributes:
        picture: uint8 [h, w, 3] BGR, larger than what the camera sees.
        signs: (text, box in pixels of the picture) of letters that belong to the place.
        outlines: points [n, 2] of subjects that belong to the place, by name.
    """

    picture: np.ndarray
    signs: tuple[tuple[str, Box], ...] = ()
    outlines: dict[str, np.ndarray] = field(default_factory=dict)


def enlarge(picture: np.ndarray, factor: float, blur: float = 0.0) -> np.ndarray:
    """Scale up smoothly; `blur` puts the place out of focus."""
    import cv2

    large = cv2.resize(picture, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)
    return cv2.GaussianBlur(large, (0, 0), blur) if blur else large


def tint(picture: np.ndarray, gains: tuple[float, float, float]) -> np.ndarray:
    """Multiply blue, green and red."""
    return np.clip(picture * np.array(gains, np.float32), 0, 255).astype(np.uint8)


def blend(below: np.ndarray, above: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """`above` over `below` (uint8) with float `alpha` [h, w] in 0..1."""
    mixed = below + (above.astype(np.float32) - below) * alpha[..., None]
    return np.clip(mixed, 0, 255).astype(np.uint8)


def ground(seed_px: int, size: tuple[int, int], horizon: int) -> np.ndarray:
    """Gravel seen in perspective: uint8 [h, w, 3], drawn below row `horizon` only."""
    import cv2

    height, width = size
    stones = load("gravel.png")
    stones = np.vstack([stones, stones[::-1]])
    stones = np.roll(np.hstack([stones, stones[:, ::-1]]), seed_px, 1)
    side = stones.shape[0]
    seen = np.array([[-1.6 * width, height], [2.6 * width, height], [width, horizon], [0, horizon]])
    source = np.array([[0, side], [side, side], [side, 0], [0, 0]])
    matrix = cv2.getPerspectiveTransform(source.astype(np.float32), seen.astype(np.float32))
    floor = cv2.warpPerspective(stones, matrix, (width, height), flags=cv2.INTER_AREA)
    haze = np.clip((np.arange(height) - horizon) / (0.35 * (height - horizon)), 0, 1)
    flat = np.full_like(floor, 125)
    return blend(flat, floor, np.repeat(haze[:, None], width, 1).astype(np.float32))


def pad() -> Set:
    """The launch pad at dusk, 1408 x 939."""
    return Set(enlarge(load("rocket.jpg"), PAD_SCALE, 0.8))


def empty_pad() -> Set:
    """The launch pad without its rocket, 1408 x 939."""
    import cv2

    picture = load("rocket.jpg")
    hole = np.zeros(picture.shape[:2], np.uint8)
    cv2.rectangle(hole, (302, 120), (342, 404), 255, -1)
    clean = cv2.inpaint(picture, hole, 5, cv2.INPAINT_TELEA)
    soft = cv2.GaussianBlur(hole, (0, 0), 2).astype(np.float32) / 255
    clean = blend(clean, cv2.GaussianBlur(clean, (0, 0), 6), soft)
    return Set(enlarge(clean, PAD_SCALE, 0.8))


def hangar() -> Set:
    """A brick wall with a painted sign, 1800 x 760."""
    import cv2

    wall = cv2.rotate(load("brick.png"), cv2.ROTATE_90_CLOCKWISE)
    wall = np.hstack([wall[:, ::-1], wall, wall[:, ::-1]])
    wall = cv2.resize(wall, (1800, 760), interpolation=cv2.INTER_CUBIC)
    wall = tint(wall, (0.62, 0.78, 1.32))
    letters = painted("HANGAR 7", 96)
    box = (690, 150, letters.shape[1], letters.shape[0])
    wall = _paint(wall, letters, box, wear=0.35)
    y, x = np.mgrid[0:760, 0:1800].astype(np.float32)
    pools = sum(np.exp(-(((x - c) / 330) ** 2 + ((y - 240) / 330) ** 2)) for c in (380, 960, 1560))
    light = 0.42 + 0.85 * np.clip(pools, 0, 1)
    lit = np.clip(wall * light[..., None], 0, 255).astype(np.uint8)
    return Set(cv2.GaussianBlur(lit, (0, 0), 0.9), (("HANGAR 7", box),))


def _paint(wall: np.ndarray, letters: np.ndarray, box: Box, wear: float) -> np.ndarray:
    """Letters on a rough wall: the paint keeps the relief and has worn off in places."""
    x, y, w, h = box
    opacity = np.zeros(wall.shape[:2], np.float32)
    opacity[y : y + h, x : x + w] = letters / 255 * 0.9
    opacity *= 1 - wear * (clouds(11, wall.shape[:2], 60) > 0.62)
    relief = wall.mean(2, keepdims=True) / wall.mean() * np.array([205, 225, 232], np.float32)
    return blend(wall, np.clip(relief, 0, 255).astype(np.uint8), opacity)


def park() -> Set:
    """The cameraman at work, hand-coloured, 1024 x 1024."""
    import cv2

    grey = load("camera.png")
    y = np.arange(512, dtype=np.float32)[:, None, None]
    meadow = 1 / (1 + np.exp(-(y - 228) / 6))
    sky, grass = np.array([1.10, 1.0, 0.90]), np.array([0.62, 1.06, 0.88])
    colour = grey * (sky * (1 - meadow) + grass * meadow)
    man = np.zeros((512, 512), np.uint8)
    cv2.fillPoly(man, [np.array(CAMERAMAN, np.int32)], 255)
    for foot, width in (((296, 490), 10), ((240, 511), 10), ((402, 511), 8)):  # the tripod
        cv2.line(man, (297, 210 if foot[0] == 296 else 322), foot, 255, width)
    man_soft = cv2.GaussianBlur(man, (0, 0), 1.5).astype(np.float32)[..., None] / 255
    colour = colour * (1 - man_soft) + grey * np.array([1.06, 1.0, 0.98]) * man_soft
    face = np.zeros((512, 512), np.uint8)
    cv2.fillPoly(face, [np.array(CAMERAMAN_FACE, np.int32)], 255)
    face_soft = cv2.GaussianBlur(face, (0, 0), 2.5).astype(np.float32)[..., None] / 255
    colour = colour * (1 - face_soft) + grey * np.array([0.80, 0.98, 1.26]) * face_soft
    picture = np.clip(colour, 0, 255).astype(np.uint8)
    return Set(enlarge(picture, 2), outlines={"cameraman": np.array(CAMERAMAN, float) * 2})


def portrait() -> Set:
    """The astronaut's own photograph, 1024 x 1024."""
    x, y, w, h = ASTRONAUT_FACE
    outlines = {
        "astronaut": np.array(ASTRONAUT_HEAD + ASTRONAUT_BODY, float) * 2,
        "face": np.array([(x, y), (x + w, y + h)], float) * 2,
    }
    return Set(enlarge(load("astronaut.png"), 2), outlines=outlines)


def table() -> Set:
    """A cup of coffee, 1200 x 800."""
    cup = np.array([(80, 30), (478, 30), (478, 372), (80, 372)], float) * 2
    return Set(enlarge(load("coffee.png"), 2), outlines={"cup": cup})


def home() -> Set:
    """The cat at home, 1128 x 750."""
    cat = np.array([(0, 0), (398, 0), (365, 150), (300, 300), (0, 300)], float) * 2.5
    return Set(enlarge(load("chelsea.png"), 2.5), outlines={"cat": cat})


def planet(radius: int) -> tuple[np.ndarray, np.ndarray]:
    """A red planet lit from the left: uint8 [2r, 2r, 3] and its opacity float [2r, 2r]."""
    import cv2

    disc = load("retina.jpg")[24:-24, 24:-24]
    disc = cv2.resize(disc, (2 * radius, 2 * radius), interpolation=cv2.INTER_AREA)
    y, x = (np.mgrid[0 : 2 * radius, 0 : 2 * radius] + 0.5) / radius - 1
    z = np.sqrt(np.clip(1 - x**2 - y**2, 0, 1))
    shade = np.clip(-0.62 * x - 0.35 * y + 0.70 * z, 0.02, 1)
    storms = 0.72 + 0.5 * clouds(21, (2 * radius, 2 * radius), radius / 2)
    rust = disc.mean(2, keepdims=True) * np.array([0.55, 0.88, 1.72]) * 0.5 + disc * 0.5
    lit = np.clip(rust * (shade * storms)[..., None], 0, 255)
    edge = np.clip((1 - np.hypot(x, y)) * radius / 2, 0, 1)
    return lit.astype(np.uint8), edge.astype(np.float32)


def _hang(sky: np.ndarray, radius: int, centre: tuple[int, int]) -> np.ndarray:
    globe, edge = planet(radius)
    h, w = sky.shape[:2]
    alpha, layer = np.zeros((h, w), np.float32), np.zeros_like(sky)
    x0, y0 = centre[0] - radius, centre[1] - radius
    top, left, bottom, right = max(y0, 0), max(x0, 0), min(y0 + 2 * radius, h), min(x0 + 2 * radius, w)
    inner = np.s_[top - y0 : bottom - y0, left - x0 : right - x0]
    layer[top:bottom, left:right], alpha[top:bottom, left:right] = globe[inner], edge[inner]
    return blend(sky, layer, alpha)


def space() -> Set:
    """Deep space, 1500 x 1308."""
    return Set(tint(enlarge(load("hubble_deep_field.jpg"), 1.5), (1.25, 1.15, 1.15)))


def orbit() -> Set:
    """The red planet among the stars, 1500 x 1308."""
    stars = tint(enlarge(load("hubble_deep_field.jpg")[::-1], 1.5, 0.7), (1.3, 1.05, 0.9))
    return Set(_hang(stars, 430, (1010, 690)))


def cabin() -> Set:
    """The inside of the ship with a round window, 1400 x 720."""
    import cv2

    h, w = 720, 1400
    y, x = np.mgrid[0:h, 0:w].astype(np.float32)
    metal = 96 + 26 * np.cos((x - 500) / 420) - 30 * (y / h) + 10 * clouds(31, (h, w), 90)
    metal += 3 * noise(32, (h, w), 2.0)
    wall = np.clip(metal[..., None] * np.array([1.16, 1.04, 0.94], np.float32), 0, 255)
    wall = wall.astype(np.uint8)
    for column in range(60, w, 228):
        cv2.line(wall, (column, 0), (column, h), (44, 40, 38), 4, cv2.LINE_AA)
        cv2.line(wall, (column + 4, 0), (column + 4, h), (150, 140, 132), 1, cv2.LINE_AA)
        for row in range(26, h, 46):
            cv2.circle(wall, (column + 16, row), 4, (62, 58, 54), -1, cv2.LINE_AA)
            cv2.circle(wall, (column + 15, row - 1), 2, (170, 160, 150), -1, cv2.LINE_AA)
    view = _hang(tint(load("hubble_deep_field.jpg")[:720], (1.2, 1.1, 1.1)), 230, (360, 420))
    mask = np.zeros((h, w), np.uint8)
    cv2.circle(mask, (640, 250), 190, 255, -1, cv2.LINE_AA)
    outside = np.zeros_like(wall)
    outside[:, 280 : 280 + 1000] = view
    wall = blend(wall, outside, mask.astype(np.float32) / 255)
    for radius, thick, shade in ((203, 26, 120), (214, 4, 190), (191, 4, 48)):
        cv2.circle(wall, (640, 250), radius, (shade + 10, shade, shade - 8), thick, cv2.LINE_AA)
    for k in range(16):
        at = (640 + round(203 * np.cos(k * np.pi / 8)), 250 + round(203 * np.sin(k * np.pi / 8)))
        cv2.circle(wall, at, 5, (58, 54, 50), -1, cv2.LINE_AA)
    letters = painted("AIRLOCK 2", 40)
    box = (905, 190, letters.shape[1], letters.shape[0])
    cv2.rectangle(wall, (885, 172), (905 + box[2] + 20, 190 + box[3] + 18), (40, 150, 205), -1)
    opacity = np.zeros((h, w), np.float32)
    opacity[box[1] : box[1] + box[3], box[0] : box[0] + box[2]] = letters / 255
    wall = blend(wall, np.full_like(wall, 25), opacity)
    for k, colour in enumerate([(60, 200, 90), (60, 170, 240), (60, 60, 220), (60, 200, 90)]):
        cv2.circle(wall, (930 + 46 * k, 290), 9, colour, -1, cv2.LINE_AA)
    return Set(cv2.GaussianBlur(wall, (0, 0), 1.1), (("AIRLOCK 2", box),))


def mars(seed_px: int = 0) -> Set:
    """The surface of the red planet under a hazy sky, 1500 x 860."""
    import cv2

    h, w, horizon = 860, 1500, 470
    up = np.linspace(1, 0, horizon, dtype=np.float32)[:, None, None] ** 1.3
    sky = np.array([150, 190, 235]) * (1 - up) + np.array([66, 92, 150]) * up
    picture = np.zeros((h, w, 3), np.uint8)
    picture[:horizon] = sky
    picture[:horizon] = _hang(np.ascontiguousarray(picture[:horizon]), 74, (1120 - seed_px, 130))
    floor = tint(ground(seed_px, (h, w), horizon), (0.42, 0.66, 1.18))
    for k, (height, shade) in enumerate([(95, 0.86), (60, 0.66)]):
        ridge = clouds(41 + 7 * k + seed_px, (1, w), 260 - 90 * k)[0]
        tops = (horizon - 8 - height * ridge).astype(int)
        rows = np.arange(h)[:, None]
        hills = (rows >= tops) & (rows < horizon + 4)
        picture[hills] = (np.array([112, 140, 205]) * shade).astype(np.uint8)
    below: np.ndarray = (np.arange(h)[:, None] >= horizon).astype(np.float32) * np.ones((1, w), np.float32)
    below = cv2.GaussianBlur(below, (0, 0), 1.2)
    return Set(cv2.GaussianBlur(blend(picture, floor, below), (0, 0), 0.8))


def far_mars() -> Set:
    """Another valley of the red planet, in the evening."""
    return Set(tint(mars(330).picture, (0.86, 0.60, 0.52)))
