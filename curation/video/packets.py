"""The packets of a video stream: times and key frames, read without decoding anything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import av
import numpy as np
from av.container import InputContainer

from curation.engine.stage import Row
from curation.video.decode import can_seek

PROBES = 8
FOLLOWED = 60  # packets that are compared after a seek
VFR_SHARE = 0.005  # a dropped frame here and there is no variable frame rate


@dataclass
class Packets:
    """The shown packets of a stream in file order.

    Attributes:
        pts, duration: in ticks; duration 0 where unknown.
        key: whether decoding can start there.
        encrypted: whether any packet is.
        unstamped: packets without a presentation time.
        broken: reading stopped with an error.
    """

    pts: np.ndarray
    duration: np.ndarray
    key: np.ndarray
    encrypted: bool = False
    unstamped: int = 0
    broken: bool = False

    def __len__(self) -> int:
        return len(self.pts)


def read_packets(container: InputContainer, video: Any) -> Packets:
    """Read every packet of a stream from where the container stands; nothing is decoded."""
    rows: list[tuple[int, int, bool]] = []
    encrypted, unstamped, broken = False, 0, False
    try:
        for packet in container.demux(video):
            if packet.size == 0 or packet.is_discard:
                continue
            if not rows:
                encrypted = packet.has_sidedata("encryption_info") or packet.has_sidedata(
                    "encryption_init_info"
                )
            if packet.pts is None:
                unstamped += 1
            else:
                rows.append((packet.pts, packet.duration or 0, packet.is_keyframe))
    except av.error.FFmpegError:
        broken = True  # how much is missing is judged by the declared duration
    table = np.array(rows, dtype=np.int64).reshape(-1, 3)
    return Packets(table[:, 0], table[:, 1], table[:, 2] > 0, encrypted, unstamped, broken)


def is_vfr(steps: np.ndarray) -> bool:
    """Whether frame durations (in ticks, presentation order) vary by more than rounding to ticks."""
    if not len(steps):
        return False
    usual = np.median(steps)
    odd = np.abs(steps - usual) > max(1.0, 0.1 * usual)
    return bool(odd.mean() > VFR_SHARE)


def seeks_exactly(container: InputContainer, video: Any, packets: Packets, times: Sequence[int]) -> bool:
    """Whether seeks find the packets that reading from the start gives, from the second key frame on.

    Nothing is decoded.

    Args:
        container: open; where it stands does not matter.
        video: the stream.
        packets: all of it, read from the start.
        times: to seek to, in ticks; `PROBES` even places among the key frames are tried besides.
    """
    place = {int(pts): i for i, pts in enumerate(packets.pts)}
    if len(place) < len(packets) or packets.unstamped or packets.broken:
        return False
    keys = np.sort(packets.pts[packets.key])
    probes = keys[np.linspace(0, len(keys) - 1, PROBES).astype(int)].tolist() if len(keys) else []
    try:
        return all(_arrives(container, video, packets, place, time) for time in [*times, *probes])
    except av.error.FFmpegError:
        return False


def _arrives(
    container: InputContainer, video: Any, packets: Packets, place: dict[int, int], time: int
) -> bool:
    """Whether the packets after a seek to `time` follow one another as they do in the file."""
    container.seek(time, stream=video, backward=True)
    entries, checked, expected = 0, 0, None
    for packet in container.demux(video):
        if packet.size == 0 or packet.is_discard:
            continue
        entries += packet.is_keyframe
        if entries < 2:
            continue
        at = place.get(packet.pts) if packet.pts is not None else None
        if at is None or bool(packets.key[at]) != packet.is_keyframe or expected not in (None, at):
            return False
        expected, checked = at + 1, checked + 1
        if checked == FOLLOWED:
            return True
    return True  # the end of the file: `decode_span` goes further back if it found no entry


def segments(packets: Packets, stream: Row, segment_s: float) -> list[Row]:
    """Spans that start at key frames and tile the film, each at least `segment_s` long but the last.

    Frames shown before a key frame but stored after it (open groups of pictures) belong to the span
    before, whose decoder simply goes on past the key frame.
    """
    tick_s = stream["time_base_num"] / stream["time_base_den"]
    length = max(1, round(segment_s / tick_s))
    starts = [stream["first_pts"]]
    keys = packets.pts[packets.key] if can_seek(stream) else packets.pts[:0]
    for pts in np.sort(keys):
        if pts >= starts[-1] + length:
            starts.append(int(pts))
    ends = [*starts[1:], None]
    return [
        {"index": i, "start_pts": s, "end_pts": e} for i, (s, e) in enumerate(zip(starts, ends, strict=True))
    ]
