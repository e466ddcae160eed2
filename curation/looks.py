"""Looks: small pictures of every exported clip, four a second, made during the export's own decode.

Whatever looks at clips later (captions) takes them from here, so that no video is decoded for it again. A
sequence has one Parquet file with a JPEG per row, in order of clip and frame.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

EVERY = 4
"""Every fourth frame of a clip (4 a second): the rate at which the trainer samples memory frames."""
FPS = 16 // EVERY
QUALITY = 92
UNIT = 32
"""Sides are multiples of this: Qwen3-VL takes 32x32 pixels as one token, and must not resample again."""
SCHEMA = pa.schema([("clip_index", pa.int32()), ("frame", pa.int32()), ("jpeg", pa.binary())])


@dataclass(frozen=True)
class Look:
    """One picture. `frame` counts frames of the clip at 16 fps."""

    clip_index: int
    frame: int
    jpeg: bytes

    def rgb_hwc_u8(self) -> np.ndarray:
        """The picture: uint8 [H, W, 3] RGB."""
        from PIL import Image

        return np.asarray(Image.open(io.BytesIO(self.jpeg)).convert("RGB"))


def look_size(height: int, width: int, tokens: int) -> tuple[int, int]:
    """(height, width) of a look: multiples of 32, near the clip's shape, at most `tokens` blocks of 32x32.

    Of all sizes that keep the shape within 5 % the largest is taken, of equally large ones the truest; when
    none keeps it, the truest.
    """
    shape, best, fallback = height / width, (0, -1.0, 0, 0), (9e9, 0, 0)
    for rows in range(1, tokens + 1):
        for columns in range(1, tokens // rows + 1):
            if rows * UNIT > height + UNIT // 2 or columns * UNIT > width + UNIT // 2:
                continue
            off = abs(np.log(rows / columns / shape))
            fallback = min(fallback, (off, rows, columns))
            if off <= 0.05:
                best = max(best, (rows * columns, -off, rows, columns))
    rows, columns = best[2:] if best[0] else fallback[1:]
    return max(1, rows) * UNIT, max(1, columns) * UNIT


def jpeg_of(rgb_hwc_u8: np.ndarray) -> bytes:
    """A picture as JPEG; the same picture gives the same bytes."""
    from PIL import Image

    with io.BytesIO() as file:
        Image.fromarray(rgb_hwc_u8).save(file, "JPEG", quality=QUALITY)
        return file.getvalue()


def write_looks(path: Path, looks: Iterable[Look]) -> None:
    """Write the looks of a sequence."""
    rows = [{"clip_index": k.clip_index, "frame": k.frame, "jpeg": k.jpeg} for k in looks]
    # JPEG does not compress again
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), path, compression="none")


def read_looks(path: Path) -> list[Look]:
    """The looks of a sequence, in order of clip and frame."""
    return [Look(**row) for row in pq.read_table(path, schema=SCHEMA).to_pylist()]
