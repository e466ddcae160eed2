"""Prove that an exported clip holds what was sent to the encoder, and only frames of its own shot."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from curation.timing import FPS
from curation.video.encode import luma_blocks

MAX_CODING_ERROR = 4.0
"""Mean absolute error of 16x16 luma means that coding may cause; at crf 17 it stays under 1."""
MIN_JUMP = 6.0
"""Mean absolute luma difference below which two frames are taken for one shot whatever the rest does."""
EDGE_FRAMES = 2
"""Frames at each end of a clip that are examined."""


def check_file(path: Path, sent: np.ndarray, height: int, width: int) -> str | None:
    """Decode a clip fully and compare it with the frames that went into it.

    Args:
        path: of the file.
        sent: float32 [N, h, w], `luma_blocks` of the N frames that were encoded.
        height: expected, pixels.
        width: expected, pixels.

    Returns:
        What is wrong, or None.
    """
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                return "the file has no video"
            video = container.streams.video[0]
            if (video.height, video.width) != (height, width):
                return f"the file is {video.width}x{video.height}, not {width}x{height}"
            if video.average_rate != FPS or video.frames != len(sent):
                stated = f"{video.frames} frames at {video.average_rate} fps"
                return f"the file says {stated}, not {len(sent)} at {FPS}"
            return _check_frames(container.decode(video), sent)
    except av.error.FFmpegError as error:
        return f"the file does not decode: {error}"


def _check_frames(frames: Any, sent: np.ndarray) -> str | None:
    count = 0
    for frame in frames:
        if count == len(sent) or frame.pts * frame.time_base != Fraction(count, FPS):
            return f"frame {count} comes at {frame.pts * frame.time_base} s, not {count}/{FPS} s"
        if frame.is_corrupt:
            return f"frame {count} is corrupt"
        error = float(np.abs(luma_blocks(frame) - sent[count]).mean())
        if error > MAX_CODING_ERROR:
            return f"frame {count} is not the one that was encoded (luma differs by {error:.1f})"
        count += 1
    return None if count == len(sent) else f"{count} frames decode, not {len(sent)}"


def foreign_edge(frames: np.ndarray, neighbour: np.ndarray | None) -> bool:
    """Whether one of the first frames belongs to the shot before.

    There is a cut after a foreign frame and none before it: it is unlike the frame after it, beyond what
    moves in the clip, and like the film's frame just outside the clip. A flash is unlike both.

    Args:
        frames: [N, h, w], small luma pictures of a clip from the examined end inwards, 0..255.
        neighbour: [h, w], of the film's frame just outside the clip, or None at the film's ends.

    Planted frames at 208 cuts of four real and two made films (clips of a second and more, one or two frames
    over the cut): 206 were found in the scan's thumbnails of 18x32, where the neighbour was decoded without
    the in-loop filter, and as many in means of 16x16 source pixels; no clip with right edges was accused.
    """
    if neighbour is None or len(frames) < EDGE_FRAMES + 2:
        return False
    frames, neighbour = frames.astype(np.float32), neighbour.astype(np.float32)
    steps = np.abs(np.diff(frames, axis=0)).mean(axis=(1, 2))
    usual = float(np.median(steps[EDGE_FRAMES:]))
    entry = float(np.abs(neighbour - frames[0]).mean())
    for i in range(EDGE_FRAMES):
        jump = float(steps[i])
        calm_before = max([entry, *steps[:i].tolist()])
        if jump > max(MIN_JUMP, 4 * usual) and calm_before < jump / 3:
            return True
    return False
