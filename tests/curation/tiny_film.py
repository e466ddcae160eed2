"""Tiny films with a known picture in every frame, and the rows that describe them."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from curation import ids
from curation.engine.stage import Row
from curation.stages.scan import scan
from curation.video.probe import probe


def write_film(
    path: Path, pictures, *, fps=24, pts=None, time_base=None, codec="libx264", pix_fmt="yuv420p", **tags
):
    """Write pictures, uint8 [H, W] (luma) or [H, W, 3] (RGB), losslessly enough to tell them apart."""
    options = {"libx264": {"crf": "8", "preset": "ultrafast"}}.get(codec, {}) | tags.pop("options", {})
    time_base = time_base or Fraction(1, fps)
    with av.open(str(path), "w") as container:
        video = None
        for i, picture in enumerate(pictures):
            if video is None:
                video = container.add_stream(codec, rate=fps, options=options)
                shape = picture.shape if isinstance(picture, np.ndarray) else (picture.height, picture.width)
                video.height, video.width = shape[:2]
                video.pix_fmt = pix_fmt
                video.codec_context.time_base = time_base
                for name, value in tags.items():
                    setattr(video.codec_context, name, value)
            if isinstance(picture, np.ndarray):
                kind = "gray" if picture.ndim == 2 else "rgb24"
                frame = av.VideoFrame.from_ndarray(picture, format=kind)
                frame = frame.reformat(format=pix_fmt) if frame.format.name != pix_fmt else frame
            else:
                frame = picture
            frame.pts, frame.time_base = (i if pts is None else pts[i]), time_base
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
    return path


def texture(seed: int, height=96, width=160, low=40, high=200) -> np.ndarray:
    """A smooth random picture, uint8 [H, W]; another seed gives another shot."""
    coarse = np.random.default_rng(seed).uniform(low, high, (6, 10))
    rows = np.linspace(0, 5, height).round().astype(int)
    columns = np.linspace(0, 9, width).round().astype(int)
    return coarse[np.ix_(rows, columns)].round().astype(np.uint8)


def shots_of(lengths, seed=0, **size):
    """Pictures of shots of the given lengths; every frame of a shot is a little brighter than the last."""
    for i, length in enumerate(lengths):
        still = texture(seed + i, **size)
        for k in range(length):
            yield (still.astype(int) + k % 40).astype(np.uint8)


def woven(fields, order="tff"):
    """Interlaced pictures of pictures seen at twice their rate; each gives every second line of a frame."""
    first = 0 if order == "tff" else 1
    for one, other in zip(*[iter(fields)] * 2, strict=False):
        frame = np.empty_like(one)
        frame[first::2], frame[1 - first :: 2] = one[first::2], other[1 - first :: 2]
        yield frame


def write_interlaced(path: Path, fields, order="tff") -> Path:
    """Write pictures seen at 48 a second as interlaced video of 24 frames; `order` is tff or bff."""
    return write_film(path, woven(fields, order), options={"x264-params": f"{order}=1", "crf": "4"})


def sequence_row(path: Path, spans, *, crop=None, context=(), targets=(), film="film") -> Row:
    """A row of the sequence grain for shots given as half-open spans of presentation indices.

    `targets`: (position of the shot, frame at 16 fps) of each reconstruction target. No scan has seen the
    film; `scanned` makes up for it.
    """
    stream, _, _ = probe(str(path))
    with av.open(str(path)) as container:
        packets = container.demux(container.streams[stream["stream_index"]])
        pts = sorted(p.pts for p in packets if p.pts is not None)
    pts.append(2 * pts[-1] - pts[-2])
    tick = Fraction(stream["time_base_num"], stream["time_base_den"])
    clips = []
    for i, (a, b) in enumerate(spans):
        clips.append(
            {
                "shot_id": ids.shot_id(film, pts[a], pts[b]),
                "clip_index": i,
                "is_context": i in context,
                "start_pts": pts[a],
                "end_pts": pts[b],
                "start_frame": a,
                "end_frame": b,
                "start_s": float((pts[a] - stream["first_pts"]) * tick),
                "end_s": float((pts[b] - stream["first_pts"]) * tick),
            }
        )
    sequence = ids.sequence_id(film, clips[0]["start_pts"], clips[-1]["end_pts"])
    x, y, width, height = crop or (0, 0, stream["width"], stream["height"])
    return {
        "sequence_id": sequence,
        "stream": stream,
        "clips": clips,
        "path": str(path),
        "signals": [],
        "segments": [],
        "crop_x": x,
        "crop_y": y,
        "crop_width": width,
        "crop_height": height,
        "recon_targets": [
            {
                "recon_id": ids.recon_id(sequence, n),
                "subject_id": ids.subject_id(sequence, 0),
                "clip_index": clip,
                "frame_in_clip_16fps": index,
            }
            for n, (clip, index) in enumerate(targets)
        ],
    }


def scanned(row: Row, folder, segment_s: float = 1.0) -> Row:
    """The row of a film that was scanned in segments around the clips; `folder` is a worker's folder."""
    _, segments, _ = probe(row["path"], segment_s=segment_s)
    start, end = row["clips"][0]["start_pts"], row["clips"][-1]["end_pts"]
    segments = [s for s in segments if s["start_pts"] <= end and (s["end_pts"] or end) >= start]
    refs = []
    for segment in segments:
        name = f"signals{segment['index']}.npz"
        scan(row["path"], row["stream"], segment)[0].save(folder.path(name))
        refs.append(folder.ref(name))
    folder.commit()
    return {**row, "signals": refs, "segments": segments}
