"""Single frames from all over a film: as little is decoded as can be."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import av
import numpy as np
from av.container import InputContainer

from curation.engine.stage import BadInput, Row
from curation.video.decode import BIDIRECTIONAL, PREDICTED, can_seek, decode_span, open_video
from curation.video.packets import read_packets

Counter = Callable[[int], None]
"""Told of frames as they are decoded."""


def key_times(path: str, stream: Row) -> list[int]:
    """Times of the key frames of a film, ascending, in ticks; its packets are read, nothing is decoded.

    Raises:
        BadInput: the file cannot be opened.
    """
    with open_video(path) as container:
        packets = read_packets(container, container.streams[stream["stream_index"]])
    return np.unique(packets.pts[packets.key]).tolist()


def pick(keys: Sequence[int], start_pts: int, end_pts: int, number: int) -> list[int]:
    """Times of up to `number` frames that stand for a span and are cheap to decode.

    Of the key frames inside the span those nearest to the middles of `number` equal parts, each once; the
    middle of the span where it holds no key frame.

    Args:
        keys: times of the film's key frames, ascending.
        start_pts: first tick of the span.
        end_pts: tick after it.
        number: at least 1.
    """
    inside = keys[bisect_left(keys, start_pts) : bisect_left(keys, end_pts)]
    length = end_pts - start_pts
    if not inside:
        return [start_pts + length // 2]
    middles = [start_pts + length * (2 * k + 1) / (2 * number) for k in range(number)]
    return sorted({min(inside, key=lambda pts: abs(pts - middle)) for middle in middles})


def frames_at(
    path: str, stream: Row, times: Sequence[int], keys: Sequence[int], count: Counter
) -> Iterator[tuple[int, av.VideoFrame]]:
    """The frames on screen at ascending times, with their positions; what cannot be decoded is left out.

    A seek and one decoded frame for a time of a key frame; otherwise what lies between it and the key frame
    before is decoded as well. A film in which seeks cannot be trusted is decoded once from its start.

    Args:
        path: of the film.
        stream: `curation.rows.STREAM` values.
        times: in ticks.
        keys: times of the film's key frames, ascending.
        count: told of every frame that is decoded.

    Raises:
        BadInput: the file cannot be opened.
    """
    if not can_seek(stream):
        yield from _in_one_pass(path, stream, times, count)
        return
    known = set(keys)
    with open_video(path) as container:
        video: Any = container.streams[stream["stream_index"]]
        video.codec_context.thread_count = 1
        for position, pts in enumerate(times):
            frame = _key_frame(container, video, pts, count) if pts in known else None
            if frame is None:
                frame = _walked(path, stream, pts, keys, count)
            if frame is not None and not frame.is_corrupt:
                yield position, frame


def _key_frame(container: InputContainer, video: Any, pts: int, count: Counter) -> av.VideoFrame | None:
    """The intra frame of the key packet at `pts`, decoded alone; None if it is not whole by itself."""
    try:
        container.seek(pts, stream=video, backward=True)
        for packet in container.demux(video):
            if packet.pts == pts and packet.is_keyframe:
                frames = [*packet.decode(), *video.codec_context.decode(None)]
                count(len(frames))
                whole = [f for f in frames if f.pts == pts and f.pict_type not in (PREDICTED, BIDIRECTIONAL)]
                return whole[0] if whole else None
            if packet.dts is not None and packet.dts > pts:
                return None  # the seek landed behind it
    except av.error.FFmpegError:
        pass
    return None


def _walked(path: str, stream: Row, pts: int, keys: Sequence[int], count: Counter) -> av.VideoFrame | None:
    """The last frame from the key frame before `pts` on."""
    before = bisect_right(keys, pts)
    start, shown = keys[before - 1] if before else stream["first_pts"], None
    try:
        for frame in decode_span(path, stream, start, pts + 1):
            count(1)
            shown = frame
    except BadInput:
        return None  # that the file can be opened is known by now
    return shown


def _in_one_pass(
    path: str, stream: Row, times: Sequence[int], count: Counter
) -> Iterator[tuple[int, av.VideoFrame]]:
    shown, position = None, 0
    frames = decode_span(path, stream, stream["first_pts"], None, on_error=lambda error: None)
    for frame in frames:
        count(1)
        while position < len(times) and frame.pts is not None and frame.pts > times[position]:
            if shown is not None and not shown.is_corrupt:
                yield position, shown
            position += 1
        if position == len(times):
            return
        shown = frame
    if shown is not None and not shown.is_corrupt:
        yield from ((p, shown) for p in range(position, len(times)))
