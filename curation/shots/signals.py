"""What the one cheap decode of a film leaves behind: per-frame signals, two hours of which fit in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from itertools import pairwise
from pathlib import Path

import numpy as np

from curation.shots import measure

THUMB_HEIGHT, THUMB_WIDTH = 18, 32
PER_FRAME = ("pts", "content", "luma", "thumbs_u8", "corrupt")
PER_KEY = ("sharpness", "bars", "key_slot")


@dataclass(frozen=True)
class Signals:
    """Arrays over the N frames of a span in presentation order, and over K key statistics (about 2 a second).

    Attributes:
        pts: int64 [N], ticks of the stream's time base.
        content: float32 [N, 3], mean absolute difference to the frame before in hue, saturation and value
            (OpenCV's 8-bit HSV); NaN in the first frame of the film.
        luma: float32 [N, 3], mean, standard deviation and 90th percentile of luma over the picture;
            8-bit full range whatever the film's coding, so black is 0 and white 255.
        thumbs_u8: uint8 [N, 18, 32], luma, full range, as displayed (rotation applied).
        corrupt: bool [N], decoded with errors.
        key_frame: int64 [K], index into N of the frames with key statistics.
        sharpness: float32 [K], variance of the Laplacian of luma at source size.
        bars: int16 [K, 4], black rows or columns at top, bottom, left, right in source pixels, as
            displayed; (H, H, W, W) where the whole picture is black, so that a minimum ignores it.
        key_slot: int64 [K], the half second since the film's start whose first frame this is.
        edges_hsv: uint8 [2, 36, 64, 3], tiny pictures of the first and last frame, by which
            neighbours are joined exactly; [0, 36, 64, 3] in an excerpt.
        lower_u8: uint8 [N, 18, 32] of an interlaced film, [0, 18, 32] of any other: as `thumbs_u8`, but of
            the lower field, while everything else is of the upper one.
    """

    pts: np.ndarray
    content: np.ndarray
    luma: np.ndarray
    thumbs_u8: np.ndarray
    corrupt: np.ndarray
    key_frame: np.ndarray
    sharpness: np.ndarray
    bars: np.ndarray
    key_slot: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    edges_hsv: np.ndarray = field(default_factory=lambda: np.zeros((0, 36, 64, 3), np.uint8))
    lower_u8: np.ndarray = field(default_factory=lambda: np.zeros((0, THUMB_HEIGHT, THUMB_WIDTH), np.uint8))

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
        """Consecutive spans as one, as if they had been scanned in one go.

        `key_frame` is shifted to the whole; `content` of a part's first frame is computed against the
        last frame of the part before, and a key statistic is dropped whose half second already has one.
        """
        parts = [part for part in parts if len(part)] or list(parts[:1])
        starts = np.cumsum([0, *(len(p) for p in parts[:-1])])
        keep = [np.ones(len(p.key_frame), bool) for p in parts]
        values = [p.content for p in parts]
        for i, (before, after) in enumerate(pairwise(parts), start=1):
            if len(before.edges_hsv) and len(after.edges_hsv):
                seam = np.stack([before.edges_hsv[1], after.edges_hsv[0]])
                values[i] = np.concatenate([measure.content(seam), after.content[1:]])
            if len(before.key_slot) and len(after.key_slot):
                keep[i][0] = after.key_slot[0] != before.key_slot[-1]
        joined: dict[str, np.ndarray] = {
            name: np.concatenate([getattr(p, name) for p in parts]) for name in (*PER_FRAME, "lower_u8")
        }
        joined["content"] = np.concatenate(values)
        for name in PER_KEY:
            joined[name] = np.concatenate(
                [
                    getattr(p, name)[: len(k)][k[: len(getattr(p, name))]]
                    for p, k in zip(parts, keep, strict=True)
                ]
            )
        joined["key_frame"] = np.concatenate(
            [(p.key_frame + s)[k] for p, s, k in zip(parts, starts, keep, strict=True)]
        )
        ends = [p.edges_hsv for p in parts]
        whole = all(len(e) for e in ends)
        return cls(**joined, edges_hsv=np.stack([ends[0][0], ends[-1][1]]) if whole else ends[0][:0])

    def span(self, start_frame: int, end_frame: int) -> Signals:
        """The frames [start_frame, end_frame) and the key statistics among them."""
        keys = (self.key_frame >= start_frame) & (self.key_frame < end_frame)
        rows = {name: getattr(self, name)[start_frame:end_frame] for name in PER_FRAME}
        slots = self.key_slot[keys] if len(self.key_slot) else self.key_slot
        return Signals(
            **rows,
            key_frame=self.key_frame[keys] - start_frame,
            sharpness=self.sharpness[keys],
            bars=self.bars[keys],
            key_slot=slots,
            lower_u8=self.lower_u8[start_frame:end_frame],
        )
