"""Export: every clip of a sequence encoded once, in one decode of the sequence, and proved afterwards."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import av
import numpy as np

from curation import ids, looks, rows
from curation.engine.stage import BadInput, Folder, Resources, Row, Stage, Worker
from curation.shots.signals import Signals
from curation.timing import FPS, num_frames_16fps
from curation.video import encode
from curation.video.decode import decode_span, seconds
from curation.video.tiny import Thumbnails
from curation.video.verify import check_file, foreign_edge


@dataclass(frozen=True, kw_only=True)
class Export(Stage):
    """Clips as the trainer reads them: H.264 of exactly 16 fps, one size, 4n+1 frames, BT.709.

    Attributes:
        height: height of the clips, pixels.
        width: width of the clips, pixels.
        crf: constant rate factor of x264; lower is better and larger. 17 keeps 44 to 46 dB on real film.
        preset: of x264. `veryfast` takes 1.4 (720p source) to 4.3 (486p) bare decodes of the source;
            `faster` half as much again, `medium` three times as much, for files a fifth smaller at equal
            fidelity.
        look_tokens: size of the small pictures that captions are made from, four a second, in blocks of
            32x32 pixels; 112 blocks (448x256 pixels) are what a vision-language model pays for two of them.
        trim: cut clips to 4n+1 frames, the lengths that the model's video codec takes.
        threads: decoder threads.
    """

    name: ClassVar[str] = "export"
    version: ClassVar[int] = 3
    reads: ClassVar[tuple[str, ...]] = (
        "sequence_id",
        "stream",
        "clips",
        "crop_x",
        "crop_y",
        "crop_width",
        "crop_height",
        "recon_targets",
    )
    locates: ClassVar[tuple[str, ...]] = (
        "path",
        "signals",
        "segments",
    )  # signals only prove, they change no file
    writes: ClassVar = rows.EXPORT
    resources: ClassVar[Resources] = Resources(cpus=1.0)

    height: int = 480
    width: int = 832
    crf: int = 17
    preset: str = "veryfast"
    look_tokens: int = 112
    trim: bool = True
    threads: int = 1

    def __post_init__(self) -> None:
        """Refuse sizes that 4:2:0 video cannot have."""
        if self.height % 2 or self.width % 2 or min(self.height, self.width) < 32:
            raise ValueError(f"export.height and export.width must be even, not {self.height}x{self.width}")
        if self.look_tokens < 1:
            raise ValueError(f"export.look_tokens must be at least 1, not {self.look_tokens}")

    def worker(self) -> Worker:
        """Decodes, encodes and checks one sequence."""
        return self._export

    def _export(self, row: Row, folder: Folder) -> Row:
        takes = [
            _Take(clip, ids.clip_id(row["sequence_id"], clip["clip_index"]))
            for clip in row["clips"]
            if not clip["is_context"]
        ]
        _assign_targets(takes, row["recon_targets"] or [])
        _meet_neighbours(takes, row, folder)
        _shoot(self, row, takes, folder)
        for take in takes:
            _prove(self, take, folder)
        looks.write_looks(folder.path("looks.parquet"), itertools.chain(*(take.looks for take in takes)))
        return {
            "clip_files": [_clip_file(self, take, folder) for take in takes],
            "recon_images": [_recon_image(target, folder) for target in row["recon_targets"] or []],
            "looks": folder.ref("looks.parquet"),
        }


@dataclass(eq=False)
class _Take:
    """A clip on its way into a file."""

    clip: Row
    clip_id: str
    targets: list[Row] = field(default_factory=list)
    source_frames: int = 0
    sent: list[np.ndarray] = field(default_factory=list)  # luma blocks of every encoded frame
    thumbs: list[np.ndarray] = field(default_factory=list)  # the same frames as the scan saw them
    before: np.ndarray | None = None  # the scan's thumbnail of the film's frame before the clip
    after: np.ndarray | None = None
    looks: list[looks.Look] = field(default_factory=list)

    @property
    def file(self) -> str:
        return f"{self.clip_id}.mp4"

    def failed(self, what: str) -> BadInput:
        return BadInput("export_failed", f"clip {self.clip_id}: {what}")


def _assign_targets(takes: list[_Take], targets: list[Row]) -> None:
    by_index = {take.clip["clip_index"]: take for take in takes}
    for target in targets:
        if target["clip_index"] not in by_index:
            raise ValueError(f"{target['recon_id']}: clip {target['clip_index']} is not exported")
        by_index[target["clip_index"]].targets.append(target)


def _meet_neighbours(takes: list[_Take], row: Row, folder: Folder) -> None:
    """Give every clip the pictures on the other side of its edges. The scan has them: nothing is decoded."""
    start, end = (f(t.clip[f"{e}_pts"] for t in takes) for f, e in ((min, "start"), (max, "end")))
    near = [
        Signals.load(folder.open(ref))
        for ref, segment in zip(row["signals"], row["segments"], strict=True)
        if segment["start_pts"] <= end and (segment["end_pts"] is None or segment["end_pts"] >= start)
    ]
    if not near:
        return
    seen = Signals.concat(near)
    for take in takes:
        first, after = np.searchsorted(seen.pts, [take.clip["start_pts"], take.clip["end_pts"]])
        take.before = seen.thumbs_u8[first - 1] if first else None
        take.after = seen.thumbs_u8[after] if after < len(seen) else None


def _shoot(stage: Export, row: Row, takes: list[_Take], folder: Folder) -> None:
    """The one pass over the film: decode, pick, crop, scale, encode; small pictures stay for the proof."""
    stream = row["stream"]
    crop = (row["crop_x"], row["crop_y"], row["crop_width"], row["crop_height"])
    look = encode.FilterChain(
        encode.Look(stream=stream, crop=crop, height=stage.height, width=stage.width).steps
    )
    frames = _frames(stage, row, takes, folder)
    for take, group in itertools.groupby(frames, key=lambda f: _take_at(takes, f.pts)):
        counted = _Counted(group)
        if take is not None:
            _encode(stage, take, look, counted, row, folder)
        for _ in counted:
            pass
        if take is not None:
            take.source_frames = counted.count


class _Counted:
    """An iterator that knows how many frames went through it."""

    def __init__(self, frames: Iterator[Any]) -> None:
        self._frames, self.count = frames, 0

    def __iter__(self) -> _Counted:
        return self

    def __next__(self) -> Any:
        frame = next(self._frames)
        self.count += 1
        return frame


def _take_at(takes: list[_Take], pts: int) -> _Take | None:
    return next((t for t in takes if t.clip["start_pts"] <= pts < t.clip["end_pts"]), None)


def _frames(stage: Export, row: Row, takes: list[_Take], folder: Folder) -> Iterator[Any]:
    """Frames from the first clip's first to the last clip's last; counts them."""
    stream = row["stream"]
    start, end = takes[0].clip["start_pts"], takes[-1].clip["end_pts"]
    count = 0
    for frame in decode_span(row["path"], stream, start, end, threads=stage.threads):
        count += 1
        yield frame
    folder.count("decoded_frames", count)
    folder.count("decoded_s", seconds(stream, end) - seconds(stream, start))


def _encode(
    stage: Export,
    take: _Take,
    look: encode.FilterChain,
    frames: Iterator[Any],
    row: Row,
    folder: Folder,
) -> None:
    stream, start = row["stream"], take.clip["start_pts"]
    count = num_frames_16fps(stream, start, take.clip["end_pts"], trim=stage.trim)
    late = [t["recon_id"] for t in take.targets if t["frame_in_clip_16fps"] >= count]
    if late:
        raise ValueError(f"{late}: beyond the {count} frames of {take.clip_id}")
    whole = encode.deinterlaced(frames) if stream["interlaced"] else frames
    thumbnail = Thumbnails(stream)
    size = looks.look_size(stage.height, stage.width, stage.look_tokens)

    def pictures() -> Iterator[tuple[av.VideoFrame, int]]:
        for frame, times in encode.at_16fps(whole, stream, start, count):
            picture = look(frame)
            at = len(take.sent)
            for target in take.targets:
                if at <= target["frame_in_clip_16fps"] < at + times:
                    _save(picture, folder.path(_picture_name(target)))
            if shown := [k for k in range(at, at + times) if k % looks.EVERY == 0]:
                jpeg = looks.jpeg_of(encode.rgb_picture(picture, size))
                take.looks += [looks.Look(take.clip["clip_index"], k, jpeg) for k in shown]
            take.sent += [encode.luma_blocks(picture)] * times
            take.thumbs += [thumbnail(frame)] * times
            yield picture, times

    encode.write_h264(folder.path(take.file), pictures(), crf=stage.crf, preset=stage.preset)
    folder.count("encoded_frames", len(take.sent))
    if len(take.sent) != count:
        raise take.failed(f"{len(take.sent)} of {count} frames could be made")


def _save(picture: av.VideoFrame, path: Path) -> None:
    from PIL import Image

    Image.fromarray(encode.rgb_picture(picture)).save(path, "PNG")


def _picture_name(target: Row) -> str:
    return f"{target['recon_id']}.png"


# -- proof --------------------------------------------------------------------------------------


def _prove(stage: Export, take: _Take, folder: Folder) -> None:
    """Raise BadInput unless the file holds exactly the frames that were sent, and these the shot's alone."""
    expected = take.clip["end_frame"] - take.clip["start_frame"]
    if take.source_frames != expected:
        raise take.failed(
            f"the film gave {take.source_frames} frames for a shot of {expected}; it may have changed "
            "since it was scanned"
        )
    fault = check_file(folder.path(take.file), np.stack(take.sent), stage.height, stage.width)
    if fault:
        raise take.failed(fault)
    for edge, neighbour, frames in (
        ("first", take.before, take.thumbs),
        ("last", take.after, take.thumbs[::-1]),
    ):
        if foreign_edge(np.stack(frames), neighbour):
            raise take.failed(f"its {edge} frame belongs to the neighbouring shot")
    folder.count("verified_frames", len(take.sent))


def _clip_file(stage: Export, take: _Take, folder: Folder) -> Row:
    clip, count = take.clip, len(take.sent)
    return {
        "clip_id": take.clip_id,
        "clip_index": clip["clip_index"],
        "shot_id": clip["shot_id"],
        "video": folder.ref(take.file),
        "num_frames": count,
        "fps": float(FPS),
        "height": stage.height,
        "width": stage.width,
        "sha256": _sha256(folder.path(take.file)),
        "start_s": clip["start_s"],
        "end_s": min(clip["end_s"], clip["start_s"] + count / FPS),
    }


def _recon_image(target: Row, folder: Folder) -> Row:
    name = _picture_name(target)
    return {
        "recon_id": target["recon_id"],
        "image": folder.ref(name),
        "sha256": _sha256(folder.path(name)),
    }


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
