"""Decode exact spans of a film: frames are chosen by presentation timestamp, never by index over rate."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import av
import numpy as np
from av.container import InputContainer

from curation.engine.stage import BadInput, Row

PREDICTED, BIDIRECTIONAL = 2, 3  # AVPictureType
PROGRAM_STREAM = "mpeg"
"""FFmpeg's name of MPEG program streams. They have no index, a seek lands up to a group of pictures late, and
the first key frame after it may come under the time of another frame; from the second on all is right, which
`curation.video.packets.seeks_exactly` proves for each film before a seek is trusted."""
ROTATE = {0: 0, 90: 1, 180: 2, 270: 3}  # degrees counter-clockwise -> quarter turns of np.rot90


@contextmanager
def open_video(path: str) -> Iterator[InputContainer]:
    """Open a local file, or a URL through fsspec.

    Raises:
        BadInput: the file cannot be read or is no media file.
    """
    file = None
    try:
        if "://" in path:
            import fsspec

            file = fsspec.open(path, "rb").open()
        container = av.open(file or path, mode="r")
    except (av.error.FFmpegError, OSError, ValueError) as error:
        if file is not None:
            file.close()
        raise BadInput("cannot_open", f"{path}: {first_line(error)}") from error
    try:
        yield container
    finally:
        container.close()
        if file is not None:
            file.close()


def decode_span(
    path: str,
    stream: Row,
    start_pts: int,
    end_pts: int | None,
    *,
    threads: int = 1,
    options: dict[str, str] | None = None,
    on_error: Callable[[Exception], None] | None = None,
) -> Iterator[av.VideoFrame]:
    """Frames with start_pts <= pts < end_pts in presentation order.

    Args:
        path: of the film.
        stream: `curation.rows.STREAM` values.
        start_pts: in ticks of the stream's time base; the decoder starts at the key frame before it.
        end_pts: half-open end, or None for the rest of the film.
        threads: decoder threads.
        options: decoder options, e.g. {"skip_loop_filter": "all"}.
        on_error: called with the error of a packet that cannot be decoded, after which decoding goes
            on; without it such a packet ends the decoding.

    Raises:
        BadInput: the file cannot be opened, or a packet cannot be decoded and there is no `on_error`.
    """
    with open_video(path) as container:
        video = container.streams[stream["stream_index"]]
        context: Any = video.codec_context
        context.thread_count, context.thread_type = threads, "AUTO"
        if options:
            context.options = options
        try:
            for frame in _from(container, video, (start_pts, end_pts), stream, on_error):
                if frame.pts is None:
                    continue
                if end_pts is not None and frame.pts >= end_pts:
                    return
                yield frame
        except av.error.FFmpegError as error:
            raise BadInput("cannot_decode", f"{path}: {first_line(error)}") from error


def _from(
    container: InputContainer,
    video: Any,
    span: tuple[int, int | None],
    stream: Row,
    on_error: Callable[[Exception], None] | None,
) -> Iterator[av.VideoFrame]:
    """Frames with pts >= the start of the span, decoded from far enough back to be whole.

    Seeking goes by decoding times and may land late, and streams with intra refresh are whole only a
    refresh after where they can be entered; so what comes out is checked, and the seek repeated further
    back.
    """
    second = max(1, stream["time_base_den"] // stream["time_base_num"])
    (start_pts, end_pts), back = span, 0
    while True:
        target = start_pts - back
        from_start = target <= stream["first_pts"] or not can_seek(stream)
        if not from_start:
            container.seek(target, stream=video, backward=True)
        elif back:
            _rewind(container, video, stream["first_pts"], second)
        frames = _decoded(container, video, end_pts, on_error)
        intra_is_whole = stream["container"] != PROGRAM_STREAM
        first = _first_whole(frames, start_pts, trust=from_start, intra_is_whole=intra_is_whole)
        if first is None and not from_start:
            back = max(2 * back, second)
            continue
        if first is not None:
            yield first
        yield from frames
        return


def _rewind(container: InputContainer, video: Any, first_pts: int, second: int) -> None:
    """Seek to the start. Some demuxers refuse times before their first entry, others land after it."""
    try:
        container.seek(first_pts - second, stream=video, backward=True)
    except av.error.FFmpegError:
        container.seek(first_pts, stream=video, backward=True)


def can_seek(stream: Row) -> bool:
    """Whether decoding may begin elsewhere than at the start of the file."""
    return stream["container"] != PROGRAM_STREAM or bool(stream.get("seeks_exactly"))


def _first_whole(
    frames: Iterator[av.VideoFrame], start_pts: int, *, trust: bool, intra_is_whole: bool
) -> av.VideoFrame | None:
    """The first frame with pts >= start_pts, or None if it cannot be relied on.

    Args:
        frames: from where the container stands.
        start_pts: of the span.
        trust: the container stands at its start.
        intra_is_whole: the first entry will do if it is an intra frame; otherwise the second is waited for.
    """
    entries, is_whole = 0, trust
    for frame in frames:
        if frame.pts is None:
            continue
        if frame.pts <= start_pts and frame.key_frame:
            entries += 1
            is_intra = frame.pict_type not in (PREDICTED, BIDIRECTIONAL)
            is_whole = is_whole or entries > 1 or (is_intra and intra_is_whole)
        if frame.pts >= start_pts:
            return frame if is_whole else None
    return None


def _decoded(
    container: InputContainer,
    video: Any,
    end_pts: int | None,
    on_error: Callable[[Exception], None] | None,
) -> Iterator[av.VideoFrame]:
    """Frames from where the container stands; some may come at or after `end_pts`."""
    try:
        for packet in container.demux(video):
            # No packet is shown before it is decoded: from here on all are past the end.
            if end_pts is not None and packet.dts is not None and packet.dts >= end_pts:
                break
            try:
                frames = packet.decode()
            except av.error.FFmpegError as error:
                if on_error is None:
                    raise
                on_error(error)
                continue
            yield from frames
        else:
            return  # the last packet of a file flushes the decoder
        yield from video.codec_context.decode(None)
    except av.error.FFmpegError as error:  # the container itself is torn here
        if on_error is None:
            raise
        on_error(error)


def decode_at(
    path: str, stream: Row, pts: Sequence[int], *, threads: int = 1
) -> Iterator[tuple[int, av.VideoFrame]]:
    """The frame on screen at each of the ascending times `pts`, with its position in `pts`.

    The frame on screen at t is the last one with pts <= t. One pass from the first time to the last.
    """
    if not len(pts):
        return
    wanted, i, shown = list(pts), 0, None
    for frame in decode_span(path, stream, wanted[0], None, threads=threads):
        assert frame.pts is not None
        while i < len(wanted) and shown is not None and frame.pts > wanted[i]:
            yield i, shown
            i += 1
        if i == len(wanted):
            return
        shown = frame
    while i < len(wanted) and shown is not None:
        yield i, shown
        i += 1


def to_bgr(frame: av.VideoFrame, stream: Row, size: tuple[int, int] | None = None) -> np.ndarray:
    """The picture as uint8 [H, W, 3] BGR, rotation applied.

    Args:
        frame: a decoded frame.
        stream: `curation.rows.STREAM` values (for the rotation).
        size: (height, width) after rotation; source size if None. Scaled in YUV before conversion.
    """
    return upright(frame, stream, size, "bgr24")


def upright(frame: av.VideoFrame, stream: Row, size: tuple[int, int] | None, pix_fmt: str) -> np.ndarray:
    """The picture in any packed 8-bit format, e.g. uint8 [H, W, 3] for rgb24; otherwise as `to_bgr`."""
    turns = ROTATE[stream["rotation"]]
    if size is not None:
        height, width = size if turns % 2 == 0 else size[::-1]
        frame = frame.reformat(width=width, height=height, format=pix_fmt, interpolation="AREA")
    picture = frame.to_ndarray(format=pix_fmt)
    return np.ascontiguousarray(np.rot90(picture, turns)) if turns else picture


def fit_size(stream: Row, max_side: int) -> tuple[int, int]:
    """(height, width) of the film's picture with square source pixels, longest side <= max_side, even."""
    scale = min(1.0, max_side / max(stream["height"], stream["width"]))
    height, width = stream["height"] * scale, stream["width"] * scale
    return max(2, round(height / 2) * 2), max(2, round(width / 2) * 2)


def seconds(stream: Row, pts: int) -> float:
    """Seconds since the film's first frame."""
    ticks = pts - stream["first_pts"]
    return ticks * stream["time_base_num"] / stream["time_base_den"]


def ticks(stream: Row, time_s: float) -> int:
    """The timestamp, in ticks, of a time in seconds since the film's first frame (rounded)."""
    return stream["first_pts"] + round(time_s * stream["time_base_den"] / stream["time_base_num"])


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its type when it has none."""
    return (str(error).splitlines() or [type(error).__name__])[0]
