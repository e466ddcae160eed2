"""DINOv2 ViT-B/14 without registers: the normalised class token, as the hub's `model(picture)` gives it.

Blocks by timm, whose names are those of the published file; the table of positions is stretched as the hub
does it. Weights in two layouts: Meta's own and transformers'.

Axis letters: n pictures, c channels, h, w, l tokens, d width.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmark.encoders.tensors import State, assembled, library, made_up, renamed
from curation.weights import WeightsDamaged

OFFSET = 0.1
"""Added to the number of patches before the scale is computed; the published checkpoints are used so."""
_FROM_TRANSFORMERS = {
    "embeddings.cls_token": "cls_token",
    "embeddings.mask_token": "mask_token",
    "embeddings.register_tokens": "register_tokens",
    "embeddings.position_embeddings": "pos_embed",
    "embeddings.patch_embeddings.projection.": "patch_embed.proj.",
    "encoder.layer.": "blocks.",
    ".attention.output.dense.": ".attn.proj.",
    ".attention.o_proj.": ".attn.proj.",
    ".attention.attention.query.": ".attn.q_proj.",
    ".attention.attention.key.": ".attn.k_proj.",
    ".attention.attention.value.": ".attn.v_proj.",
    ".attention.": ".attn.",  # version 5 has the names of other models inside
    ".layer_scale1.lambda1": ".ls1.gamma",
    ".layer_scale2.lambda1": ".ls2.gamma",
    "layernorm.": "norm.",
}


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Sizes: of the pictures it was trained on, patches, tokens, layers and heads."""

    size: int = 518
    patch: int = 14
    width: int = 768
    layers: int = 12
    heads: int = 12


SHAPES = {"dinov2-b14": Shape()}


class Dinov2(nn.Module):
    """The tower for pictures of any number of whole patches."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        timm = library("timm.models.vision_transformer")
        self.patch = shape.patch
        self.vit = timm.VisionTransformer(
            img_size=shape.size,
            patch_size=shape.patch,
            embed_dim=shape.width,
            depth=shape.layers,
            num_heads=shape.heads,
            init_values=1.0,
            num_classes=0,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
            dynamic_img_size=True,
        )

    def forward(self, images_nchw: Tensor) -> Tensor:
        """Features [n, d] of normalised pictures whose sides are whole numbers of patches."""
        grid = images_nchw.shape[2] // self.patch, images_nchw.shape[3] // self.patch
        patches_nld = self.vit.patch_embed(images_nchw).flatten(1, 2)
        first_nld = self.vit.cls_token.expand(len(images_nchw), -1, -1)
        tokens_nld = torch.cat([first_nld, patches_nld], dim=1) + positions(self.vit.pos_embed, grid)
        return self.vit.norm(self.vit.blocks(tokens_nld))[:, 0]


def positions(table_1ld: Tensor, grid: tuple[int, int]) -> Tensor:
    """The table of positions for a grid of patches, stretched with the hub's offset, without antialiasing.

    Args:
        table_1ld: of the checkpoint, for a square grid, with the class token's row first.
        grid: (rows, columns) of patches.
    """
    side = math.isqrt(table_1ld.shape[1] - 1)
    if grid == (side, side):
        return table_1ld
    square = table_1ld[:, 1:].float().unflatten(1, (side, side)).permute(0, 3, 1, 2)
    scales = [(count + OFFSET) / side for count in grid]
    stretched = F.interpolate(square, scale_factor=scales, mode="bicubic", align_corners=False)
    if stretched.shape[2:] != grid:
        raise ValueError(f"a table of {side}x{side} positions gave {list(stretched.shape[2:])}, not {grid}")
    rows_1ld = stretched.flatten(2).transpose(1, 2).to(table_1ld.dtype)
    return torch.cat([table_1ld[:, :1], rows_1ld], dim=1)


def from_state(name: str, state: State, source: str) -> nn.Module:
    """A published DINOv2.

    Raises:
        WeightsDamaged: it is none, see `benchmark.encoders.tensors.assembled`.
    """
    if any(".embeddings." in f".{key}" for key in state):
        state = _from_transformers(state, source)
    if "register_tokens" in state:
        raise WeightsDamaged(f"{source}: DINOv2 with registers; the metrics use the one without")
    own = {f"vit.{key}": value for key, value in state.items() if key != "mask_token"}  # training only
    return assembled(_build(name), own, source)


def random_module(name: str, seed: int) -> nn.Module:
    """A tower of real size with made-up numbers."""
    return made_up(_build(name), seed)


def _build(name: str) -> Callable[[], nn.Module]:
    return lambda: Dinov2(SHAPES[name])


def _from_transformers(state: State, source: str) -> State:
    """The tensors of transformers' `Dinov2Model` by Meta's names."""
    if all(name.startswith("dinov2.") for name in state):
        state = {name.removeprefix("dinov2."): value for name, value in state.items()}
    made = renamed(state, _FROM_TRANSFORMERS)
    for block in {name.rpartition(".attn.")[0] for name in made if ".attn.q_proj." in name}:
        for kind in ("weight", "bias"):
            parts = [made.pop(f"{block}.attn.{one}_proj.{kind}", None) for one in "qkv"]
            found = [part for part in parts if part is not None]
            if len(found) < len(parts):
                raise WeightsDamaged(f"{source}: {block} lacks a part of its attention: an incomplete file")
            made[f"{block}.attn.qkv.{kind}"] = torch.cat(found)
    return made
