"""Tiny pictures straight from the decoder's planes: one gather per plane, no scaler and no full-size copy."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import av
import numpy as np

from curation.stage import Row
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
        index: per plane, int64 [36 * 64] offsets into the plane's elements, in display orientation.
        dtype: of the plane's elements.
        bits: significant bits per element.
        line: elements per luma line, padding included.
        size: (height, width) of the decoded picture.
        lut: uint8 [256, 3], from 8-bit Y, Cr, Cb as coded to full range.
    """

    layout: tuple[Any, ...]
    index: tuple[np.ndarray, ...]
    dtype: Any
    bits: int
    line: int
    size: tuple[int, int]
    lut: np.ndarray


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


def grid_of(frame: av.VideoFrame, stream: Row) -> Grid:
    """Sample positions of a planar frame: the centres of 36 x 64 cells of the displayed picture.

    Interlaced pictures are sampled on the lines of their first field only.
    """
    match = PLANAR.fullmatch(frame.format.name)
    assert match is not None
    bits = int(match[2] or 8)
    dtype: Any = np.uint8 if bits == 8 else np.uint16
    planes = frame.planes
    wanted = planes[:1] if match[1] == "gray" else planes[:3]
    index = tuple(
        _offsets(p.height, p.width, p.line_size // np.dtype(dtype).itemsize, stream) for p in wanted
    )
    is_full = frame.color_range == FULL_RANGE or match[1].startswith("yuvj")
    return Grid(
        layout=layout_of(frame, planes),
        index=index,
        dtype=dtype,
        bits=bits,
        line=planes[0].line_size // np.dtype(dtype).itemsize,
        size=(frame.height, frame.width),
        lut=_lut(is_full),
    )


def _offsets(height: int, width: int, line: int, stream: Row) -> np.ndarray:
    turns = ROTATE[stream["rotation"]]
    num_rows, num_columns = (HEIGHT, WIDTH) if turns % 2 == 0 else (WIDTH, HEIGHT)
    y = ((np.arange(num_rows) + 0.5) * height / num_rows).astype(np.int64)
    x = ((np.arange(num_columns) + 0.5) * width / num_columns).astype(np.int64)
    if stream["interlaced"]:
        y -= y % 2
    return np.rot90(y[:, None] * line + x[None, :], turns).ravel()


def _lut(is_full: bool) -> np.ndarray:
    code = np.arange(256, dtype=np.float64)
    if is_full:
        luma = chroma = code
    else:  # ITU-R BT.601 and BT.709: 16..235 and 16..240
        luma = (code - 16) * 255 / 219
        chroma = (code - 128) * 255 / 224 + 128
    table = np.stack([luma, chroma, chroma], axis=1)
    return np.clip(np.rint(table), 0, 255).astype(np.uint8)


class TinyBatch:
    """Gathers the tiny pictures of up to `capacity` frames of one layout."""

    def __init__(self, capacity: int) -> None:
        self.capacity, self.count = capacity, 0
        self.grid: Grid | None = None
        self._codes = np.empty((0, 0, PIXELS), np.uint8)

    def accepts(self, layout: tuple[Any, ...]) -> bool:
        """Whether a frame of this layout can be added without flushing first."""
        if self.grid is None or self.count == 0:
            return True
        return self.count < self.capacity and self.grid.layout == layout

    def start(self, grid: Grid) -> None:
        """Begin to gather frames of another layout; the batch must be empty."""
        assert self.count == 0
        self.grid = grid
        self._codes = np.full((3, self.capacity, PIXELS), 128, grid.dtype)
        self._codes[1:] <<= grid.bits - 8  # grey pictures have neutral chroma

    def add(self, planes: Any) -> None:
        """Gather one frame's samples."""
        grid, i = self.grid, self.count
        assert grid is not None
        for plane, index, codes in zip(planes, grid.index, self._codes, strict=False):
            np.frombuffer(plane, grid.dtype).take(index, out=codes[i], mode="clip")
        self.count = i + 1

    def flush(self) -> np.ndarray:
        """The gathered pictures, uint8 [N, 36, 64, 3], full-range Y, Cr, Cb; empties the batch."""
        import cv2

        grid = self.grid
        assert grid is not None
        codes = self._codes[:, : self.count]
        if grid.bits > 8:
            codes = (codes >> (grid.bits - 8)).astype(np.uint8)
        channels = [cv2.LUT(codes[plane], grid.lut[:, i]) for i, plane in enumerate((0, 2, 1))]
        self.count = 0
        return cv2.merge(channels).reshape(-1, HEIGHT, WIDTH, 3)


def luma_plane(frame: av.VideoFrame, grid: Grid) -> np.ndarray:
    """Luma of the decoded picture as coded, uint8 [H, W]; a view for 8-bit films."""
    height, width = grid.size
    luma = np.frombuffer(memoryview(frame.planes[0]), grid.dtype).reshape(-1, grid.line)[:height, :width]
    return luma if grid.bits == 8 else (luma >> (grid.bits - 8)).astype(np.uint8)


def levels(grid: Grid) -> tuple[int, float]:
    """The 8-bit code of black, and luma codes per full-range code."""
    is_full = int(grid.lut[255, 0]) == 255 and int(grid.lut[16, 0]) == 16
    return (0, 1.0) if is_full else (16, 219 / 255)
