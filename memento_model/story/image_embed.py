"""How alike two pictures are: CLIP where its weights are, a thumbnail where they are not.

Axes: n images, d numbers of an embedding.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from curation.cpu_linear import speed_up

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
THUMBNAIL = (6, 10)


class ClipEmbedder:
    """Image tower of CLIP (ViT-B/32 in StoryMem), from a transformers folder.

    Raises:
        OSError: the folder holds no CLIP model.
    """

    def __init__(self, folder: Path, device: torch.device | str = "cpu") -> None:
        from transformers import CLIPVisionModelWithProjection

        # a class of three frameworks: its loader's type is of no use here
        model: Any = CLIPVisionModelWithProjection.from_pretrained(folder, local_files_only=True)
        self._model = speed_up(model.eval()).to(device)
        self.name = f"clip:{folder.name}"

    @torch.inference_mode()
    def __call__(self, images_nchw: Tensor) -> Tensor:
        """Unit vectors [n, d] of images in [-1, 1].

        As CLIP was trained: the shorter side scaled to the model's size, then the centre square.
        """
        size = self._model.config.image_size
        height, width = images_nchw.shape[2:]
        scale = size / min(height, width)
        shape = (max(size, round(height * scale)), max(size, round(width * scale)))
        images = F.interpolate(images_nchw.float(), shape, mode="bicubic", antialias=True)
        top, left = (shape[0] - size) // 2, (shape[1] - size) // 2
        images = images[:, :, top : top + size, left : left + size].clamp(-1, 1) / 2 + 0.5
        mean, std = (torch.tensor(v)[:, None, None] for v in (CLIP_MEAN, CLIP_STD))
        embeds = self._model(((images - mean) / std).to(self._model.device)).image_embeds
        return F.normalize(embeds.float(), dim=-1)


class ThumbnailEmbedder:
    """Colours of a coarse grid: no weights, and no idea of what is seen. For the debug tier."""

    name = "thumbnail"

    def __call__(self, images_nchw: Tensor) -> Tensor:
        """Unit vectors [n, 180] of images in [-1, 1]."""
        small = F.interpolate(images_nchw.float(), THUMBNAIL, mode="area").flatten(1)
        return F.normalize(small, dim=-1)
