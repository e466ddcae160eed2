"""Shots as files: frames to MP4, still pictures, and the film of all shots.

Axes: c channels, t frames, h and w rows and columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np
import torch
from av.video.reformatter import ColorRange, Colorspace
from torch import Tensor

from curation.video.encode import write_h264

PRESET = "medium"


def to_pixels(video_cthw: Tensor) -> np.ndarray:
    """A video in [-1, 1] as uint8 [t, h, w, 3] RGB."""
    scaled = (video_cthw.float().clamp(-1, 1) * 127.5 + 127.5).round().to(torch.uint8)
    return scaled.permute(1, 2, 3, 0).cpu().numpy()


def from_pixels(frames_thwc_u8: np.ndarray) -> Tensor:
    """Frames as a video in [-1, 1]: fp32 [3, t, h, w]; the inverse of `to_pixels`."""
    return torch.from_numpy(np.ascontiguousarray(frames_thwc_u8)).permute(3, 0, 1, 2).float() / 127.5 - 1


def write_shot(path: Path, frames_thwc_u8: np.ndarray, crf: int) -> None:
    """A shot as H.264 of 16 frames a second; the same frames give the same bytes."""
    write_h264(path, ((_frame(rgb), 1) for rgb in frames_thwc_u8), crf=crf, preset=PRESET)


def _frame(rgb_hwc_u8: np.ndarray) -> av.VideoFrame:
    return av.VideoFrame.from_ndarray(rgb_hwc_u8, format="rgb24").reformat(
        format="yuv420p",
        src_color_range=ColorRange.JPEG,
        dst_color_range=ColorRange.MPEG,
        dst_colorspace=Colorspace.ITU709,
    )


def write_picture(path: Path, rgb_hwc_u8: np.ndarray, height: int | None = None) -> None:
    """A still picture, PNG or JPEG by its name; scaled to `height` if it is given."""
    from PIL import Image

    image = Image.fromarray(rgb_hwc_u8)
    if height is not None:
        image = image.resize((round(image.width * height / image.height), height), Image.Resampling.LANCZOS)
    image.save(path, quality=90)


def write_pictures(folder: Path, frames_nhwc_u8: Sequence[np.ndarray] | np.ndarray) -> None:
    """Still pictures as `00.png`, `01.png`, ..., no others of such names; without any, no folder."""
    if len(frames_nhwc_u8):
        folder.mkdir(exist_ok=True)
    for number, rgb in enumerate(frames_nhwc_u8):
        part = folder / f".{number:02d}.png"
        write_picture(part, rgb)
        part.replace(folder / f"{number:02d}.png")
    for path in folder.glob("[0-9][0-9].png"):
        if int(path.stem) >= len(frames_nhwc_u8):
            path.unlink()
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def read_frames(path: Path, wanted: Sequence[int]) -> dict[int, np.ndarray]:
    """Some frames of a shot's file by number, uint8 [h, w, 3] RGB; numbers beyond its end are left out."""
    found: dict[int, np.ndarray] = {}
    with av.open(str(path)) as container:
        for number, frame in enumerate(container.decode(video=0)):
            if number in wanted:
                found[number] = frame.to_ndarray(format="rgb24")
            if len(found) == len(set(wanted)):
                break
    return found


def join(shots: Sequence[Path], path: Path) -> None:
    """All shots one after the other, copied without encoding again; the file appears whole or not at all."""
    part = path.with_name(f".{path.name}")
    options = {"movflags": "+faststart", "fflags": "+bitexact"}
    with av.open(str(part), "w", format="mp4", options=options) as film:
        video, offset = None, 0
        for shot in shots:
            with av.open(str(shot)) as source:
                stream = source.streams.video[0]
                if video is None:
                    video = film.add_stream_from_template(stream)
                    video.time_base = stream.time_base
                end = offset
                for packet in source.demux(stream):
                    if packet.pts is None or packet.dts is None:  # the demuxer's end mark
                        continue
                    packet.pts, packet.dts = packet.pts + offset, packet.dts + offset
                    end = max(end, packet.pts + (packet.duration or 0))
                    packet.stream = video
                    film.mux(packet)
                offset = end
    part.replace(path)
