"""Tiny pictures straight from the decoder's planes: one gather per plane, no scaler and no full-size copy."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import av
import numpy as np

from curation.engine.stage import Row
from curation.shots.measure import halve
from curation.video.decode import ROTATE

HEIGHT, WIDTH = 36, 64  # of a tiny picture
PIXELS = HEIGHT * WIDTH
PLANAR = re.compile(r"(yuvj?a?\d{3}p|gray)(9|1[0-6])?(le)?")
FULL_RANGE = 2  # AVCOL_RANGE_JPEG


@dataclass(frozen=True)
class Grid:
    """Where the samples of one frame layout lie.

    Attributes:
        layout: what the grid was made for; another layout needs another grid.
        index: per plane, int64 offsets into the plane's elements in display orientation: 36 * 64 of
            luma, 18 * 32 of each chroma plane.
        dtype: of the plane's elements.
        bits: significant bits per element.
        line: elements per luma line, padding included.
        size: (height, width) of the decoded picture.
        is_full: whether codes are full range (0..255); otherwise black is 16 and white 235.
    """

    layout: tuple[Any, ...]
    index: tuple[np.ndarray, ...]
    dtype: Any
    bits: int
    line: int
    size: tuple[int, int]
    is_full: bool


def layout_of(frame: av.VideoFrame, planes: Any) -> tuple[Any, ...]:
    """What decides where samples lie and what they mean."""
    return (
        frame.format.name,
        frame.width,
        frame.height,
        frame.color_range,
        *(p.line_size for p in planes[:2]),
    )


def is_planar(pix_fmt: str) -> bool:
    """Whether the planes can be sampled as they are (planar YUV or grey, little endian)."""
    return PLANAR.fullmatch(pix_fmt) is not None


def grid_of(frame: av.VideoFrame, stream: Row, *, lower_field: bool = False) -> Grid:
    """Sample positions of a planar frame: the centres of 36 x 64 cells of the displayed picture.

    Interlaced pictures are sampled on the lines of one field only: those of the upper one, or the luma
    alone of the lower one.
    """
    match = PLANAR.fullmatch(frame.format.name)
    assert match is not None
    bits = int(match[2] or 8)
    dtype: Any = np.uint8 if bits == 8 else np.uint16
    planes = frame.planes
    wanted = planes[:1] if match[1] == "gray" or lower_field else planes[:3]
    index = tuple(
        _offsets(
            (p.height, p.width),
            p.line_size // np.dtype(dtype).itemsize,
            (HEIGHT, WIDTH) if i == 0 else (HEIGHT // 2, WIDTH // 2),
            stream,
            lower_field,
        )
        for i, p in enumerate(wanted)
    )
    is_full = frame.color_range == FULL_RANGE or match[1].startswith("yuvj")
    return Grid(
        layout=layout_of(frame, planes),
        index=index,
        dtype=dtype,
        bits=bits,
        line=planes[0].line_size // np.dtype(dtype).itemsize,
        size=(frame.height, frame.width),
        is_full=is_full,
    )


def _offsets(
    size: tuple[int, int], line: int, cells: tuple[int, int], stream: Row, lower_field: bool
) -> np.ndarray:
    turns = ROTATE[stream["rotation"]]
    num_rows, num_columns = cells if turns % 2 == 0 else cells[::-1]
    y = ((np.arange(num_rows) + 0.5) * size[0] / num_rows).astype(np.int64)
    x = ((np.arange(num_columns) + 0.5) * size[1] / num_columns).astype(np.int64)
    if stream["interlaced"]:
        y -= y % 2
    if lower_field:
        y = np.minimum(y + 1, size[0] - 1)
    return np.rot90(y[:, None] * line + x[None, :], turns).ravel()


def _table(scale: float, shift: float) -> np.ndarray:
    return np.clip(np.rint(np.arange(256) * scale + shift), 0, 255).astype(np.uint8)


# ITU-R BT.601 and BT.709: luma 16..235, chroma 16..240 around 128
TO_FULL = _table(255 / 219, -16 * 255 / 219)
LUMA_TO_LIMITED = _table(219 / 255, 16)
CHROMA_TO_LIMITED = _table(224 / 255, 128 - 128 * 224 / 255)


class TinyBatch:
    """Gathers the tiny pictures of up to `capacity` frames of one layout."""

    def __init__(self, capacity: int) -> None:
        self.capacity, self.count = capacity, 0
        self.grid: Grid | None = None
        self._codes: tuple[np.ndarray, ...] = ()

    def accepts(self, layout: tuple[Any, ...]) -> bool:
        """Whether a frame of this layout can be added without flushing first."""
        if self.grid is None or self.count == 0:
            return True
        return self.count < self.capacity and self.grid.layout == layout

    def start(self, grid: Grid) -> None:
        """Begin to gather frames of another layout; the batch must be empty."""
        assert self.count == 0
        self.grid = grid
        neutral = 128 << (grid.bits - 8)  # grey pictures have no chroma planes
        self._codes = tuple(
            np.full((self.capacity, n), neutral, grid.dtype) for n in (PIXELS, PIXELS // 4, PIXELS // 4)
        )

    def add(self, planes: Any) -> None:
        """Gather one frame's samples."""
        grid, i = self.grid, self.count
        assert grid is not None
        for plane, index, codes in zip(planes, grid.index, self._codes, strict=False):
            np.frombuffer(plane, grid.dtype).take(index, out=codes[i], mode="clip")
        self.count = i + 1

    def flush(self) -> tuple[np.ndarray, np.ndarray]:
        """The gathered pictures: full-range luma uint8 [N, 36, 64], BGR uint8 [N, 36, 64, 3].

        Empties the batch.
        """
        import cv2

        grid, count = self.grid, self.count
        assert grid is not None
        luma, blue, red = (codes[:count] for codes in self._codes)
        if grid.bits > 8:
            luma, blue, red = ((c >> (grid.bits - 8)).astype(np.uint8) for c in (luma, blue, red))
        full = luma if grid.is_full else cv2.LUT(luma, TO_FULL)
        if grid.is_full:
            luma = cv2.LUT(luma, LUMA_TO_LIMITED)
            blue, red = cv2.LUT(blue, CHROMA_TO_LIMITED), cv2.LUT(red, CHROMA_TO_LIMITED)
        # OpenCV converts 4:2:0 two lines at a time and at a fixed cost for each pair, so every picture is
        # laid out as two long lines: all its even ones, then all its odd ones.
        pairs = luma.reshape(count, HEIGHT // 2, 2, WIDTH).swapaxes(1, 2)
        planar = np.concatenate([pairs.ravel(), blue.ravel(), red.ravel()])
        long = cv2.cvtColor(planar.reshape(count * 3, -1), cv2.COLOR_YUV2BGR_I420)
        colour = long.reshape(count, 2, HEIGHT // 2, WIDTH, 3).swapaxes(1, 2)
        self.count = 0
        return full.reshape(-1, HEIGHT, WIDTH).copy(), colour.reshape(-1, HEIGHT, WIDTH, 3)


class Thumbnails:
    """The scan's thumbnail of single frames, for comparison with those that the scan kept."""

    def __init__(self, stream: Row) -> None:
        self._stream, self._batch = stream, TinyBatch(1)

    def __call__(self, frame: av.VideoFrame) -> np.ndarray:
        """uint8 [18, 32], full-range luma as displayed."""
        if not is_planar(frame.format.name):
            frame = frame.reformat(format="yuv444p")
        batch, planes = self._batch, frame.planes
        if batch.grid is None or batch.grid.layout != layout_of(frame, planes):
            batch.start(grid_of(frame, self._stream))
        batch.add(planes)
        return halve(batch.flush()[0])[0]


def luma_plane(frame: av.VideoFrame, grid: Grid) -> np.ndarray:
    """Luma of the decoded picture as coded, uint8 [H, W]; a view for 8-bit films."""
    height, width = grid.size
    luma = np.frombuffer(memoryview(frame.planes[0]), grid.dtype).reshape(-1, grid.line)[:height, :width]
    return luma if grid.bits == 8 else (luma >> (grid.bits - 8)).astype(np.uint8)


def levels(grid: Grid) -> tuple[int, float]:
    """The 8-bit code of black, and luma codes per full-range code."""
    return (0, 1.0) if grid.is_full else (16, 219 / 255)
