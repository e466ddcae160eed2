"""CLIP's vision tower, B/32 and L/14, by open_clip, with QuickGELU as OpenAI trained it.

Weights in three published layouts: OpenAI's own archives and open_clip's checkpoints (`visual.*`), and
transformers' (`vision_model.*`).

Pictures that are no squares (`crop = full`): CLIP was trained on squares only, and the aesthetic heads on
its features of squares, so the table of positions is not stretched. A wide picture is read as the fewest
squares that cover it, evenly spaced (two for 16:9, which overlap in the middle), and its feature is the mean
of their unit features. That costs twice a centre crop; no part of the frame is unseen and every input is of
the trained kind.

Axis letters: n pictures, c channels, h, w, d width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmark.encoders.layers import QuickGelu
from benchmark.encoders.tensors import State, assembled, library, made_up, part_of, renamed
from curation.weights import WeightsDamaged

_FROM_TRANSFORMERS = {
    "embeddings.class_embedding": "class_embedding",
    "embeddings.patch_embedding.": "conv1.",
    "embeddings.position_embedding.weight": "positional_embedding",
    "pre_layrnorm.": "ln_pre.",  # spelt so in the published files
    "post_layernorm.": "ln_post.",
    "encoder.layers.": "transformer.resblocks.",
    ".layer_norm1.": ".ln_1.",
    ".layer_norm2.": ".ln_2.",
    ".mlp.fc1.": ".mlp.c_fc.",
    ".mlp.fc2.": ".mlp.c_proj.",
    ".self_attn.": ".attn.",
}


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Sizes of a vision tower: of pictures, patches, tokens, layers, heads and features."""

    size: int = 224
    patch: int
    width: int
    layers: int
    heads: int
    features: int


SHAPES = {
    "clip-b32": Shape(patch=32, width=768, layers=12, heads=12, features=512),
    "clip-l14": Shape(patch=14, width=1024, layers=24, heads=16, features=768),
}


class Clip(nn.Module):
    """A vision tower, and how it reads pictures that are no squares."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        transformer = library("open_clip.transformer")
        self.size = shape.size
        self.visual = transformer.VisionTransformer(
            image_size=shape.size,
            patch_size=shape.patch,
            width=shape.width,
            layers=shape.layers,
            heads=shape.heads,
            mlp_ratio=4.0,
            output_dim=shape.features,
            act_layer=QuickGelu,
        )

    def forward(self, images_nchw: Tensor) -> Tensor:
        """Projected features [n, d] of normalised pictures whose short side is the tower's size."""
        height, width = images_nchw.shape[2:]
        if height == width:
            return self.visual(images_nchw)
        tiles = torch.cat(
            [images_nchw[:, :, y : y + self.size, x : x + self.size] for y, x in self.tiles(height, width)]
        )
        units_knd = F.normalize(self.visual(tiles), dim=-1).unflatten(0, (-1, len(images_nchw)))
        return units_knd.mean(0)

    def tiles(self, height: int, width: int) -> list[tuple[int, int]]:
        """(top, left) of the squares that cover a picture."""
        count = -(-max(height, width) // self.size)
        tops = np.linspace(0, height - self.size, count).round().astype(int).tolist()
        lefts = np.linspace(0, width - self.size, count).round().astype(int).tolist()
        return list(zip(tops, lefts, strict=True))


def from_state(name: str, state: State, source: str) -> nn.Module:
    """A published CLIP's vision tower; the text tower in the file is not looked at.

    Raises:
        WeightsDamaged: it is none, see `benchmark.encoders.tensors.assembled`.
    """
    if visual := part_of(state, "visual."):
        return assembled(_build(name), _prefixed(visual), source)
    if "vision_model.embeddings.class_embedding" in state:
        return assembled(_build(name), _prefixed(_from_transformers(state, source)), source)
    raise WeightsDamaged(
        f"{source}: neither visual.* (OpenAI, open_clip) nor vision_model.* (transformers) in it: no CLIP"
    )


def random_module(name: str, seed: int) -> nn.Module:
    """A vision tower of real size with made-up numbers."""
    return made_up(_build(name), seed)


def _build(name: str) -> Callable[[], nn.Module]:
    return lambda: Clip(SHAPES[name])


def _prefixed(state: State) -> State:
    return {f"visual.{name}": value for name, value in state.items()}


def _from_transformers(state: State, source: str) -> State:
    """The vision tower of transformers' `CLIPModel` by OpenAI's names."""
    vision = part_of(state, "vision_model.")
    vision.pop("embeddings.position_ids", None)  # a count from 0 in older files
    made = renamed(vision, _FROM_TRANSFORMERS)
    if "visual_projection.weight" not in state:
        raise WeightsDamaged(
            f"{source}: lacks visual_projection.weight: another model, or an incomplete file"
        )
    made["proj"] = state["visual_projection.weight"].T.contiguous()
    for block in {name.rpartition(".attn.")[0] for name in made if ".attn." in name}:
        for kind in ("weight", "bias"):
            parts = [made.pop(f"{block}.attn.{one}_proj.{kind}", None) for one in "qkv"]
            found = [part for part in parts if part is not None]
            if len(found) < len(parts):
                raise WeightsDamaged(f"{source}: {block} lacks a part of its attention: an incomplete file")
            made[f"{block}.attn.in_proj_{kind}"] = torch.cat(found)
    return made
