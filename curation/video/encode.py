"""Encode spans of a film straight to the trainer's form: H.264, 16 fps, one fixed size, BT.709.

Pictures stay YUV from decoder to encoder: turn, crop, scale once, mend the colours. Lanczos with
accurate rounding kept the most of real footage in both directions (43.6 dB to an ideal down-scale,
39.0 dB to the truth after an up-scale; area 43.0 and 38.3, bicubic 43.3 and 38.8) at 0.8 ms a frame.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.filter import Graph
from av.video.reformatter import ColorRange, Colorspace

from curation.engine.stage import BadInput, Row
from curation.timing import FPS, frame_index_16fps

TICK = Fraction(1, FPS)
BT709, UNSPECIFIED, BT2020_PRIMARIES = 1, 2, 9
FULL_RANGE, LIMITED_RANGE = 2, 1
MATRICES = {
    1: "bt709",
    4: "fcc",
    5: "bt470bg",
    6: "smpte170m",
    7: "smpte240m",
    9: "bt2020ncl",
    10: "bt2020ncl",
}
"""Names of FFmpeg's `colorspace` filter for the matrices of ITU-T H.273, table 4."""
SWSCALE_NAMES = {"bt2020ncl": "bt2020"}
TURNS = {
    0: (),
    90: (("transpose", "cclock"),),
    180: (("hflip", ""), ("vflip", "")),
    270: (("transpose", "clock"),),
}


@dataclass(frozen=True, kw_only=True)
class Look:
    """How a source frame becomes a frame of the clip.

    Attributes:
        stream: `curation.rows.STREAM` values.
        crop: x, y, width, height in source pixels (after rotation).
        height, width: of the result.
    """

    stream: Row
    crop: tuple[int, int, int, int]
    height: int = 480
    width: int = 832

    def steps(self, frame: av.VideoFrame) -> list[tuple[str, str]]:
        """Filters with their arguments for frames like this one."""
        x, y, width, height = self.crop
        steps = list(TURNS[self.stream["rotation"]])
        steps.append(("crop", f"{width}:{height}:{x}:{y}:exact=1"))
        scale = f"{self.width}:{self.height}:flags=lanczos+accurate_rnd+bitexact:out_range=tv"
        matrix = matrix_of(frame)
        if frame.format.is_rgb:
            steps.append(("scale", f"{scale}:out_color_matrix=bt709"))
        else:  # equal matrices on both sides keep swscale from going through RGB for them
            same = SWSCALE_NAMES.get(matrix, matrix)
            steps.append(("scale", f"{scale}:in_color_matrix={same}:out_color_matrix={same}"))
        steps += [("setsar", "1"), ("format", "yuv420p")]
        if matrix != "bt709" and not frame.format.is_rgb:
            steps.append(("colorspace", _to_bt709(frame, matrix)))
        return steps


def matrix_of(frame: av.VideoFrame) -> str:
    """Name of the YUV matrix of a frame; what players assume by size where the film does not say."""
    known = MATRICES.get(_tag(frame.colorspace))
    if known:
        return known
    return "smpte170m" if frame.width < 1280 and frame.height <= 576 else "bt709"


def _tag(value: Any) -> int:
    return int(value) if value is not None else UNSPECIFIED


def _to_bt709(frame: av.VideoFrame, matrix: str) -> str:
    # Primaries of standard definition differ too little from BT.709's for anyone to convert them.
    primaries = "bt2020" if _tag(frame.color_primaries) == BT2020_PRIMARIES else "bt709"
    return (
        f"space=bt709:ispace={matrix}:primaries=bt709:iprimaries={primaries}"
        ":trc=bt709:itrc=bt709:range=tv:irange=tv:format=yuv420p"
    )


class FilterChain:
    """One frame in, one frame out through FFmpeg filters, rebuilt when the frames change their form.

    Args:
        steps: gives the filters, as names and arguments, for frames like the given one.
    """

    def __init__(self, steps: Callable[[av.VideoFrame], list[tuple[str, str]]]) -> None:
        self._steps = steps
        self._graph: Graph | None = None
        self._form: tuple[Any, ...] = ()

    def __call__(self, frame: av.VideoFrame) -> av.VideoFrame:
        """The frame after all filters."""
        form = (frame.width, frame.height, frame.format.name, frame.colorspace, frame.color_range)
        if form != self._form:
            self._graph, self._form = _graph(frame, self._steps(frame)), form
        assert self._graph is not None
        self._graph.push(frame)
        picture: Any = self._graph.pull()
        return picture


def _graph(frame: av.VideoFrame, steps: list[tuple[str, str]]) -> Graph:
    graph = Graph()
    if hasattr(graph, "threads"):  # older PyAV has no say in it; the pixels are the same
        graph.threads = 1
    last: Any = graph.add_buffer(
        width=frame.width,
        height=frame.height,
        format=frame.format,
        time_base=frame.time_base or TICK,
    )
    try:
        for name, arguments in [*steps, ("buffersink", "")]:
            following = graph.add(name, arguments or None)
            last.link_to(following)
            last = following
        graph.configure()
    except (av.error.FFmpegError, ValueError) as error:
        chain = ",".join(f"{n}={a}" if a else n for n, a in steps)
        raise BadInput(
            "cannot_convert", f"FFmpeg {frame.format.name} {frame.width}x{frame.height}: {chain}: {error}"
        ) from error
    return graph


def deinterlaced(frames: Iterable[av.VideoFrame]) -> Iterator[av.VideoFrame]:
    """The same number of frames with the same timestamps, interlaced ones made progressive (bwdif).

    Give it the frames of one shot only: the filter looks at the frames before and after.
    """
    graph = None
    waiting: list[tuple[Any, Any]] = []
    for frame in frames:
        if graph is None:
            graph = _graph(frame, [("bwdif", "mode=send_frame:deint=interlaced")])
        waiting.append((frame.pts, frame.time_base))
        graph.push(frame)
        yield from _ready(graph, waiting)
    if graph is not None:
        graph.push(None)
        yield from _ready(graph, waiting)


def _ready(graph: Graph, waiting: list[tuple[Any, Any]]) -> Iterator[av.VideoFrame]:
    while waiting:
        try:
            frame: Any = graph.pull()
        except (av.error.BlockingIOError, av.error.EOFError):
            return
        # The filter counts in a time base of its own; frames come out in the order they went in.
        frame.pts, frame.time_base = waiting.pop(0)
        yield frame


def at_16fps(
    frames: Iterable[Any], stream: Row, start_pts: int, count: int
) -> Iterator[tuple[av.VideoFrame, int]]:
    """The source frames that an exported clip shows, each with how many output frames in a row show it.

    Args:
        frames: of the clip, in presentation order.
        stream: `curation.rows.STREAM` values.
        start_pts: timestamp of the clip's first frame.
        count: number of output frames; the last source frame fills up to it.
    """
    shown: av.VideoFrame | None = None
    done = 0
    for frame in frames:
        until = min(count, frame_index_16fps(stream, start_pts, frame.pts))
        if shown is not None and until > done:
            yield shown, until - done
            done = until
        if done == count:
            return
        shown = frame
    if shown is not None and count > done:
        yield shown, count - done


def write_h264(path: Path, frames: Iterable[tuple[av.VideoFrame, int]], *, crf: int, preset: str) -> int:
    """Write yuv420p frames as an MP4 of 16 frames a second; the same frames give the same bytes.

    No B-frames, so frame k lies at exactly k/16 s for every reader, edit lists understood or not;
    one thread and `cpu-independent`, so the bytes do not depend on the machine; no dates and no
    version tags in the container.

    Args:
        path: of the file.
        frames: equal in size, each with how many times in a row it is written.
        crf: constant rate factor of x264.
        preset: of x264.

    Returns:
        The number of frames written.

    Raises:
        OSError: the file cannot be written.
    """
    options = {"movflags": "+faststart", "fflags": "+bitexact"}
    tuning = "cpu-independent=1:bframes=0:keyint=64"
    written, video = 0, None
    with av.open(str(path), "w", format="mp4", options=options) as container:
        for frame, times in frames:
            if video is None:
                settings = {"crf": str(crf), "preset": preset, "x264-params": tuning}
                video = container.add_stream("libx264", rate=FPS, options=settings)
                _describe(video, frame)
            frame.pict_type, frame.time_base = 0, TICK  # x264 chooses its own types
            for _ in range(times):
                frame.pts = written
                container.mux(video.encode(frame))
                written += 1
        if video is not None:
            container.mux(video.encode(None))
    return written


def _describe(video: Any, frame: av.VideoFrame) -> None:
    context = video.codec_context
    context.width, context.height, context.pix_fmt = frame.width, frame.height, "yuv420p"
    context.time_base, context.thread_count = TICK, 1
    context.color_range, context.colorspace = LIMITED_RANGE, BT709
    known = {
        name: value if (value := _tag(getattr(frame, name))) != UNSPECIFIED and value else BT709
        for name in ("color_primaries", "color_trc")
    }
    context.color_primaries, context.color_trc = known["color_primaries"], known["color_trc"]


def luma_blocks(frame: av.VideoFrame, block: int = 16) -> np.ndarray:
    """Mean luma of blocks of a planar YUV frame: float32 [H // block, W // block]."""
    plane: Any = frame.planes[0]
    rows, columns = frame.height // block, frame.width // block
    luma = np.frombuffer(plane, np.uint8).reshape(frame.height, plane.line_size)
    luma = luma[: rows * block, : columns * block]
    tall = luma.reshape(rows, block, -1).sum(axis=1, dtype=np.uint16)
    sums = tall.reshape(rows, columns, block).sum(axis=2, dtype=np.uint32)
    return sums.astype(np.float32) / np.float32(block * block)


def rgb_picture(frame: av.VideoFrame, size: tuple[int, int] | None = None) -> np.ndarray:
    """A frame of a clip as uint8 [H, W, 3] RGB, converted from limited-range BT.709.

    Args:
        frame: 4:2:0, as it is encoded.
        size: (height, width) to scale to, averaging; None keeps the frame's.
    """
    scaled: dict[str, Any] = {"height": size[0], "width": size[1], "interpolation": "AREA"} if size else {}
    picture = frame.reformat(
        **scaled,
        format="rgb24",
        src_colorspace=Colorspace.ITU709,
        src_color_range=ColorRange.MPEG,
        dst_color_range=ColorRange.JPEG,
    )
    return picture.to_ndarray()
