"""What a file is, read from its packets: the video stream, its clock, and where it can be cut for the scan.

Everything that cannot be curated is refused here by name, with one line that says how to mend it; what can
be handled (variable frame rate, rotation, interlacing, odd sizes...) is handled and noted.
"""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from stat import S_ISREG
from typing import Any

import av
import numpy as np
from av.container import InputContainer
from av.stream import Disposition

from curation.engine.stage import BadInput, Row
from curation.video.decode import PROGRAM_STREAM, can_seek, first_line, open_video
from curation.video.packets import Packets, is_vfr, read_packets, seeks_exactly, segments

Result = tuple[Row, list[Row], list[str]]

NO_PICTURE = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image
STILL_FORMATS = ("image2", "_pipe", "ico", "webp")  # demuxers of still pictures, by part of the name
TEXT_FORMATS = ("tty", "bin", "xbin", "adf", "idf")  # FFmpeg draws text files as ANSI art
PLAYLISTS = ("hls", "dash", "concat", "sdp", "imf")
HDR_TRANSFERS = {16: "PQ", 18: "HLG"}  # ITU-T H.273 transfer characteristics
HDR_TAGS = ("dvh1", "dvhe", "dva1", "dvav")  # Dolby Vision without a compatible base layer
LOOK_AT_FRAMES = 12  # enough to see the reordering of B-frames, which is 4 deep at most in practice
SHORTEST_SEGMENT_S = 5.0  # below that, opening the film again costs more than is won
TONE_MAP = (
    "ffmpeg -i FILM -vf zscale=t=linear:npl=100,tonemap=hable,zscale=p=bt709:t=bt709:m=bt709:r=tv,"
    "format=yuv420p SDR.mp4"
)


def probe(path: str, *, segment_s: float = 60.0, min_segments: int = 1) -> Result:
    """Look at a film without decoding more than its first frames.

    Args:
        path: a local file, or a URL that fsspec opens.
        segment_s: length of the key-frame-aligned segments, seconds; a segment ends at the first key
            frame after it.
        min_segments: a film that would have fewer is cut into shorter ones, down to 5 s.

    Returns:
        (`curation.rows.STREAM` values, list of `curation.rows.SEGMENT` values, notes: one line for
        each thing that was handled).

    Raises:
        BadInput: the file cannot be curated; the reason says why.
    """
    size = _check_file(path)
    try:
        with open_video(path) as container:
            video, notes = choose_stream(container, path)
            looked = _first_frames(container, video, path)
            index = video.index
        with open_video(path) as container:  # again, rather than trust a seek to the very start
            video = container.streams[index]
            packets = read_packets(container, video)
            _check_encryption(packets, path)
            _check_looked(looked, video, path)
            _check_packets(container, video, packets, path, size)
            stream = _stream_row(container, video, packets, looked)
            even_s = max(SHORTEST_SEGMENT_S, stream["duration_s"] / min_segments)
            length_s = min(segment_s, even_s) if min_segments > 1 else segment_s
            spans = segments(packets, stream, length_s)
            if stream["container"] == PROGRAM_STREAM:
                times = [span["start_pts"] for span in spans]
                stream["seeks_exactly"] = seeks_exactly(container, video, packets, times)
                spans = segments(packets, stream, length_s)
            notes += _notes(stream, looked, packets, container)
    except BadInput as bad:
        if bad.reason == "cannot_open":
            raise _why_not_opened(path, bad) from bad
        raise
    return stream, spans, notes


# -- files --------------------------------------------------------------------------------------


def _check_file(path: str) -> int | None:
    if "://" in path:
        return None
    try:
        if os.path.isdir(path):
            raise BadInput("not_a_video", f"{path}: a folder, not a film")
        if not S_ISREG(os.stat(path).st_mode):
            raise BadInput("not_a_video", f"{path}: a pipe, socket or device, not a file")
        size = os.stat(path).st_size
        with open(path, "rb") as file:
            file.read(1)
    except FileNotFoundError as error:
        raise BadInput("not_found", f"{path}: no such file") from error
    except OSError as error:
        raise BadInput("unreadable", f"{path}: {error.strerror}; check permissions and the disk") from error
    if size == 0:
        raise BadInput("empty_file", f"{path}: the file has no bytes; copy it again")
    return size


def _why_not_opened(path: str, bad: BadInput) -> BadInput:
    """Tell a torn MP4 from a file that never was a film."""
    if "://" not in path and _is_torn_mp4(Path(path)):
        return BadInput("truncated", f"{path}: the MP4 ends before its index (moov); copy the film again")
    if "Invalid data" in bad.detail or "Invalid argument" in bad.detail:
        return BadInput("not_a_video", f"{path}: not a media file that FFmpeg knows")
    return bad


def _is_torn_mp4(path: Path) -> bool:
    size, at, seen = path.stat().st_size, 0, set()
    with path.open("rb") as file:
        while at + 8 <= size:
            file.seek(at)
            head = file.read(16)
            length, kind = int.from_bytes(head[:4], "big"), head[4:8]
            if length == 1:
                length = int.from_bytes(head[8:16], "big")
            seen.add(kind)
            if length < 8:
                break
            at += length
    return b"ftyp" in seen and b"moov" not in seen


# -- streams ------------------------------------------------------------------------------------


def choose_stream(container: InputContainer, path: str) -> tuple[Any, list[str]]:
    """The film's picture: the default stream, then the largest; cover art is none.

    Raises:
        BadInput: there is none, or the file is no film at all.
    """
    name = container.format.name
    if name in TEXT_FORMATS:
        raise BadInput("not_a_video", f"{path}: a text file")
    if name in PLAYLISTS:
        raise BadInput("not_a_video", f"{path}: a playlist ({name}); give the media file itself")
    if any(part in name for part in STILL_FORMATS):
        raise BadInput("still_image", f"{path}: a picture ({name}), not a film")
    films = [v for v in container.streams.video if not v.disposition & NO_PICTURE]
    if not films:
        if container.streams.audio:
            raise BadInput("audio_only", f"{path}: sound without a picture")
        raise BadInput("no_video_stream", f"{path}: no video stream in the file")
    usable = [v for v in films if v.codec_context is not None]
    if not usable:
        raise BadInput("unsupported_codec", f"{path}: no decoder for its video; re-encode it (H.264, say)")
    default = Disposition.default
    best = max(usable, key=lambda v: (bool(v.disposition & default), v.width * v.height, -v.index))
    notes = [
        f"video stream {v.index} ({v.width}x{v.height}) ignored" if v in usable
        else f"video stream {v.index} ignored: no decoder"
        for v in films
        if v is not best
    ]  # fmt: skip
    return best, notes


@dataclass
class _Looked:
    """Facts that only decoded frames tell."""

    pts: list[int | None] = field(default_factory=list)
    rotation: int = 0
    interlaced: bool = False
    transfer: int = 2
    size: tuple[int, int] = (0, 0)
    pix_fmt: str = ""
    bit_depth: int = 8


def _first_frames(container: InputContainer, video: Any, path: str) -> _Looked:
    looked = _Looked()
    video.codec_context.thread_count = 1
    try:
        for packet in container.demux(video):
            try:
                frames = packet.decode()
            except av.error.FFmpegError:  # the scan counts decode errors; here one good frame will do
                continue
            for frame in frames:
                if not looked.pts:
                    _note_frame(looked, frame)
                looked.pts.append(frame.pts)
                looked.interlaced |= frame.interlaced_frame
            if len(looked.pts) >= LOOK_AT_FRAMES:
                break
    except (av.error.FFmpegError, OSError) as error:
        if not looked.pts:
            raise BadInput("cannot_decode", f"{path}: {first_line(error)}") from error
    return looked


def _note_frame(looked: _Looked, frame: av.VideoFrame) -> None:
    looked.rotation, looked.transfer = frame.rotation, frame.color_trc
    looked.size, looked.pix_fmt = (frame.height, frame.width), frame.format.name
    looked.bit_depth = max(c.bits for c in frame.format.components)


# -- checks ------------------------------------------------------------------------------------


def _check_encryption(packets: Packets, path: str) -> None:
    if packets.encrypted:
        raise BadInput("encrypted", f"{path}: the film is encrypted; give an unprotected copy")


def _check_looked(looked: _Looked, video: Any, path: str) -> None:
    if not looked.pts:
        raise BadInput("cannot_decode", f"{path}: no frame can be decoded; re-encode the film")
    transfer = HDR_TRANSFERS.get(looked.transfer) or HDR_TRANSFERS.get(video.codec_context.color_trc)
    if transfer or video.codec_tag in HDR_TAGS:
        raise BadInput(
            "hdr_not_supported",
            f"{path}: high dynamic range ({transfer or 'Dolby Vision'}); convert it first: {TONE_MAP}",
        )
    stamps = looked.pts
    known = [s for s in stamps if s is not None]
    if len(known) < len(stamps) or any(b <= a for a, b in itertools.pairwise(known)):
        raise BadInput(
            "broken_timestamps",
            f"{path}: frames without usable presentation times; re-encode it: "
            "ffmpeg -i FILM -c:v libx264 -crf 16 FILM.mkv",
        )


def _check_packets(
    container: InputContainer, video: Any, packets: Packets, path: str, size: int | None
) -> None:
    count = len(packets) + packets.unstamped
    if len(packets) and count < 2:
        raise BadInput("one_frame", f"{path}: a single frame, not a film")
    if len(packets) < 2 or packets.unstamped > count // 2:
        raise BadInput(
            "broken_timestamps",
            f"{path}: packets without presentation times; re-encode it: "
            "ffmpeg -i FILM -c:v libx264 -crf 16 FILM.mkv",
        )
    have_s = float((packets.pts.max() - packets.pts.min()) * video.time_base)
    if size is not None and any(e.pos + e.size > size for e in video.index_entries):
        raise _torn(path, have_s)
    declared = max(video.frames, 0)
    if declared - count > max(2, declared // 50) and _is_short(container, video, packets):
        raise _torn(path, have_s)
    if container.duration and _is_short(container, video, packets):
        raise _torn(path, have_s)


def _torn(path: str, have_s: float) -> BadInput:
    return BadInput(
        "truncated",
        f"{path}: the file ends early, about {have_s:.1f} s of picture are there; copy it again",
    )


def _is_short(container: InputContainer, video: Any, packets: Packets) -> bool:
    """Whether every stream ends well before the duration that the container declares.

    Transport and program streams declare none (FFmpeg derives it from the file), so they never are.
    Times count from 0, not from the first packet: the duration that Matroska declares is its last time.
    """
    declared_s = (container.duration or 0) / av.time_base
    slack_s = max(1.0, 0.02 * declared_s)
    end_s = float(packets.pts.max() * video.time_base)
    if end_s >= declared_s - slack_s:
        return False
    others = [s for s in container.streams if s.type in ("audio", "subtitle")]
    if not others:
        return True
    container.seek(0)
    for packet in container.demux(others):
        if packet.pts is not None:
            end_s = max(end_s, float((packet.pts + (packet.duration or 0)) * packet.time_base))
    return end_s < declared_s - slack_s


# -- the row ------------------------------------------------------------------------------------


def _stream_row(container: InputContainer, video: Any, packets: Packets, looked: _Looked) -> Row:
    first = looked.pts[0]
    assert first is not None
    pts = np.unique(packets.pts[packets.pts >= first])
    steps = np.diff(pts)
    tick_s = float(video.time_base)
    last = packets.duration[packets.pts.argmax()] or (np.median(steps) if len(steps) else 0)
    rotation = round(looked.rotation / 90) * 90 % 360
    height, width = looked.size if rotation % 180 == 0 else looked.size[::-1]
    sar = Fraction(video.codec_context.sample_aspect_ratio or video.sample_aspect_ratio or 1)
    sar = sar if sar > 0 else Fraction(1)
    sar = sar if rotation % 180 == 0 else 1 / sar
    return {
        "stream_index": video.index,
        "width": width,
        "height": height,
        "rotation": rotation,
        "sar_num": sar.numerator,
        "sar_den": sar.denominator,
        "time_base_num": video.time_base.numerator,
        "time_base_den": video.time_base.denominator,
        "first_pts": int(first),
        "fps": (len(pts) - 1) / float((pts[-1] - pts[0]) * tick_s) if len(pts) > 1 else 0.0,
        "vfr": is_vfr(steps),
        "interlaced": looked.interlaced,
        "bit_depth": looked.bit_depth,
        "codec": video.codec_context.name,
        "pix_fmt": looked.pix_fmt,
        "container": container.format.name,
        "num_packets": len(packets) + packets.unstamped,
        "duration_s": float((pts[-1] + int(last) - first) * tick_s),
        "seeks_exactly": True,
    }


def _notes(stream: Row, looked: _Looked, packets: Packets, container: InputContainer) -> list[str]:
    height, width = stream["height"], stream["width"]
    sar, subtitles = f"{stream['sar_num']}:{stream['sar_den']}", len(container.streams.subtitles)
    notes = [
        (stream["vfr"], "variable frame rate: times are taken from the frames themselves"),
        (looked.rotation, f"rotated by {stream['rotation']} degrees counter-clockwise for display"),
        (looked.rotation % 90, f"display rotation {looked.rotation} rounded to a right angle"),
        (
            stream["interlaced"],
            "interlaced: signals are taken from one field; a frame with fields of two shots is in no clip",
        ),
        (stream["bit_depth"] > 8, f"{stream['bit_depth']}-bit standard dynamic range"),
        (height % 2 or width % 2, f"odd size {width}x{height}"),
        (sar != "1:1", f"sample aspect ratio {sar}"),
        (height > width, f"portrait {width}x{height}"),
        (packets.unstamped, f"{packets.unstamped} packets without a presentation time"),
        (not can_seek(stream), "program stream without exact seeks: decoded from its start for every use"),
        (packets.broken, "reading the file stopped with an error near its end"),
        (subtitles, f"{subtitles} soft subtitle stream(s) ignored"),
    ]
    return [text for applies, text in notes if applies]
