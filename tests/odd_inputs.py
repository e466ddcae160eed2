"""Writers of the bad and odd files that users have, small and made on the spot.

`ODD` maps a name to an `Odd`: a function that writes the file into a folder and returns its path, what
should become of it, and facts that a probe should report. Names of files inside a folder never clash.
"""

from __future__ import annotations

import os
import shutil
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np
import pytest

from tests.footage import X264, add_video, encode, film, one_hour, pictures, sound

PQ, HLG, BT2020 = 16, 18, 9  # ITU-T H.273


@dataclass(frozen=True)
class Odd:
    """An input and what should become of it.

    Attributes:
        make: writes it into a folder; returns its path, or skips the test where it cannot be made.
        outcome: ok (ingested) or failed.
        reason: the reason if it failed.
        facts: columns of `curation.rows.STREAM` with the values a probe should report.
        note: a part of one of the notes a probe should give.
        num_frames: frames that decode, if known.
    """

    make: Callable[[Path], Path]
    outcome: Literal["ok", "failed"] = "ok"
    reason: str | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    note: str | None = None
    num_frames: int | None = None


# -- broken -------------------------------------------------------------------------------------


def text_as_film(folder: Path) -> Path:
    """A text file under a film's name."""
    path = folder / "text.mp4"
    path.write_text("This is not a film.\n" * 200)
    return path


def random_bytes(folder: Path) -> Path:
    """Noise under a film's name."""
    path = folder / "random.mkv"
    path.write_bytes(np.random.default_rng(3).bytes(50_000))
    return path


def zero_bytes(folder: Path) -> Path:
    """An empty file."""
    path = folder / "empty.mp4"
    path.touch()
    return path


def cut_short(path: Path, share: float) -> Path:
    """Keep only the first `share` of the bytes."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


def truncated_index_first(folder: Path) -> Path:
    """An MP4 whose index came first, cut in the middle."""
    return cut_short(film(folder / "index_first.mp4", muxer={"movflags": "+faststart"}), 0.5)


def truncated_index_last(folder: Path) -> Path:
    """An MP4 whose index would have come last, cut in the middle."""
    return cut_short(film(folder / "index_last.mp4"), 0.5)


def truncated_matroska(folder: Path) -> Path:
    """A Matroska file cut in the middle."""
    return cut_short(film(folder / "cut_short.mkv", count=144), 0.5)


def corrupt_packets(folder: Path) -> Path:
    """Bytes flipped in the middle of the media data; the index is sound."""
    path = film(folder / "corrupt.mp4", count=120, muxer={"movflags": "+faststart"}, gop_size=24)
    data = bytearray(path.read_bytes())
    start = data.index(b"mdat") + 4
    rng = np.random.default_rng(5)
    middle = start + (len(data) - start) // 2
    for at in rng.integers(middle - 3000, middle + 3000, 400):
        data[at] ^= int(rng.integers(1, 256))
    path.write_bytes(data)
    return path


def audio_only_aac(folder: Path) -> Path:
    """Sound in an MP4."""
    return sound(folder / "sound.mp4", "aac")


def audio_only_pcm(folder: Path) -> Path:
    """Sound in a Matroska file."""
    return sound(folder / "sound.mkv", "pcm_s16le")


def no_video_stream(folder: Path) -> Path:
    """Subtitles and nothing else."""
    path = folder / "subtitles.mp4"
    path.write_text("1\n00:00:00,000 --> 00:00:02,000\nHello.\n\n2\n00:00:03,000 --> 00:00:04,000\nBye.\n")
    return path


def still_picture(folder: Path) -> Path:
    """A photograph under a film's name."""
    from PIL import Image

    path = folder / "photo.mp4"
    Image.fromarray(next(pictures(1))).save(path, format="PNG")
    return path


def one_frame(folder: Path) -> Path:
    """A film of a single frame."""
    return film(folder / "one_frame.mp4", count=1)


def encrypted(folder: Path) -> Path:
    """An MP4 under common encryption."""
    protect = {
        "encryption_scheme": "cenc-aes-ctr",
        "encryption_key": "00112233445566778899aabbccddeeff",
        "encryption_kid": "112233445566778899aabbccddeeff00",
    }
    return film(folder / "encrypted.mp4", muxer=protect)


def hdr_pq(folder: Path) -> Path:
    """HEVC Main 10 tagged BT.2020 and PQ."""
    return _hdr(folder / "hdr10.mp4", PQ)


def hdr_hlg(folder: Path) -> Path:
    """HEVC Main 10 tagged BT.2020 and HLG."""
    return _hdr(folder / "hlg.mkv", HLG)


def _hdr(path: Path, transfer: int) -> Path:
    return film(
        path,
        count=24,
        codec="libx265",
        pix_fmt="yuv420p10le",
        options={"preset": "ultrafast", "x265-params": "log-level=none:pools=none"},
        color_primaries=BT2020,
        color_trc=transfer,
        colorspace=BT2020,
    )


def unreadable(folder: Path) -> Path:
    """A film without read permission; root reads it all the same."""
    if os.geteuid() == 0:
        pytest.skip("root may read every file")
    path = film(folder / "secret.mp4", count=24)
    path.chmod(0)
    return path


def read_error(folder: Path) -> Path:
    """A name behind which reading fails even for root."""
    if not Path("/proc/self/mem").exists():
        pytest.skip("needs the proc file system of Linux")
    path = folder / "bad_disk.mp4"
    path.symlink_to("/proc/self/mem")
    return path


def symlink_loop(folder: Path) -> Path:
    """Two links that point at each other."""
    one, two = folder / "loop_a.mp4", folder / "loop_b.mp4"
    one.symlink_to(two)
    two.symlink_to(one)
    return one


def dangling_link(folder: Path) -> Path:
    """A link to nothing."""
    path = folder / "gone.mp4"
    path.symlink_to(folder / "nowhere.mp4")
    return path


def folder_as_film(folder: Path) -> Path:
    """A folder under a film's name."""
    path = folder / "folder.mp4"
    path.mkdir()
    return path


# -- odd but sound ------------------------------------------------------------------------------


def named(name: str) -> Callable[[Path], Path]:
    """A sound film under another name; every name has a picture of its own."""

    def make(folder: Path) -> Path:
        plain = film(folder / "under_way.mp4", count=48, seed=zlib.crc32(name.encode()) % 10_000)
        return plain.rename(folder / name)

    return make


def variable_rate(folder: Path) -> Path:
    """Frames at irregular times."""
    steps = np.random.default_rng(9).choice([25, 33, 40, 83, 120], 71)
    times = [0, *np.cumsum(steps).tolist()]
    return film(folder / "vfr.mkv", rate=24, time_base=Fraction(1, 1000), pts=times)


def late_start(folder: Path) -> Path:
    """The first frame is not at time 0."""
    return film(folder / "late.mkv", pts=range(48, 120))


def rotated(quarter: int) -> Callable[[Path], Path]:
    """A display matrix of `quarter` turns clockwise, as phones write it."""
    c, s = [(1, 0), (0, 1), (-1, 0), (0, -1)][quarter]

    def make(folder: Path) -> Path:
        path = film(folder / f"turned_{90 * quarter}.mp4")
        data = bytearray(path.read_bytes())
        at = data.index(b"tkhd") + 4 + 40  # version 0: the matrix follows 40 bytes of fields
        one = 1 << 16
        matrix = [c * one, s * one, 0, -s * one, c * one, 0, 0, 0, 1 << 30]
        data[at : at + 36] = b"".join(v.to_bytes(4, "big", signed=True) for v in matrix)
        path.write_bytes(data)
        return path

    return make


def interlaced(folder: Path) -> Path:
    """Two fields a frame, the top one first, coded as interlaced."""
    path, size = folder / "interlaced.mp4", (192, 320)
    fields = list(pictures(96, size, cut_at=40))
    even = np.arange(size[0])[:, None, None] % 2 == 0
    woven = [np.where(even, a, b) for a, b in zip(fields[::2], fields[1::2], strict=True)]
    with av.open(str(path), "w") as container:
        stream = add_video(container, size, options={"flags": "+ilme+ildct", "x264-params": f"{X264}:tff=1"})
        encode(container, stream, woven)
    return path


def ten_bit(folder: Path) -> Path:
    """10-bit H.264 of standard range."""
    return film(folder / "ten_bit.mp4", count=48, pix_fmt="yuv420p10le")


def odd_size(folder: Path) -> Path:
    """321 x 181 without chroma subsampling."""
    return film(folder / "odd.mp4", size=(181, 321), pix_fmt="yuv444p")


def portrait(folder: Path) -> Path:
    """Higher than wide."""
    return film(folder / "portrait.mp4", size=(320, 180))


def anamorphic(folder: Path) -> Path:
    """Pixels wider than high."""
    return film(folder / "anamorphic.mp4", size=(192, 240), sample_aspect_ratio=Fraction(64, 45))


def two_videos(folder: Path) -> Path:
    """Two video streams; the second is larger, the first is the default."""
    path = folder / "two.mkv"
    with av.open(str(path), "w") as container:
        small, large = (add_video(container, size) for size in ((90, 160), (180, 320)))
        small.disposition = av.stream.Disposition.default
        large.disposition = av.stream.Disposition(0)
        for stream, seed in ((small, 1), (large, 2)):
            encode(container, stream, pictures(48, (stream.height, stream.width), seed=seed))
    return path


def sound_and_picture(folder: Path) -> Path:
    """A film with sound that goes on for longer than the picture."""
    path = folder / "sound_longer.mkv"
    tone = sound(folder / "tone.mkv", "aac", seconds=5.0)
    with av.open(str(path), "w") as container, av.open(str(tone)) as source:
        stream = add_video(container, (180, 320))
        track = container.add_stream_from_template(source.streams.audio[0])
        encode(container, stream, pictures(72))
        for packet in source.demux(source.streams.audio[0]):
            if packet.dts is not None:
                packet.stream = track
                container.mux(packet)
    tone.unlink()
    return path


def webm(folder: Path) -> Path:
    """VP9 in WebM."""
    options = {"deadline": "realtime", "cpu-used": "8"}
    return film(folder / "vp9.webm", count=48, codec="libvpx-vp9", options=options)


def avi(folder: Path) -> Path:
    """MPEG-4 part 2 in AVI."""
    return film(folder / "old.avi", count=48, codec="mpeg4")


def transport_stream(folder: Path) -> Path:
    """MPEG-2 with B-frames in a transport stream, which starts at some other time than 0."""
    return film(folder / "air.ts", count=72, codec="mpeg2video", max_b_frames=2, gop_size=12)


# -- folders ------------------------------------------------------------------------------------


def folder_with_copies(folder: Path) -> Path:
    """The same bytes under two names, and the same film in another encode."""
    first = film(folder / "a.mp4")
    shutil.copy(first, folder / "b copy.mp4")
    film(folder / "c other encode.mkv", options={"crf": "30"})
    return folder


def folder_with_loop(folder: Path) -> Path:
    """A folder that holds a link to itself, and one film."""
    film(folder / "a.mp4", count=24)
    (folder / "again").symlink_to(folder, target_is_directory=True)
    return folder


FAILED: dict[str, Odd] = {
    "text as film": Odd(text_as_film, "failed", "not_a_video"),
    "random bytes": Odd(random_bytes, "failed", "not_a_video"),
    "zero bytes": Odd(zero_bytes, "failed", "empty_file"),
    "truncated, index first": Odd(truncated_index_first, "failed", "truncated"),
    "truncated, index last": Odd(truncated_index_last, "failed", "truncated"),
    "truncated Matroska": Odd(truncated_matroska, "failed", "truncated"),
    "audio only, AAC in MP4": Odd(audio_only_aac, "failed", "audio_only"),
    "audio only, PCM in Matroska": Odd(audio_only_pcm, "failed", "audio_only"),
    "no video stream": Odd(no_video_stream, "failed", "no_video_stream"),
    "still picture": Odd(still_picture, "failed", "still_image"),
    "one frame": Odd(one_frame, "failed", "one_frame"),
    "encrypted": Odd(encrypted, "failed", "encrypted"),
    "HDR, PQ": Odd(hdr_pq, "failed", "hdr_not_supported"),
    "HDR, HLG": Odd(hdr_hlg, "failed", "hdr_not_supported"),
    "unreadable": Odd(unreadable, "failed", "unreadable"),
    "read error": Odd(read_error, "failed", "unreadable"),
    "symlink loop": Odd(symlink_loop, "failed", "unreadable"),
    "dangling link": Odd(dangling_link, "failed", "not_found"),
    "folder as film": Odd(folder_as_film, "failed", "not_a_video"),
}
PLAIN = {"width": 320, "height": 180, "rotation": 0, "vfr": False, "interlaced": False, "bit_depth": 8}
SOUND: dict[str, Odd] = {
    "plain": Odd(named("plain.mp4"), facts=PLAIN | {"fps": 24.0, "duration_s": 2.0}, num_frames=48),
    "wrong extension": Odd(named("film.txt"), facts=PLAIN, num_frames=48),
    "no extension": Odd(named("film"), facts=PLAIN, num_frames=48),
    "spaces": Odd(named("  my film (final) .mp4"), facts=PLAIN, num_frames=48),
    "quotes": Odd(named('it\'s "quoted" & `more`; $HOME %d.mp4'), facts=PLAIN, num_frames=48),
    "newline": Odd(named("two\nlines.mp4"), facts=PLAIN, num_frames=48),
    "not ASCII": Odd(named("f\u00edlm \u6620\u753b \U0001f3ac.mp4"), facts=PLAIN, num_frames=48),
    "corrupt packets": Odd(corrupt_packets, facts=PLAIN),
    "variable frame rate": Odd(variable_rate, facts={"vfr": True}, note="variable", num_frames=72),
    "late start": Odd(late_start, facts=PLAIN | {"first_pts": 2000, "duration_s": 3.0}, num_frames=72),
    "rotated 90": Odd(rotated(1), facts={"width": 180, "height": 320, "rotation": 270}, num_frames=72),
    "rotated 180": Odd(rotated(2), facts={"width": 320, "height": 180, "rotation": 180}, num_frames=72),
    "rotated 270": Odd(rotated(3), facts={"width": 180, "height": 320, "rotation": 90}, num_frames=72),
    "interlaced": Odd(interlaced, facts={"interlaced": True}, note="interlaced", num_frames=48),
    "10-bit SDR": Odd(ten_bit, facts={"bit_depth": 10}, note="10-bit", num_frames=48),
    "odd size": Odd(odd_size, facts={"width": 321, "height": 181}, note="odd size", num_frames=72),
    "portrait": Odd(portrait, facts={"width": 180, "height": 320}, note="portrait", num_frames=72),
    "anamorphic": Odd(anamorphic, facts={"sar_num": 64, "sar_den": 45}, note="64:45", num_frames=72),
    "two video streams": Odd(
        two_videos, facts={"stream_index": 0, "width": 160}, note="ignored", num_frames=48
    ),
    "longer sound": Odd(sound_and_picture, facts=PLAIN | {"duration_s": 3.0}, num_frames=72),
    "VP9 in WebM": Odd(webm, facts=PLAIN | {"codec": "vp9"}, num_frames=48),
    "MPEG-4 in AVI": Odd(avi, facts=PLAIN | {"codec": "mpeg4"}, num_frames=48),
    "MPEG-2 transport stream": Odd(transport_stream, facts=PLAIN | {"codec": "mpeg2video"}, num_frames=72),
    "one hour": Odd(one_hour, facts={"width": 160, "duration_s": 3600.0, "vfr": False}),
}
ODD: dict[str, Odd] = FAILED | SOUND
