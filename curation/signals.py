"""What the one cheap decode of a film leaves behind: per-frame signals, small enough for two hours in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

THUMB_HEIGHT, THUMB_WIDTH = 18, 32


@dataclass(frozen=True)
class Signals:
    """Arrays over the N frames of a span in presentation order, and over K key statistics (about 2 a second).

    Attributes:
        pts: int64 [N], ticks of the stream's time base.
        content: float32 [N, 3], mean absolute difference to the frame before in hue, saturation and value
            (OpenCV's 8-bit HSV); NaN in the first frame of the film.
        luma: float32 [N, 3], mean, standard deviation and 90th percentile of 8-bit luma over the picture.
        thumbs_u8: uint8 [N, 18, 32], luma.
        corrupt: bool [N], decoded with errors.
        key_frame: int64 [K], index into N of the frames with key statistics.
        sharpness: float32 [K], variance of the Laplacian of luma at source size.
        bars: int16 [K, 4], black rows or columns at top, bottom, left, right in source pixels.
    """

    pts: np.ndarray
    content: np.ndarray
    luma: np.ndarray
    thumbs_u8: np.ndarray
    corrupt: np.ndarray
    key_frame: np.ndarray
    sharpness: np.ndarray
    bars: np.ndarray

    def __len__(self) -> int:
        return len(self.pts)

    def save(self, path: Path) -> None:
        """Write as an uncompressed npz."""
        with path.open("wb") as file:
            np.savez(file, **{f.name: getattr(self, f.name) for f in fields(self)})

    @classmethod
    def load(cls, path: Path) -> Signals:
        """Read what `save` wrote."""
        with np.load(path) as data:
            return cls(**{f.name: data[f.name] for f in fields(cls)})

    @classmethod
    def concat(cls, parts: Sequence[Signals]) -> Signals:
        """Consecutive spans as one; `key_frame` is shifted to the whole."""
        starts = np.cumsum([0, *(len(p) for p in parts[:-1])])
        joined = {
            f.name: np.concatenate([getattr(p, f.name) for p in parts])
            for f in fields(cls)
            if f.name != "key_frame"
        }
        keys = np.concatenate([p.key_frame + s for p, s in zip(parts, starts, strict=True)])
        return cls(**joined, key_frame=keys)

    def span(self, start_frame: int, end_frame: int) -> Signals:
        """The frames [start_frame, end_frame) and the key statistics among them."""
        keys = (self.key_frame >= start_frame) & (self.key_frame < end_frame)
        rows = {
            name: getattr(self, name)[start_frame:end_frame]
            for name in ("pts", "content", "luma", "thumbs_u8", "corrupt")
        }
        return Signals(
            **rows,
            key_frame=self.key_frame[keys] - start_frame,
            sharpness=self.sharpness[keys],
            bars=self.bars[keys],
        )
