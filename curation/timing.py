"""Which source frame is on screen in which frame of an exported clip, in exact integer arithmetic.

An exported clip has 16 frames a second at a constant rate. Its frame k shows what the film shows k/16 s
after the clip's first frame: the last source frame whose timestamp is not later. So a source frame with
timestamp p is shown in the output frames [frame_index_16fps(p), frame_index_16fps(p')), where p' is the
timestamp of the next source frame; the range is empty for frames that 16 a second leave out. Timestamps
are ticks of the stream's time base.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from curation.engine.stage import Row

FPS = 16
ROUNDED_FROM_HZ = 500
"""Time bases at least this fine hold rounded times (Matroska: milliseconds), where one tick late is not late:
otherwise a film of 16 fps, in milliseconds 0, 63, 125, 188, would show every second frame twice."""
TRAINED_FRAMES = 81
"""The trainer sees the first 81 frames of a clip (5.06 s) and ignores reconstruction targets after them."""


def frame_index_16fps(stream: Row, clip_start_pts: int, pts: int) -> int:
    """Index of the first output frame that shows the source frame with timestamp `pts`.

    For a source frame that is left out at 16 frames a second it is the output frame right after it.

    Args:
        stream: `curation.rows.STREAM` values (for the time base).
        clip_start_pts: timestamp of the clip's first frame.
        pts: timestamp of a source frame of the clip.

    Raises:
        ValueError: `pts` lies before the clip.
    """
    if pts < clip_start_pts:
        raise ValueError(f"timestamp {pts} lies before the clip, which starts at {clip_start_pts}")
    num, den = stream["time_base_num"], stream["time_base_den"]
    slack = 1 if den >= ROUNDED_FROM_HZ * num else 0
    ticks = max(0, pts - clip_start_pts - slack)
    return -(-ticks * FPS * num // den)


def is_shown(stream: Row, clip_start_pts: int, pts: int, next_pts: int) -> bool:
    """Whether the source frame that is on screen from `pts` to `next_pts` appears in the exported clip."""
    first = frame_index_16fps(stream, clip_start_pts, pts)
    return first < frame_index_16fps(stream, clip_start_pts, next_pts)


def num_frames_16fps(stream: Row, start_pts: int, end_pts: int, *, trim: bool = True) -> int:
    """How many output frames a clip of the half-open span has: every k with start + k/16 s before the end.

    Args:
        stream: `curation.rows.STREAM` values (for the time base).
        start_pts: timestamp of the clip's first frame.
        end_pts: half-open end of the clip.
        trim: cut to the longest 4n+1, the lengths that the video model's codec takes.
    """
    count = frame_index_16fps(stream, start_pts, end_pts)
    return trim_4n1(count) if trim else count


def trim_4n1(count: int) -> int:
    """The largest 4n+1 that is not above `count`; 0 for 0."""
    return (count - 1) // 4 * 4 + 1 if count > 0 else 0


def source_of_output(
    stream: Row, clip_start_pts: int, pts: Sequence[int] | np.ndarray, count: int
) -> np.ndarray:
    """For each of `count` output frames, the position in `pts` of the source frame it shows.

    Args:
        stream: `curation.rows.STREAM` values (for the time base).
        clip_start_pts: timestamp of the clip's first frame.
        pts: ascending timestamps of the clip's source frames.
        count: number of output frames.

    Returns:
        int64 [count].
    """
    firsts = [frame_index_16fps(stream, clip_start_pts, int(p)) for p in pts]
    shown = np.searchsorted(np.asarray(firsts, dtype=np.int64), np.arange(count), side="right") - 1
    return np.maximum(shown, 0)
