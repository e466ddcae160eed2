"""What a shot is like, measured from the scan's tiny pictures and key statistics: numpy in, numbers out.

Nothing here decides. Whatever cannot be computed is None, never a stand-in number.

Axes: N frames of one shot in order, H x W the thumbnail (18 x 32), K key statistics of the shot.
"""

from __future__ import annotations

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
ALIGN_BATCH = 256  # pairs at a time: an hour without a cut must not fill the memory


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
    parts = [
        _align(before[i : i + ALIGN_BATCH].astype(np.float64), after[i : i + ALIGN_BATCH].astype(np.float64))
        for i in range(0, len(before), ALIGN_BATCH)
    ]
    return Alignment(
        np.concatenate([np.zeros((0, 2)), *(p.shift for p in parts)]),
        np.concatenate([np.zeros(0), *(p.residual for p in parts)]),
    )


def _align(a: np.ndarray, b: np.ndarray) -> Alignment:
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
SAME_BAR = 0.01
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
    slack = [max(2, round(SAME_BAR * size[side // 2])) for side in range(4)]
    common = [_common(wide[:, side], slack[side]) for side in range(4)]
    sides = np.empty((num_shots, 4), np.int64)
    for side in range(4):
        is_paired = common[side] <= 2 * common[side ^ 1]  # top with bottom, left with right
        film_width = common[side] if is_paired else 0
        holds = (film_width > 0) & (wide[:, side] >= film_width - slack[side])
        recurring = [_recurring(narrow[:, side], low, slack[side]) for low in narrow[:, side]]
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
    for value in sorted({int(v) for v in known if slack < v <= wanted}, reverse=True):
        if (np.abs(known - value) <= slack).sum() > 1 or len(known) == 1:
            return value
    return int(known.min())
