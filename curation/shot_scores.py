"""What a shot is like, measured from the scan's tiny pictures and key statistics: numpy in, numbers out.

Nothing here decides. Whatever cannot be computed is None, never a stand-in number.

Axes: N frames of one shot in order, H x W the thumbnail (18 x 32), K key statistics of the shot.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

DARK_LUMA, BRIGHT_LUMA = 24.0, 235.0
MOTION_LAG_S = 0.25
FREEZE_S = 0.5
STILL_CONTENT = 0.03
"""Mean absolute change of value (8-bit) up to which a frame repeats the one before. Repeated frames come
out of an encoder with 0.00-0.01, a character who holds still with 0.05, noise of one grey level with 0.09:
a tripod shot of a still scene with grain is therefore not frozen, it is static."""
STILL_THUMB = 1
"""Grey levels by which a thumbnail may depart from the first of a frozen run: more is a fade or a drift."""
NOISE = 1.0
"""Grey levels of change in a thumbnail that are rounding, grain or coding noise rather than motion."""
HASH_STEP_S = 0.5
HASH_BLEND_S = 0.15
MAX_HASHES = 16
HASH_ROWS, HASH_COLUMNS = 8, 16
HASH_DEPTH = 0.8
FLAT_THUMB = 4.0
"""Standard deviation in grey levels under which a picture has no layout to hash: black, white, plain."""


# -- exposure, flicker, corruption --------------------------------------------------------------


def exposure(luma: np.ndarray) -> dict[str, float | None]:
    """Brightness and contrast of a shot.

    Args:
        luma: [N, 3], mean, standard deviation and 90th percentile of luma of each frame, 0..255.
    """
    names = ("luma_mean", "luma_p90", "contrast", "dark_share", "bright_share")
    if not len(luma):
        return dict.fromkeys(names)
    mean, deviation, p90 = (luma[:, i].astype(np.float64) for i in range(3))
    values = (
        mean.mean(),
        p90.mean(),
        deviation.mean(),
        (mean < DARK_LUMA).mean(),
        (mean > BRIGHT_LUMA).mean(),
    )
    return {name: float(value) for name, value in zip(names, values, strict=True)}


def flicker(luma_mean: np.ndarray) -> float | None:
    """Mean absolute second difference of frame luma [N]: blind to fades, alive to lamps and old prints."""
    if len(luma_mean) < 3:
        return None
    return float(np.abs(np.diff(luma_mean.astype(np.float64), n=2)).mean())


def median(values: np.ndarray) -> float | None:
    """Median, or None of nothing."""
    return float(np.median(values.astype(np.float64))) if len(values) else None


def share(flags: np.ndarray) -> float | None:
    """Share of true values, or None of nothing."""
    return float(flags.mean()) if len(flags) else None


# -- freeze -------------------------------------------------------------------------------------


def freeze_share(times: np.ndarray, thumbs: np.ndarray, value_change: np.ndarray) -> float | None:
    """Share of the shot inside runs of at least half a second in which the picture does not change at all.

    Args:
        times: [N + 1] seconds, the start of each frame and the end of the last.
        thumbs: uint8 [N, H, W].
        value_change: [N], mean absolute change of HSV value to the frame before; the first is ignored.

    A run holds one picture: each frame repeats the one before up to encoding noise (a lone jump is let
    pass: encoders redraw a still picture at key frames), and stays near the run's first.
    """
    total = times[-1] - times[0]
    if len(thumbs) < 2 or total <= 0:
        return None
    repeats = np.concatenate([[False], value_change[1:] <= STILL_CONTENT])
    repeats = _bridge_single(repeats)
    frozen, start = 0.0, 0
    for i in range(1, len(thumbs) + 1):
        same = i < len(thumbs) and bool(repeats[i]) and _near(thumbs[i], thumbs[start])
        if same:
            continue
        length = times[i] - times[start]
        if i - start > 1 and length >= FREEZE_S:
            frozen += length
        start = i
    return float(min(1.0, frozen / total))


def _bridge_single(repeats: np.ndarray) -> np.ndarray:
    """Lone false values between true ones become true."""
    out = repeats.copy()
    out[1:-1] |= repeats[:-2] & repeats[2:]
    return out


def _near(one: np.ndarray, other: np.ndarray) -> bool:
    return int(np.abs(one.astype(np.int16) - other).max()) <= STILL_THUMB


# -- motion -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Alignment:
    """Global translations between pairs of thumbnails and what they leave unexplained.

    Attributes:
        shift: float64 [M, 2], movement of the picture down and right, thumbnail pixels.
        residual: float64 [M], mean absolute luma difference after alignment, above `NOISE`, grey levels.
    """

    shift: np.ndarray
    residual: np.ndarray


def align(before: np.ndarray, after: np.ndarray) -> Alignment:
    """Translation from `before` to `after`, both [M, H, W], by phase correlation and a gradient step.

    Phase correlation finds whole pixels (kept only where they explain more than none); a weighted
    least-squares step on the gradients, which trusts pixels that agree, finds the fraction.
    """
    a, b = before.astype(np.float64), after.astype(np.float64)
    whole = _phase_peak(a, b)
    moved, inside = _shifted(b, whole)
    gain = _masked_mean(np.abs(moved - a), inside) < np.abs(b - a).mean((1, 2))
    whole = np.where(gain[:, None], whole, 0)
    moved, inside = _shifted(b, whole)
    fraction, residual = _gradient_step(a, moved, inside)
    return Alignment(whole + fraction, residual)


def _phase_peak(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Whole-pixel movement [M, 2] from a to b, at most a third of the picture."""
    height, width = a.shape[1:]
    window = np.outer(np.hanning(height), np.hanning(width))
    spectra = [np.fft.rfft2((x - x.mean((1, 2), keepdims=True)) * window) for x in (a, b)]
    cross = np.conj(spectra[0]) * spectra[1]
    surface = np.fft.irfft2(cross / (np.abs(cross) + 1e-6), s=(height, width))
    rows, cols = np.arange(height), np.arange(width)
    rows, cols = np.minimum(rows, height - rows), np.minimum(cols, width - cols)
    surface[:, (rows[:, None] > height // 3) | (cols > width // 3)] = -np.inf
    peak = surface.reshape(len(a), -1).argmax(1)
    down, right = peak // width, peak % width
    return np.stack(
        [
            np.where(down > height // 2, down - height, down),
            np.where(right > width // 2, right - width, right),
        ],
        axis=1,
    )


def _shifted(b: np.ndarray, shift: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The pictures moved back by whole pixels, and where that is inside of them."""
    height, width = b.shape[1:]
    rows = np.arange(height) + shift[:, :1]
    cols = np.arange(width) + shift[:, 1:]
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((cols >= 0) & (cols < width))[:, None, :]
    rows, cols = rows.clip(0, height - 1), cols.clip(0, width - 1)
    return b[np.arange(len(b))[:, None, None], rows[:, :, None], cols[:, None, :]], inside


def _masked_mean(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    return (values * mask).sum((1, 2)) / mask.sum((1, 2))


def _gradient_step(a: np.ndarray, b: np.ndarray, inside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Fractional movement [M, 2], at most one pixel, and the mean difference above noise that it leaves."""
    down, right = np.gradient((a + b) / 2, axis=(1, 2))
    change = b - a
    left, step = np.abs(change), np.zeros((len(a), 2))
    for _ in range(3):
        weight = inside / (left + 1.0)
        yy, xx, xy = ((weight * g).sum((1, 2)) for g in (down * down, right * right, down * right))
        yt, xt = ((weight * g * change).sum((1, 2)) for g in (down, right))
        damped = (yy + 1e-3 + 0.01 * xx) * (xx + 1e-3 + 0.01 * yy) - xy * xy
        step = -np.stack([xx * yt - xy * xt, yy * xt - xy * yt], axis=1) / damped[:, None]
        step = step.clip(-1, 1)
        left = np.abs(change + down * step[:, :1, None] + right * step[:, 1:, None])
    plain, aligned = (_masked_mean((d - NOISE).clip(0), inside) for d in (np.abs(change), left))
    worse = aligned > plain
    return np.where(worse[:, None], 0.0, step), np.where(worse, plain, aligned)


def motion(times: np.ndarray, thumbs: np.ndarray) -> float | None:
    """Mean absolute luma change per second above noise that global translation does not explain, 0..255.

    Args:
        times: [N] seconds.
        thumbs: uint8 [N, H, W].
    """
    pairs = lagged_pairs(times, MOTION_LAG_S)
    if not len(pairs):
        return None
    left = align(thumbs[pairs[:, 0]], thumbs[pairs[:, 1]]).residual
    return float((left / (times[pairs[:, 1]] - times[pairs[:, 0]])).mean())


def lagged_pairs(times: np.ndarray, lag_s: float) -> np.ndarray:
    """Index pairs [M, 2] of frames at least `lag_s` apart that follow one another through the shot."""
    pairs: list[tuple[int, int]] = []
    first = 0
    while True:
        second = int(np.searchsorted(times, times[first] + lag_s - 1e-6)) if len(times) else 0
        if second >= len(times):
            return np.array(pairs, dtype=np.int64).reshape(-1, 2)
        pairs.append((first, second))
        first = second


def shake(times: np.ndarray, thumbs: np.ndarray) -> float | None:
    """How far the picture trembles around its smooth path, share of picture width.

    The path is the sum of the translations between frames; what remains after a moving average of half
    a second is tremble. The median over frames counts, so that one blow or one whip pan is none.
    """
    if len(thumbs) < 3 or times[-1] - times[0] < FREEZE_S:
        return None
    path = np.concatenate([[[0.0, 0.0]], np.cumsum(align(thumbs[:-1], thumbs[1:]).shift, axis=0)])
    span = max(3, round(FREEZE_S / float(np.median(np.diff(times)))) | 1)
    if len(path) < span:
        return None
    kernel = np.ones(span) / span
    smooth = np.stack([np.convolve(path[:, i], kernel, mode="valid") for i in range(2)], axis=1)
    inner = path[span // 2 : len(path) - span // 2]
    tremble = np.hypot(*(inner - smooth).T)
    return float(np.median(tremble)) / thumbs.shape[2]


# -- black bars ---------------------------------------------------------------------------------

LIT_LUMA = 8.0
"""Mean luma above which a picture's black edges say something about bars."""
SAME_BAR = 0.025
"""Share of height or width within which two measurements may show the same bar: coding noise at its edge."""


def film_bars(
    bars: np.ndarray, luma_mean: np.ndarray, key_shot: np.ndarray, num_shots: int, size: tuple[int, int]
) -> list[tuple[int, int, int, int] | None]:
    """Bars at top, bottom, left, right of each shot, in source pixels; None where nothing tells.

    A single measurement is narrower than the bar where coding noise reaches into it, and wider where the
    scene is black up to its edge. So the film decides: a width that half of its shots show, with one like
    it on the opposite side, is its bar and holds in every shot that does not contradict it throughout; any
    other is believed only as far as no picture of the shot contradicts it and a second shot has it too.

    Args:
        bars: [K, 4] of the film, black rows or columns.
        luma_mean: [K], mean luma of the same frames.
        key_shot: [K], index of the shot each statistic belongs to, -1 for none.
        num_shots: how many shots there are.
        size: (height, width) of the picture.
    """
    lit = (luma_mean >= LIT_LUMA) & (bars[:, 0] < size[0])
    own = [bars[lit & (key_shot == i)].astype(np.int64) for i in range(num_shots)]
    seen = [i for i in range(num_shots) if len(own[i])]
    if not seen:
        return [None] * num_shots
    narrow = np.array([own[i].min(0) for i in seen])
    wide = np.array([own[i].max(0) for i in seen])
    slack = [round(SAME_BAR * size[side // 2]) for side in range(4)]
    common = [_common(wide[:, side], slack[side]) for side in range(4)]
    sides = np.empty((num_shots, 4), np.int64)
    for side in range(4):
        is_paired = common[side] <= 2 * common[side ^ 1]  # top with bottom, left with right
        film_width = common[side] if is_paired else 0
        holds = (film_width > 0) & (wide[:, side] >= film_width - slack[side])
        recurring = [_recurring(narrow[:, side], low, max(2, slack[side] // 4)) for low in narrow[:, side]]
        widths = np.where(holds, film_width, recurring)
        sides[:, side] = widths.min()  # shots too dark to tell
        sides[seen, side] = widths
    return [(int(t), int(b), int(le), int(r)) for t, b, le, r in sides]


def _common(wide: np.ndarray, slack: int) -> int:
    """The width that at least half of several shots show at their widest, else 0."""
    near = np.abs(wide[:, None] - wide[None, :]) <= slack
    support = near.sum(1)
    best = int(support.argmax())
    return int(np.median(wide[near[best]])) if len(wide) > 1 and 2 * support[best] >= len(wide) else 0


def _recurring(known: np.ndarray, wanted: int, slack: int) -> int:
    """The widest bar <= `wanted` that at least two shots have, else the narrowest of all."""
    for value in sorted({int(v) for v in known if v <= wanted}, reverse=True):
        if (np.abs(known - value) <= slack).sum() > 1 or len(known) == 1:
            return value
    return int(known.min())


# -- perceptual hashes --------------------------------------------------------------------------


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
