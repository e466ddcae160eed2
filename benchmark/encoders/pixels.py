"""From decoded frames to the small pictures that encoders read: resize and crop, nothing else.

Pictures stay uint8; an encoder scales and normalises them on its own device. Every choice of the resizing is
written here, so that no library's changing defaults decide a score: torch's uint8 bicubic filter with
antialiasing equals Pillow's within one level, and is the default. Other filters exist where a published tool
uses them.

Axis letters: t frames, h, w, c of RGB pictures.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SMOOTH = "bicubic-aa"
"""Bicubic with antialiasing on whole levels, as Pillow resizes."""
BICUBIC = "bicubic"
"""Bicubic without antialiasing in float, rounded: torchvision on tensors with `antialias=False`."""
BILINEAR = "bilinear"
"""Bilinear without antialiasing in float, rounded."""
OPENCV = "opencv"
"""OpenCV's bilinear filter on whole levels."""

SQUASH, CENTER, FULL = "squash", "center", "full"
SIDE = 224
PATCH = 14
"""The wide side of `full` pictures is a whole number of these: patches of DINOv2 and CLIP L/14."""
FLOAT_FRAMES = 8
"""Frames that are in memory as floats at once."""

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
"""Mean and standard deviation of red, green and blue, of values between 0 and 1."""


@dataclass(frozen=True, kw_only=True)
class Pixels:
    """How pictures are made from frames.

    Attributes:
        shape: `squash` to a square; `center`: the short side to `short_side`, then the middle square; `full`:
            the short side to 224 and the long one to the multiple of 14 that keeps the aspect best, nothing
            cut off (224 x 392 for 832 x 480 and for 16:9).
        short_side: before the middle is cut out.
        method: filter.
    """

    shape: str
    short_side: int = SIDE
    method: str = SMOOTH

    @property
    def name(self) -> str:
        """Of the pictures; equal names are equal pictures."""
        of = f"of{self.short_side}-" if self.shape == CENTER and self.short_side != SIDE else ""
        return f"{self.shape}{SIDE}-{of}{self.method}"

    def size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) of the pictures of frames of a size."""
        return self._resized(height, width) if self.shape == FULL else (SIDE, SIDE)

    def pictures(self, frames_thwc: np.ndarray) -> np.ndarray:
        """Pictures of frames: uint8 [t, h, w, 3] of any size to uint8 [t, h', w', 3] of `size(h, w)`.

        Raises:
            ValueError: they are not uint8 RGB frames.
        """
        if frames_thwc.dtype != np.uint8 or frames_thwc.ndim != 4 or frames_thwc.shape[3] != 3:
            raise ValueError(
                f"frames must be uint8 [t, h, w, 3], not {frames_thwc.dtype} {list(frames_thwc.shape)}"
            )
        height, width = self._resized(*frames_thwc.shape[1:3])
        resized_thwc = _resize(frames_thwc, (height, width), self.method)
        if self.shape == CENTER:
            top, left = round((height - SIDE) / 2), round((width - SIDE) / 2)
            resized_thwc = resized_thwc[:, top : top + SIDE, left : left + SIDE]
        return np.ascontiguousarray(resized_thwc)

    def _resized(self, height: int, width: int) -> tuple[int, int]:
        if self.shape == SQUASH:
            return SIDE, SIDE
        short, long = min(height, width), max(height, width)
        if self.shape == CENTER:
            wide = int(self.short_side * long / short)  # cut, not rounded, as torchvision does
            return (self.short_side, wide) if height <= width else (wide, self.short_side)
        wide = max(SIDE, round(SIDE * long / short / PATCH) * PATCH)
        return (SIDE, wide) if height <= width else (wide, SIDE)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Pictures and how their levels are normalised.

    Attributes:
        name: of the recipe.
        pixels: how pictures are made.
        mean: subtracted from levels / 255, red, green, blue.
        std: what that is divided by.
    """

    name: str
    pixels: Pixels
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def _recipe(name: str, pixels: Pixels, stats: tuple[tuple[float, float, float], ...]) -> Recipe:
    return Recipe(name=name, pixels=pixels, mean=stats[0], std=stats[1])


VICLIP: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        # Test transform of ViCLIP's own training code.
        _recipe("squash-imagenet", Pixels(shape=SQUASH), IMAGENET),
        # VBench since 2024-11-29: antialiasing pinned off.
        _recipe("vbench-crop-clip", Pixels(shape=CENTER, method=BICUBIC), CLIP),
        # InternVid's demo, which users of the published repositories follow.
        _recipe("demo-squash-imagenet", Pixels(shape=SQUASH, method=OPENCV), IMAGENET),
        # MTEB's wrapper; it does not round to whole levels, which moves a value by half a level at most.
        _recipe("squash-clip", Pixels(shape=SQUASH, method=BILINEAR), CLIP),
    )
}
"""Recipes of ViCLIP in published code."""

CROPS = (CENTER, SQUASH, FULL)


def clip_recipe(crop: str) -> Recipe:
    """CLIP's pictures: OpenAI's transform for `center`; see `benchmark.encoders.clip` for `full`.

    Raises:
        ValueError: no such crop.
    """
    return _recipe(f"clip-{_crop(crop)}", Pixels(shape=crop), CLIP)


def dinov2_recipe(crop: str) -> Recipe:
    """DINOv2's pictures: for `center` its own evaluation transform, the short side to 256, then 224.

    Raises:
        ValueError: no such crop.
    """
    short_side = 256 if _crop(crop) == CENTER else SIDE
    return _recipe(f"dinov2-{crop}", Pixels(shape=crop, short_side=short_side), IMAGENET)


def _crop(crop: str) -> str:
    if crop not in CROPS:
        raise ValueError(f"{crop!r} is no crop: use one of {', '.join(CROPS)}")
    return crop


def _resize(frames_thwc: np.ndarray, size: tuple[int, int], method: str) -> np.ndarray:
    if not len(frames_thwc):
        return np.zeros((0, *size, 3), np.uint8)
    if frames_thwc.shape[1:3] == size:
        return frames_thwc
    if method == OPENCV:
        import cv2

        return np.stack([cv2.resize(f, size[::-1], interpolation=cv2.INTER_LINEAR) for f in frames_thwc])
    import torch
    import torch.nn.functional as F

    if not frames_thwc.flags.writeable:  # torch warns of memory that it might write to
        frames_thwc = frames_thwc.copy()
    frames_tchw = torch.from_numpy(frames_thwc).permute(0, 3, 1, 2)
    if method == SMOOTH:
        small_tchw = F.interpolate(frames_tchw, size, mode="bicubic", align_corners=False, antialias=True)
    else:
        parts = [
            F.interpolate(part_tchw.float(), size, mode=method, align_corners=False)
            for part_tchw in frames_tchw.split(FLOAT_FRAMES)
        ]
        # A cubic filter overshoots at edges.
        small_tchw = torch.cat(parts).round().clamp(0, 255).to(torch.uint8)
    return small_tchw.permute(0, 2, 3, 1).numpy()
