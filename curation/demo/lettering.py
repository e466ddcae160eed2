"""Letters of the demo film: subtitles, the corner logo and painted signs, in Pillow's own TrueType font."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from curation.demo.compose import HEIGHT, WIDTH, Sprite, sprite

SUBTITLE_SIZE, LINE_HEIGHT, LOGO_SIZE = 23, 28, 19


def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size=size)
    assert isinstance(font, ImageFont.FreeTypeFont), "Pillow was built without FreeType"
    return font


def subtitle(text: str, bottom: int) -> tuple[Sprite, tuple[int, int, int, int]]:
    """White letters with a dark outline, centred, their lowest pixel in row `bottom` - 1.

    Returns:
        A sprite of the size of the coded frame, and the box x, y, width, height of its ink.
    """
    image, fill = (Image.new("L", (WIDTH, HEIGHT), 0) for _ in range(2))
    for k, line in enumerate(text.split("\n")):  # line by line: a stroke changes Pillow's line spacing
        place = (WIDTH / 2, HEIGHT / 2 + k * LINE_HEIGHT)
        font = _font(SUBTITLE_SIZE)
        ImageDraw.Draw(image).text(
            place, line, fill=255, font=font, anchor="ms", stroke_width=2, stroke_fill=255
        )
        ImageDraw.Draw(fill).text(place, line, fill=255, font=font, anchor="ms")
    ink, white = np.asarray(image), np.asarray(fill)
    shift = bottom - 1 - int(np.flatnonzero(ink.any(1))[-1])
    ink, white = np.roll(ink, shift, 0), np.roll(white, shift, 0)
    picture = np.repeat((16 + white.astype(np.uint16) * 226 // 255).astype(np.uint8)[..., None], 3, 2)
    return _overlay(picture, ink)


def logo(text: str, right: int, top: int) -> tuple[Sprite, tuple[int, int, int, int]]:
    """A half-transparent wordmark behind a disc, its ink ending in column `right` - 1, from row `top`."""
    image = Image.new("L", (WIDTH, HEIGHT), 0)
    draw, font = ImageDraw.Draw(image), _font(LOGO_SIZE)
    length = draw.textlength(text, font=font)
    draw.text((right - length, top), text, font=font, fill=255, anchor="la", stroke_width=0.4)
    x = right - length - 19
    draw.ellipse((x, top + 2, x + 13, top + 15), outline=255, width=3)
    ink = (np.asarray(image).astype(np.uint16) * 200 // 255).astype(np.uint8)
    return _overlay(np.full((HEIGHT, WIDTH, 3), 235, np.uint8), ink)


def painted(text: str, size: int) -> np.ndarray:
    """Opacity uint8 [h, w] of painted letters, cropped to their ink."""
    font = _font(size)
    left, top, right, bottom = font.getbbox(text, stroke_width=1)
    image = Image.new("L", (round(right - left) + 8, round(bottom - top) + 8), 0)
    ImageDraw.Draw(image).text((4 - left, 4 - top), text, font=font, fill=255, stroke_width=1)
    ink = np.asarray(image)
    rows, columns = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _overlay(picture: np.ndarray, ink: np.ndarray) -> tuple[Sprite, tuple[int, int, int, int]]:
    rows, columns = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
    y0, y1, x0, x1 = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
    corners = [(x0, y0), (x1, y1)]
    cropped = sprite(np.ascontiguousarray(picture[y0:y1, x0:x1]), ink[y0:y1, x0:x1].copy(), corners, (0, 0))
    return cropped, (x0, y0, x1 - x0, y1 - y0)
