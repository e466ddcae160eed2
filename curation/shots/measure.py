"""Arithmetic of the scan: numpy in, numpy out, whole batches of tiny pictures at a time."""

from __future__ import annotations

import numpy as np

BAR_MAX = 24  # a bar's brightest pixel, full-range luma: black with coding noise
BAR_RANGE = 10  # brightest minus darkest pixel of a bar's line: bars are flat, dark scenes are not


def to_hsv(pictures: np.ndarray) -> np.ndarray:
    """BGR uint8 [N, H, W, 3] to OpenCV's 8-bit HSV of the same shape."""
    import cv2

    tall = pictures.reshape(-1, pictures.shape[2], 3)
    return cv2.cvtColor(tall, cv2.COLOR_BGR2HSV).reshape(pictures.shape)


def content(hsv: np.ndarray) -> np.ndarray:
    """Mean absolute difference of each picture to the one before in hue, saturation and value.

    Args:
        hsv: uint8 [N + 1, H, W, 3].

    Returns:
        float32 [N, 3]; exact multiples of 1 / (H * W).
    """
    import cv2

    count, pixels = len(hsv), hsv.shape[1] * hsv.shape[2]
    out = np.empty((count - 1, 3), np.float32)
    if count < 2:
        return out
    for channel, plane in enumerate(cv2.split(hsv.reshape(count, pixels, 3))):
        change = cv2.absdiff(plane[1:], plane[:-1])
        sums = cv2.reduce(change, 1, cv2.REDUCE_SUM, dtype=cv2.CV_32S)
        out[:, channel] = sums[:, 0] / pixels
    return out


def luma_statistics(luma: np.ndarray) -> np.ndarray:
    """Mean, standard deviation and 90th percentile per picture: uint8 [N, H, W] to float32 [N, 3].

    Sums are integers, so that the result is the same on every machine. The percentile is of every
    second pixel of every second row.
    """
    import cv2

    flat = luma.reshape(len(luma), -1)
    pixels = flat.shape[1]
    # OpenCV's sums and sorts of bytes take a tenth of NumPy's time.
    mean = cv2.reduce(flat, 1, cv2.REDUCE_SUM, dtype=cv2.CV_32S)[:, 0] / pixels
    square = cv2.reduce(flat, 1, cv2.REDUCE_SUM2, dtype=cv2.CV_64F)[:, 0] / pixels
    some = luma[:, 1::2, 1::2].reshape(len(luma), -1)
    p90 = cv2.sort(some, cv2.SORT_EVERY_ROW)[:, int(0.9 * (some.shape[1] - 1))]
    return np.stack([mean, np.sqrt(np.maximum(square - mean**2, 0)), p90], axis=1).astype(np.float32)


def halve(luma: np.ndarray) -> np.ndarray:
    """Pictures of half the height and width by averaging 2 x 2 pixels, uint8 [N, H, W]."""
    import cv2

    count, height, width = luma.shape
    flat = luma.reshape(count * height, width)
    small = cv2.resize(flat, (width // 2, count * height // 2), interpolation=cv2.INTER_AREA)
    return small.reshape(count, height // 2, width // 2)


def sharpness(luma: np.ndarray) -> float:
    """Variance of the Laplacian of 8-bit luma [H, W] (Pech-Pacheco et al., ICPR 2000).

    Measured on eight evenly spaced bands that hold a quarter of the rows, or on the whole of a picture
    of up to 128 rows.
    """
    import cv2

    height = len(luma)
    if height <= 128:
        bands = [(0, height)]
    else:
        centres, half = [(2 * k + 1) * height // 16 for k in range(8)], height // 64 + 1
        bands = [(y - half, y + half) for y in centres]
    # The outermost lines of a Laplacian see mirrored neighbours and are left out.
    moments = [cv2.meanStdDev(cv2.Laplacian(luma[a:b], cv2.CV_16S)[1:-1, 1:-1]) for a, b in bands]
    mean = np.array([float(m[0, 0]) for m, _ in moments])
    square = np.array([float(d[0, 0]) ** 2 for _, d in moments]) + mean**2
    return float(square.mean() - mean.mean() ** 2)


def bars(luma: np.ndarray, *, black: int, scale: float) -> tuple[int, int, int, int]:
    """Black bars at (top, bottom, left, right) in lines of the picture.

    A line belongs to a bar only if all of it is near black and flat, so a dark scene that is not
    uniformly black has none. A black picture is all bar: (H, H, W, W).

    Args:
        luma: uint8 [H, W].
        black: the code of black.
        scale: luma codes per full-range code.
    """
    import cv2

    height, width = luma.shape
    brightest, spread = black + BAR_MAX * scale, BAR_RANGE * scale
    corners = int(luma[0, 0]), int(luma[0, -1]), int(luma[-1, 0]), int(luma[-1, -1])
    if sorted(corners)[1] > brightest:  # a bar has two black corners
        return 0, 0, 0, 0

    def flat_black(axis: int, part: np.ndarray) -> np.ndarray:
        high = cv2.reduce(part, axis, cv2.REDUCE_MAX).ravel().astype(np.int32)
        low = cv2.reduce(part, axis, cv2.REDUCE_MIN).ravel()
        return (high <= brightest) & (high - low <= spread)

    rows = flat_black(1, luma)
    if rows.all():
        return height, height, width, width
    top, bottom = int(rows.argmin()), int(rows[::-1].argmin())
    columns = flat_black(0, luma[top : height - bottom])
    return top, bottom, int(columns.argmin()), int(columns[::-1].argmin())


def turn_bars(bars: tuple[int, int, int, int], quarter_turns: int) -> tuple[int, int, int, int]:
    """Bars (top, bottom, left, right) after rotating the picture counter-clockwise."""
    top, bottom, left, right = bars
    for _ in range(quarter_turns):
        top, bottom, left, right = right, left, top, bottom
    return top, bottom, left, right
