"""Frames through decord instead of PyAV, for stages that look at some of a span's frames as RGB.

decord hands out frames by their place in presentation order. Which timestamp a place has is taken from the
packets and checked against decord's own times, and the first picture of a span against PyAV's, so that no
frame comes under another one's timestamp: in AVI, transport and program streams decord 0.6 lands up to a
group of pictures away from where it was sent, and these are refused. A picture is made only when it is asked
for; frames in between are decoded but not converted.

decord's pictures are RGB at source size, bit for bit those of PyAV. Scaling happens after the conversion
instead of before, which changes small pictures by one to two of 256 levels in the mean. It gives no YUV, so
what is encoded again does not come from it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from curation.engine.stage import BadInput, Row
from curation.optional import require
from curation.video.decode import decode_span, first_line, open_video, to_bgr
from curation.video.packets import read_packets

CONTAINERS = ("mp4", "matroska")
SAME = 1.5  # mean difference of two decodings of one picture, of 256 levels; interlaced and 10-bit have 0.7
REASON = "decord_cannot"
HELP = "set analyse.decoder to pyav for this film"


@contextmanager
def _refusal() -> Iterator[None]:
    """Turn decord's errors into one line. It raises plain RuntimeErrors too."""
    decord = require("decord", extra="decord")
    try:
        yield
    except (decord.DECORDError, decord.DECORDLimitReachedError, RuntimeError) as error:
        raise BadInput(REASON, f"decord: {first_line(error)}; {HELP}") from error


class LazyFrame:
    """A frame that is converted when its picture is wanted; has what `curation.video.decode.to_bgr` uses."""

    def __init__(self, reader: Any, place: int, pts: int) -> None:
        self._reader, self._place, self.pts = reader, place, pts

    def _picture(self) -> Any:
        import av

        with _refusal():
            return av.VideoFrame.from_ndarray(self._reader[self._place].asnumpy(), format="rgb24")

    def reformat(self, **wanted: Any) -> Any:
        """The picture in another size or format, an `av.VideoFrame`."""
        return self._picture().reformat(**wanted)

    def to_ndarray(self, **wanted: Any) -> np.ndarray:
        """The picture as an array, as `av.VideoFrame.to_ndarray`."""
        return self._picture().to_ndarray(**wanted)


def decord_span(path: str, stream: Row, start_pts: int, end_pts: int | None) -> Iterator[LazyFrame]:
    """Frames with start_pts <= pts < end_pts in presentation order, as `decode_span` gives them.

    Raises:
        MissingExtra: decord is not installed.
        BadInput: decord cannot read the film, or reads it as another one than PyAV does.
    """
    decord = require("decord", extra="decord")
    decord.logging.set_level(decord.logging.QUIET)
    pts = _presented(path, stream)
    with _refusal():
        reader = decord.VideoReader(path, ctx=decord.cpu(0), num_threads=1)
        _check(reader, stream, pts)
    first = int(np.searchsorted(pts, start_pts))
    end = len(pts) if end_pts is None else int(np.searchsorted(pts, end_pts))
    if first < end:
        _check_picture(LazyFrame(reader, first, int(pts[first])), path, stream)
    for place in range(first, end):
        yield LazyFrame(reader, place, int(pts[place]))


def _presented(path: str, stream: Row) -> np.ndarray:
    """Timestamps of the film's frames in presentation order, int64 [N]."""
    if "://" in path:
        raise BadInput(REASON, f"decord does not read films behind URLs; {HELP}")
    if not any(name in stream["container"].split(",") for name in CONTAINERS):
        raise BadInput(REASON, f"decord does not seek exactly in {stream['container']} files; {HELP}")
    if stream["rotation"]:
        raise BadInput(REASON, f"decord does not turn rotated films; {HELP}")
    with open_video(path) as container:
        best = container.streams.best("video")
        if best is None or best.index != stream["stream_index"]:
            raise BadInput(REASON, f"decord would take another video stream; {HELP}")
        packets = read_packets(container, best)
    return np.unique(packets.pts[packets.pts >= stream["first_pts"]])


def _check_picture(frame: Any, path: str, stream: Row) -> None:
    """Refuse unless PyAV has the same picture at this time."""
    reference = next(decode_span(path, stream, frame.pts, None), None)
    if reference is None or reference.pts != frame.pts:
        raise BadInput(REASON, f"PyAV has no frame where decord has one; {HELP}")
    apart = np.abs(to_bgr(reference, stream).astype(np.int16) - to_bgr(frame, stream)).mean()
    if apart > SAME:
        raise BadInput(REASON, f"decord shows another picture than PyAV (differs by {apart:.1f}); {HELP}")


def _check(reader: Any, stream: Row, pts: np.ndarray) -> None:
    """Refuse unless decord sees the same frames at the same times."""
    if len(reader) != len(pts):
        raise BadInput(REASON, f"decord counts {len(reader)} frames, not {len(pts)}; {HELP}")
    size = reader[0].shape[:2]
    if size != (stream["height"], stream["width"]):
        raise BadInput(
            REASON, f"decord sees {size[1]}x{size[0]}, not {stream['width']}x{stream['height']}; {HELP}"
        )
    begins = reader.get_frame_timestamp(np.arange(len(pts)))[:, 0].astype(np.float64)
    tick_s = stream["time_base_num"] / stream["time_base_den"]
    apart = np.abs((begins - begins[0]) - (pts - pts[0]) * tick_s)
    if apart.max() > 0.4 * np.diff(pts).min(initial=1) * tick_s + 1e-3:
        raise BadInput(REASON, f"decord shows frames up to {apart.max():.3f} s from where they are; {HELP}")
