"""Perceptual hashes of a shot's pictures, by which its copies in other films are found.

Axes: N frames of one shot in order, M hashed pictures, H x W the thumbnail (18 x 32).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

HASH_STEP_S = 0.5
HASH_BLEND_S = 0.15
MAX_HASHES = 16
HASH_ROWS, HASH_COLUMNS = 8, 16
HASH_DEPTH = 0.8
FLAT_THUMB = 4.0
"""Standard deviation in grey levels under which a picture has no layout to hash: black, white, plain."""


def hash_pictures(times: np.ndarray, end_s: float, thumbs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pictures to hash, counted from the start of a shot and from its end.

    Copies of a film have the same cuts, so pictures at the same distance from a cut are the same; an
    excerpt that begins or ends inside a shot still shares the other cut with it. Each is the mean of the
    frames within 0.15 s, which evens out sampling, noise and cuts that are a frame off.

    Args:
        times: [N] seconds.
        end_s: end of the shot.
        thumbs: uint8 [N, H, W].

    Returns:
        float64 [M, H, W] around 0.25, 0.75, 1.25... seconds after the start, and the same before the
        end; at most 16 each.
    """
    start_s = times[0] if len(times) else end_s
    steps = np.arange(HASH_STEP_S / 2, end_s - start_s - HASH_BLEND_S, HASH_STEP_S)[:MAX_HASHES]
    from_start, from_end = (_blend(times, thumbs, t) for t in (start_s + steps, end_s - steps))
    return from_start, from_end


def _blend(times: np.ndarray, thumbs: np.ndarray, centres: np.ndarray) -> np.ndarray:
    out = np.zeros((len(centres), *thumbs.shape[1:]))
    for i, centre in enumerate(centres):
        first = int(np.searchsorted(times, centre - HASH_BLEND_S, side="left"))
        last = int(np.searchsorted(times, centre + HASH_BLEND_S, side="right"))
        shown = thumbs[min(first, last - 1) : last]  # at a low frame rate: the frame on screen
        out[i] = shown.mean(0)
    return out


def perceptual_hashes(thumbs: np.ndarray, picture: tuple[float, float, float, float]) -> list[str | None]:
    """128-bit DCT hashes of thumbnails, 32 hexadecimal digits each; None where the picture is flat.

    Args:
        thumbs: [M, H, W], 0..255.
        picture: top, bottom, left, right edges of the picture inside black bars, as shares of the
            thumbnail's height and width, so that a letterboxed copy has the hashes of its open twin. Of
            this the upper four fifths are hashed, so that a subtitled copy has them too.

    A bit says whether one of the 8 x 16 lowest DCT coefficients, the mean left out, is above their median
    (after Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions", 2010). Twice the
    usual width, because 8 x 8 cannot tell a copy from another shot of the same camera setup: on Big Buck
    Bunny a copy differs in 4 of 63 bits, a setup that comes back in 6; with 127 bits it is 8 and 14.
    """
    height, width = thumbs.shape[1:]
    top, bottom, left, right = picture
    bottom = top + HASH_DEPTH * (bottom - top)
    down = _area_weights(top * height, bottom * height, height, HASH_ROWS * 2)
    across = _area_weights(left * width, right * width, width, HASH_COLUMNS * 2)
    inner = np.einsum("rh,mhw,cw->mrc", down, thumbs.astype(np.float64), across)
    flat = inner.std((1, 2)) < FLAT_THUMB
    low = np.einsum("ur,mrc,vc->muv", _dct(HASH_ROWS), inner, _dct(HASH_COLUMNS))
    values = low.reshape(len(thumbs), HASH_ROWS * HASH_COLUMNS)[:, 1:]
    bits = values > np.median(values, axis=1, keepdims=True)
    packed = np.packbits(bits, axis=1)
    return [None if f else row.tobytes().hex() for f, row in zip(flat, packed, strict=True)]


def _area_weights(start: float, end: float, size: int, parts: int) -> np.ndarray:
    """[parts, size] weights that average the pixels between two edges into equal parts."""
    edges = np.linspace(start, end, parts + 1)
    pixels = np.arange(size)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    overlap = overlap.clip(0, None)
    return overlap / overlap.sum(1, keepdims=True)


def _dct(count: int) -> np.ndarray:
    """The first `count` rows of the type-II DCT matrix of size 2 * count."""
    frequency, position = np.arange(count)[:, None], np.arange(2 * count)
    return np.cos(np.pi * frequency * (2 * position + 1) / (4 * count))


def picture_edges(bars: Sequence[int] | None, size: tuple[int, int]) -> tuple[float, float, float, float]:
    """Edges of the picture inside its bars as shares of (height, width): top, bottom, left, right."""
    height, width = size
    top, bottom, left, right = bars or (0, 0, 0, 0)
    if top + bottom > height / 2 or left + right > width / 2:
        return 0.0, 1.0, 0.0, 1.0
    return top / height, 1 - bottom / height, left / width, 1 - right / width
