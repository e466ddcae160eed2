"""ViCLIP: one feature for a clip of eight frames, and features of texts in the same space.

Architecture of InternVideo's `Data/InternVid/viclip` (arXiv 2307.06942, section 4), by the names of the
published checkpoints. Space and time are attended to together; the class token's output is the feature of the
clip. The published class drops nine tokens of ten unless it is told not to; here nothing is dropped.

Axis letters: n clips or texts, t frames, p patches of a frame, l tokens, c channels, h, w, d width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmark.encoders.layers import quick_gelu
from benchmark.encoders.tensors import State, assembled, made_up
from benchmark.encoders.tokenizer import NUM_TOKENS
from curation.cpu_linear import linear
from curation.weights import WeightsDamaged

NUM_FRAMES = 8
TEXT_LENGTH = 32
"""Of the published checkpoints: 30 tokens of a text between two marks."""
_TABLE = "text_encoder.positional_embedding"


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Sizes of both towers.

    Attributes:
        size: height and width of pictures.
        patch: height and width of a patch.
        width: of the vision tower.
        layers: of the vision tower.
        heads: of the vision tower.
        features: width of the common space.
        text_width: of the text tower.
        text_layers: of the text tower.
        text_heads: of the text tower.
        text_length: tokens that the text tower reads, marks included.
    """

    size: int = 224
    patch: int
    width: int
    layers: int
    heads: int
    features: int
    text_width: int
    text_layers: int = 12
    text_heads: int
    text_length: int = TEXT_LENGTH


SHAPES = {
    "viclip-b16": Shape(patch=16, width=768, layers=12, heads=12, features=512, text_width=512, text_heads=8),
    "viclip-l14": Shape(
        patch=14, width=1024, layers=24, heads=16, features=768, text_width=768, text_heads=12
    ),
}


class Attention(nn.Module):
    """Attention of every token to every other one, or to those before it."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.zeros(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)

    def forward(self, tokens_nld: Tensor, *, causal: bool) -> Tensor:
        """[n, l, d] to [n, l, d]."""
        mixed = linear(tokens_nld, self.in_proj_weight, self.in_proj_bias)
        query, key, value = (
            part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in mixed.chunk(3, dim=2)
        )
        seen = F.scaled_dot_product_attention(query, key, value, is_causal=causal)
        return self.out_proj(seen.transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    """Two layers with QuickGELU between them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.c_fc = nn.Linear(width, 4 * width)
        self.c_proj = nn.Linear(4 * width, width)

    def forward(self, tokens_nld: Tensor) -> Tensor:
        """[n, l, d] to [n, l, d]."""
        return self.c_proj(quick_gelu(self.c_fc(tokens_nld)))


class Block(nn.Module):
    """Attention and MLP, each with a norm before it and added to its input."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attn, self.ln_1 = Attention(width, heads), nn.LayerNorm(width)
        self.mlp, self.ln_2 = Mlp(width), nn.LayerNorm(width)

    def forward(self, tokens_nld: Tensor, *, causal: bool) -> Tensor:
        """[n, l, d] to [n, l, d]."""
        tokens_nld = tokens_nld + self.attn(self.ln_1(tokens_nld), causal=causal)
        return tokens_nld + self.mlp(self.ln_2(tokens_nld))


class Blocks(nn.Module):
    """Blocks one after the other."""

    def __init__(self, width: int, layers: int, heads: int) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(Block(width, heads) for _ in range(layers))

    def forward(self, tokens_nld: Tensor, *, causal: bool = False) -> Tensor:
        """[n, l, d] to [n, l, d]."""
        for block in self.resblocks:
            tokens_nld = block(tokens_nld, causal=causal)
        return tokens_nld


class VisionTower(nn.Module):
    """Clips to features."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        width, patch = shape.width, shape.patch
        self.class_embedding = nn.Parameter(torch.zeros(width))
        self.positional_embedding = nn.Parameter(torch.zeros((shape.size // patch) ** 2 + 1, width))
        self.temporal_positional_embedding = nn.Parameter(torch.zeros(1, NUM_FRAMES, width))
        self.conv1 = nn.Conv3d(3, width, (1, patch, patch), (1, patch, patch), bias=False)
        self.ln_pre, self.ln_post = nn.LayerNorm(width), nn.LayerNorm(width)
        self.transformer = Blocks(width, shape.layers, shape.heads)
        self.proj = nn.Parameter(torch.zeros(width, shape.features))

    def forward(self, images_ntchw: Tensor) -> Tensor:
        """Features [n, d] of normalised clips [n, t, 3, h, w].

        Raises:
            ValueError: a clip has neither 8 frames nor 1, or pictures of another size.
        """
        count, frames = images_ntchw.shape[:2]
        # Frames are not mixed by the first layer: it is a convolution of pictures.
        kernel = self.conv1.weight.squeeze(2)
        patches = F.conv2d(images_ntchw.flatten(0, 1), kernel, stride=kernel.shape[-2:]).flatten(2)
        if patches.shape[2] + 1 != len(self.positional_embedding):
            height, width = images_ntchw.shape[-2:]
            raise ValueError(
                f"ViCLIP reads {len(self.positional_embedding) - 1} patches, not {height}x{width}"
            )
        tokens_ntpd = patches.transpose(1, 2).unflatten(0, (count, frames))
        tokens_ntpd = tokens_ntpd + self.positional_embedding[1:] + self._times(frames)[:, None]
        first_d = self.class_embedding + self.positional_embedding[0]
        tokens_nld = torch.cat([first_d.expand(count, 1, -1), tokens_ntpd.flatten(1, 2)], dim=1)
        seen_nld = self.transformer(self.ln_pre(tokens_nld))
        return self.ln_post(seen_nld[:, 0]) @ self.proj

    def _times(self, frames: int) -> Tensor:
        table_td = self.temporal_positional_embedding[0]
        if frames == NUM_FRAMES:
            return table_td
        if frames == 1:
            return table_td.mean(0, keepdim=True)
        raise ValueError(f"ViCLIP reads clips of {NUM_FRAMES} frames (or of 1), not {frames}: cut them")


class TextTower(nn.Module):
    """Texts to features."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        width = shape.text_width
        self.token_embedding = nn.Embedding(NUM_TOKENS, width)
        self.positional_embedding = nn.Parameter(torch.zeros(shape.text_length, width))
        self.transformer = Blocks(width, shape.text_layers, shape.text_heads)
        self.ln_final = nn.LayerNorm(width)
        self.text_projection = nn.Parameter(torch.zeros(width, shape.features))

    def forward(self, tokens_nl: Tensor) -> Tensor:
        """Features [n, d] of token tables [n, l]; the one at the first mark of an end counts."""
        embedded = self.token_embedding(tokens_nl) + self.positional_embedding
        seen_nld = self.ln_final(self.transformer(embedded, causal=True))
        ends = tokens_nl.argmax(dim=1)  # the mark of an end is the highest token
        return seen_nld[torch.arange(len(seen_nld), device=ends.device), ends] @ self.text_projection


class Viclip(nn.Module):
    """Both towers."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.vision_encoder = VisionTower(shape)
        self.text_encoder = TextTower(shape)
        self.temp = nn.Parameter(torch.zeros(()))

    def forward(self, images_ntchw: Tensor) -> Tensor:
        """Features [n, d] of normalised clips, see `VisionTower`."""
        return self.vision_encoder(images_ntchw)

    @property
    def text_length(self) -> int:
        """Tokens that the text tower reads, marks included."""
        return len(self.text_encoder.positional_embedding)


def from_state(name: str, state: State, source: str) -> nn.Module:
    """A published ViCLIP; the text table has as many rows as the checkpoint's.

    Raises:
        WeightsDamaged: it is none, see `benchmark.encoders.tensors.assembled`.
    """
    table = state.get(_TABLE)
    if table is None or table.ndim != 2 or not len(table):
        raise WeightsDamaged(f"{source}: lacks {_TABLE}: no ViCLIP checkpoint")
    return assembled(_build(name, len(table)), state, source)


def random_module(name: str, seed: int) -> nn.Module:
    """A ViCLIP of real size with made-up numbers."""
    return made_up(_build(name), seed)


def _build(name: str, text_length: int = TEXT_LENGTH) -> Callable[[], nn.Module]:
    return lambda: Viclip(replace(SHAPES[name], text_length=text_length))
