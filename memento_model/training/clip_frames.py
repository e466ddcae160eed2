"""Frames of a clip's file as the trainer sees them: decoded once, as stored, scaled to cover a shot's size.

Axes: n frames asked for, c channels, h and w pixels.
"""

from __future__ import annotations

from collections.abc import Collection

import av
import torch
import torch.nn.functional as F
from torch import Tensor

from memento_model.config import FrameGrid
from memento_model.errors import DataError


def read_frames(path: str, frames: Collection[int], grid: FrameGrid) -> dict[int, Tensor]:
    """Some frames of a file by their number in it: uint8 [3, h, w] each, RGB.

    Frames are counted, not timed (the files are 16 fps, which the contract checks). Decoding ends with the
    last frame asked for.

    Args:
        path: of the file.
        frames: numbers from 0.
        grid: only its height and width matter.

    Raises:
        DataError: the file cannot be decoded so far, or ends before; without the file's name at its start.
    """
    wanted, made = set(frames), {}
    try:
        with av.open(path) as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            for number, frame in enumerate(container.decode(stream)):
                if number in wanted:
                    made[number] = cover(torch.from_numpy(frame.to_ndarray(format="rgb24")), grid)
                    if len(made) == len(wanted):
                        break
    except (av.error.FFmpegError, OSError, IndexError) as error:
        raise DataError(f"{path} cannot be decoded ({type(error).__name__}); export it again") from error
    if missing := sorted(wanted - made.keys()):
        raise DataError(f"{path} ends before frame {missing[0]}; export it again")
    return made


def cover(picture_hwc: Tensor, grid: FrameGrid) -> Tensor:
    """Scale a picture to cover the size, bilinear, and cut out its centre; the exact size passes through.

    Args:
        picture_hwc: uint8 RGB.
        grid: only its height and width matter.

    Returns:
        uint8 [3, height, width].
    """
    height, width = picture_hwc.shape[:2]
    picture_chw = picture_hwc.permute(2, 0, 1)
    if (height, width) == (grid.height, grid.width):
        return picture_chw.contiguous()
    scale = max(grid.height / height, grid.width / width)
    size = (max(grid.height, round(height * scale)), max(grid.width, round(width * scale)))
    scaled = F.interpolate(picture_chw[None].float(), size, mode="bilinear", antialias=True)[0]
    top, left = (size[0] - grid.height) // 2, (size[1] - grid.width) // 2
    cut = scaled[:, top : top + grid.height, left : left + grid.width]
    return cut.round().clamp(0, 255).to(torch.uint8)


def to_model_range(pictures_u8: Tensor) -> Tensor:
    """uint8 to fp32 in [-1, 1]."""
    return pictures_u8.float() / 127.5 - 1
