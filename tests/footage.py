"""Small footage made on the spot: moving pictures, films in any container and codec, sounds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from curation.demo.compose import clouds

FPS = 24
X264 = "cpu-independent=1"


def pictures(
    count: int, size: tuple[int, int] = (180, 320), cut_at: int | None = None, seed: int = 1
) -> Iterator[np.ndarray]:
    """A pan over coloured clouds, uint8 [h, w, 3] BGR; another place from frame `cut_at` on."""
    height, width = size
    for k in range(count):
        place = seed if cut_at is None or k < cut_at else seed + 50
        if k in (0, cut_at):
            colour = np.random.default_rng(place).uniform(90, 250, 3)
            wide = np.repeat(clouds(place, (height, 3 * width), 60)[..., None], 3, 2) * colour
            wide = wide.astype(np.uint8)
        shift = 2 * k % (2 * width)
        yield np.ascontiguousarray(wide[:, shift : shift + width])


def add_video(container: Any, size: tuple[int, int], codec: str = "libx264", **more: Any) -> Any:
    """A video stream with one thread; `more` are attributes of its codec context, or `options`."""
    options = dict(more.pop("options", {}))
    if codec == "libx264":
        options = {"preset": "veryfast", "x264-params": X264} | options
    rate = more.pop("rate", FPS)
    stream = container.add_stream(codec, rate=rate, options=options)
    stream.height, stream.width = size
    stream.pix_fmt = more.pop("pix_fmt", "yuv420p")
    stream.codec_context.thread_count = 1
    stream.codec_context.time_base = Fraction(1, rate)
    for name, value in more.items():
        setattr(stream.codec_context, name, value)
    return stream


def encode(
    container: Any, stream: Any, frames: Iterable[np.ndarray], pts: Iterable[int] | None = None
) -> None:
    """Encode BGR pictures; `pts` in ticks of the codec's time base (frames by default)."""
    times = iter(pts) if pts is not None else None
    for k, picture in enumerate(frames):
        frame = av.VideoFrame.from_ndarray(picture, format="bgr24").reformat(format=stream.pix_fmt)
        frame.pts = next(times) if times is not None else k
        frame.time_base = stream.codec_context.time_base
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def film(
    path: Path,
    *,
    count: int = 72,
    size: tuple[int, int] = (180, 320),
    muxer: dict[str, str] | None = None,
    cut_at: int | None = 30,
    pts: Iterable[int] | None = None,
    seed: int = 1,
    **video: Any,
) -> Path:
    """Write a small film; the container by the extension, `video` as for `add_video`."""
    with av.open(str(path), "w", options={"fflags": "+bitexact"} | (muxer or {})) as container:
        stream = add_video(container, size, **video)
        encode(container, stream, pictures(count, size, cut_at, seed), pts)
    return path


def sound(path: Path, codec: str, seconds: float = 2.0) -> Path:
    """Write a file with a tone and no picture."""
    rate = 44100
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=rate, layout="mono")
        tone = 0.2 * np.sin(np.arange(int(rate * seconds)) * 440 * 2 * np.pi / rate)
        samples = (tone * 32767).astype(np.int16)
        for start in range(0, len(samples), 1024):
            frame = av.AudioFrame.from_ndarray(samples[None, start : start + 1024], "s16", "mono")
            frame.sample_rate, frame.pts = rate, start
            frame.time_base = Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def one_hour(folder: Path) -> Path:
    """An hour without a cut: ten seconds of a pendulum pan, copied 360 times without encoding."""
    rate, seconds, size = 12, 10, (90, 160)
    wide = np.repeat(clouds(77, (size[0], 400), 50)[..., None] * 255, 3, 2).astype(np.uint8)
    swing = [round(120 - 120 * np.cos(2 * np.pi * k / (rate * seconds))) for k in range(rate * seconds)]
    block = folder / "ten_seconds.mp4"
    with av.open(str(block), "w") as container:
        stream = add_video(container, size, rate=rate, max_b_frames=0, gop_size=rate * seconds)
        encode(container, stream, (np.ascontiguousarray(wide[:, x : x + size[1]]) for x in swing))
    path = folder / "one_hour.mp4"
    with av.open(str(block)) as source, av.open(str(path), "w") as container:
        video = source.streams.video[0]
        target = container.add_stream_from_template(video)
        data = [(bytes(p), p.pts, p.is_keyframe) for p in source.demux(video) if p.pts is not None]
        length = round(seconds / video.time_base)
        for copy in range(360):
            for content, pts, key in data:
                packet = av.Packet(content)
                packet.pts = packet.dts = pts + copy * length
                packet.time_base, packet.is_keyframe, packet.stream = video.time_base, key, target
                container.mux(packet)
    block.unlink()
    return path
