"""Which frames a metric looks at. Every function is exact integer arithmetic on frame counts.

Joined frames: the frames of several shots one after the other, numbered from 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Every:
    """Take a frame every so often, the first one always: give `frames` or `seconds`, not both.

    Attributes:
        frames: interval in frames, at least 1.
        seconds: interval in seconds, for methods that differ in frame rate.
    """

    frames: int | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        if (self.frames is None) == (self.seconds is None):
            raise ValueError("an interval is given in frames or in seconds: set exactly one of the two")
        if (self.frames or self.seconds or 0) <= 0:
            raise ValueError(f"an interval must be above zero, not {self.frames or self.seconds}")


def mid(count: int, length: int) -> np.ndarray:
    """Middles of `count` equal intervals of [0, length): the test sampler of InternVideo and VBench.

    A video shorter than `count` gives each of its frames once, then its last one again and again.

    Returns:
        int64 [count].

    Raises:
        ValueError: a number below 1.
    """
    taken = _taken(count, length)
    edges = np.linspace(0, length, taken + 1).astype(np.int64)
    return _padded((edges[:-1] + edges[1:] - 1) // 2, count)


def lin(count: int, length: int) -> np.ndarray:
    """First to last frame in equal steps, truncated. Padding, result and errors as in `mid`."""
    taken = _taken(count, length)
    return _padded(np.linspace(0, length - 1, taken).astype(np.int64), count)


def step(count: int, length: int) -> np.ndarray:
    """Every (length // count)-th frame from 0: the demo of InternVid. Padding, result, errors as in `mid`."""
    taken = _taken(count, length)
    return _padded(np.arange(taken, dtype=np.int64) * (length // taken), count)


SAMPLERS: dict[str, Callable[[int, int], np.ndarray]] = {"mid": mid, "lin": lin, "step": step}


def every(interval: Every, lengths: Sequence[int], rates: Sequence[float | None] = ()) -> np.ndarray:
    """Joined frames at an interval from frame 0.

    Args:
        interval: in frames or seconds.
        lengths: frames of each shot.
        rates: frames per second of each shot; needed for an interval in seconds.

    Returns:
        int64: ascending joined frames. In seconds, the first frame shown at or after each multiple.

    Raises:
        ValueError: an interval in seconds and a shot without a known rate.
    """
    total = sum(lengths)
    if interval.frames is not None:
        return np.arange(0, total, interval.frames, dtype=np.int64)
    assert interval.seconds is not None
    if len(rates) != len(lengths) or any(not rate or rate <= 0 for rate in rates):
        raise ValueError("an interval in seconds needs the frame rate of every shot")
    if not total:
        return np.zeros(0, np.int64)
    lasting = np.repeat([1.0 / (rate or 1.0) for rate in rates], lengths)
    starts = np.concatenate([[0.0], np.cumsum(lasting)[:-1]])
    wanted = np.arange(int(starts[-1] / interval.seconds + 1e-6) + 1) * interval.seconds
    # A millionth of a second absorbs the rounding of the sums.
    return np.unique(np.searchsorted(starts, wanted - 1e-6, side="left")).astype(np.int64)


def split_joined(frames: np.ndarray, lengths: Sequence[int]) -> list[np.ndarray]:
    """Joined frames as frames of each shot: int64 arrays, one per shot, order kept, empty where none is.

    Raises:
        ValueError: a frame beyond the end.
    """
    ends = np.cumsum(lengths, dtype=np.int64)
    total = int(ends[-1]) if len(ends) else 0
    if len(frames) and (frames.min() < 0 or frames.max() >= total):
        raise ValueError(f"frames {frames.min()} to {frames.max()} of a video of {total} frames")
    owner = np.searchsorted(ends, frames, side="right")
    return [frames[owner == i] - (ends[i] - length) for i, length in enumerate(lengths)]


def _taken(count: int, length: int) -> int:
    if count < 1 or length < 1:
        raise ValueError(f"{count} frames of a video of {length}: both must be at least 1")
    return min(count, length)


def _padded(frames: np.ndarray, count: int) -> np.ndarray:
    return np.concatenate([frames, np.full(count - len(frames), frames[-1])])
