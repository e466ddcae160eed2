"""Films for raters: the shots of a story one after the other, and nothing that tells who made them.

Every film is encoded anew with one encoder and one setting (H.264, CRF 12, no visible loss) into a container
without names or dates, without sound, and gets the same time stamp: two methods' files differ in the pictures
alone. Size, frame rate and length stay as the method made them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from benchmark.frames import opened
from benchmark.submission import Clip

CRF = 12
PRESET = "fast"
TIME_BASE = Fraction(1, 90_000)
STAMP_S = 1_577_836_800
"""Time stamp of all files: the beginning of 2020."""


def write_film(clips: Sequence[Clip], path: Path) -> list[int]:
    """Write the shots of a story as one film, whole or not at all.

    Args:
        clips: in order; shots of another size than the first are fitted into its frame, with black borders.
        path: of the film, `.mp4`.

    Returns:
        When each shot begins, milliseconds.

    Raises:
        BadInput: a file cannot be decoded.
        OSError: the film cannot be written.
    """
    import av

    part = path.with_name(f".{path.name}")
    starts: list[int] = []
    options = {"movflags": "+faststart", "fflags": "+bitexact"}
    video, shown = None, Fraction(0)
    try:
        with av.open(str(part), "w", format="mp4", options=options) as container:
            for clip in clips:
                starts.append(round(1000 * shown))
                rate = _rate(clip)
                for frame in _frames(clip):
                    if video is None:
                        video = _stream(container, frame, rate)
                    frame = _fitted(frame, video.width, video.height)
                    frame.pts, frame.time_base = int(shown / TIME_BASE), TIME_BASE
                    container.mux(video.encode(frame))
                    shown += 1 / rate
            if video is not None:
                container.mux(video.encode(None))
        os.utime(part, (STAMP_S, STAMP_S))
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return starts


def _rate(clip: Clip) -> Fraction:
    fps = clip.facts.fps if clip.facts else 16.0
    return Fraction(fps).limit_denominator(1001)


def _stream(container: Any, frame: Any, rate: Fraction) -> Any:
    video = container.add_stream("libx264", rate=rate, options={"crf": str(CRF), "preset": PRESET})
    context = video.codec_context
    context.width, context.height, context.pix_fmt = frame.width, frame.height, "yuv420p"
    context.time_base = TIME_BASE
    for name in ("color_range", "colorspace", "color_primaries", "color_trc"):
        if (value := getattr(frame, name)) is not None:
            setattr(context, name, int(value))
    return video


def _frames(clip: Clip) -> Iterator[Any]:
    """Upright frames of even size, yuv420p."""
    import av

    from curation.video.decode import upright

    stream, frames = opened(clip.path)
    for index, frame in enumerate(frames):
        if clip.end is not None and index >= clip.end:
            return
        if index < clip.start:
            continue
        if stream["rotation"]:
            frame = av.VideoFrame.from_ndarray(upright(frame, stream, None, "rgb24"), format="rgb24")
        width, height = frame.width // 2 * 2, frame.height // 2 * 2
        picture = frame.reformat(width=width, height=height, format="yuv420p")
        picture.pict_type = 0  # x264 chooses its own types
        yield picture


def _fitted(frame: Any, width: int, height: int) -> Any:
    """The frame in the film's size: scaled to fit, centred on black."""
    if (frame.width, frame.height) == (width, height):
        return frame
    import av
    import numpy as np

    scale = min(width / frame.width, height / frame.height)
    small = frame.reformat(
        width=max(2, round(frame.width * scale / 2) * 2),
        height=max(2, round(frame.height * scale / 2) * 2),
        format="rgb24",
    ).to_ndarray()
    picture = np.zeros((height, width, 3), np.uint8)
    top, left = (height - small.shape[0]) // 2, (width - small.shape[1]) // 2
    picture[top : top + small.shape[0], left : left + small.shape[1]] = small
    return av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv420p")
