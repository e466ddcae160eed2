"""A plain transformer and plain keyframe queries: the peers of `perf.model`.

Written from the description of Wan2.2 and Memento with the choices of the published code, and none of ours:

    modulation   time embedding and the six vectors of a block for every token, fp32
    rotary       positions turned in complex128
    scores       softmax over a full matrix of attention scores
    residual     the stream between blocks in fp32

Each choice can be left out, to see what it costs. The weights are those of our models, by name.

Axes: b batch, l tokens, k keys, d width, h heads, e channels of a head, q queries, f frames, n tokens of a
frame.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from memento_model.config import Layout, ModelConfig, rope_split

CHOICES = frozenset({"modulation", "rotary", "scores", "residual"})
Weights = Mapping[str, Tensor]


class PlainTransformer:
    """One expert, with split attention over [identity | memory | target]."""

    def __init__(self, weights: Weights, config: ModelConfig, choices: frozenset[str] = CHOICES) -> None:
        self.weights, self.config, self.choices = weights, config, choices

    def __call__(
        self,
        latents_bcfhw: Tensor,
        timestep_b: Tensor,
        text_bld: Tensor,
        *,
        positions_bf: Tensor,
        layout: Layout,
        identity_text: list[Tensor],
    ) -> Tensor:
        """Velocity, with the arguments of `MementoTransformer` (one identity frame, split attention)."""
        w, dtype = self.weights, self.weights["patch_embedding.weight"].dtype
        patch = self.config.patch_size
        x = F.conv3d(
            latents_bcfhw.to(dtype), w["patch_embedding.weight"], w["patch_embedding.bias"], stride=patch
        )
        frames, rows, columns = x.shape[2:]
        x_bld = x.flatten(2).transpose(1, 2)
        x_bld = x_bld.float() if "residual" in self.choices else x_bld
        time_bld, six_bl6d = self.embed_time(timestep_b, x_bld.shape[1])
        turns = rotary(positions_bf, (rows, columns), self.config.head_dim, "rotary" in self.choices)
        texts = [self.embed_text(text) for text in (text_bld, *identity_text)]
        sizes = [
            n * rows * columns for n in (layout.identity_frames, layout.memory_frames, layout.target_frames)
        ]
        for index in range(self.config.num_layers):
            x_bld = self.block(f"blocks.{index}.", x_bld, texts, six_bl6d, turns, sizes)
        table = w["scale_shift_table"].float()[:, None] + time_bld[:, :, None]
        shift, scale = table.unbind(2)
        normed = F.layer_norm(x_bld.float(), x_bld.shape[-1:], eps=self.config.eps)
        out = self.linear("proj_out", normed * (1 + scale) + shift).float()
        out = out.reshape(out.shape[0], frames, rows, columns, *patch, -1)
        out = torch.einsum("bfhwpqrc->bcfphqwr", out)
        return out.reshape(out.shape[0], -1, frames * patch[0], rows * patch[1], columns * patch[2])

    def embed_time(self, timestep_b: Tensor, tokens: int) -> tuple[Tensor, Tensor]:
        """Embedding [b, l, d] and six vectors [b, l, 6, d]; l is 1 where the choice is left out."""
        count = tokens if "modulation" in self.choices else 1
        half = self.config.freq_dim // 2
        rates = 10000.0 ** -(torch.arange(half, dtype=torch.float64, device=timestep_b.device) / half)
        angles = timestep_b.double()[:, None].expand(-1, count)[..., None] * rates
        wave = torch.cat((angles.cos(), angles.sin()), dim=-1).float()
        prefix = "condition_embedder."
        time = self.linear(f"{prefix}time_embedder.linear_1", wave)
        time = self.linear(f"{prefix}time_embedder.linear_2", F.silu(time)).float()
        six = self.linear(f"{prefix}time_proj", F.silu(time)).float()
        return time, six.unflatten(2, (6, -1))

    def embed_text(self, text_btd: Tensor) -> Tensor:
        """Padding rows are embedded like any others."""
        padded = F.pad(text_btd, (0, 0, 0, self.config.text_len - text_btd.shape[1]))
        prefix = "condition_embedder.text_embedder."
        hidden = F.gelu(self.linear(f"{prefix}linear_1", padded), approximate="tanh")
        return self.linear(f"{prefix}linear_2", hidden)

    def block(
        self,
        name: str,
        x_bld: Tensor,
        texts: list[Tensor],
        six_bl6d: Tensor,
        turns: Tensor,
        sizes: list[int],
    ) -> Tensor:
        """One block; `sizes` are the tokens of identity, memory and target."""
        own = self.weights[f"{name}scale_shift_table"].float()[:, None] + six_bl6d
        shift, scale, gate, ffn_shift, ffn_scale, ffn_gate = own.unbind(2)
        width, eps, stream = x_bld.shape[-1:], self.config.eps, x_bld.dtype
        x = F.layer_norm(x_bld.float(), width, eps=eps) * (1 + scale) + shift
        y = self.self_attention(f"{name}attn1.", x, turns, sizes)
        x_bld = (x_bld + y.float() * gate).to(stream)
        norm = self.weights[f"{name}norm2.weight"].float(), self.weights[f"{name}norm2.bias"].float()
        x = F.layer_norm(x_bld.float(), width, *norm, eps=eps)
        first = sizes[0]
        y = torch.cat(
            [
                self.cross_attention(f"{name}attn2.", x[:, :first], texts[1]),
                self.cross_attention(f"{name}attn2.", x[:, first:], texts[0]),
            ],
            dim=1,
        )
        x_bld = x_bld + y.to(stream)
        x = F.layer_norm(x_bld.float(), width, eps=eps) * (1 + ffn_scale) + ffn_shift
        y = F.gelu(self.linear(f"{name}ffn.net.0.proj", x), approximate="tanh")
        return (x_bld + self.linear(f"{name}ffn.net.2", y).float() * ffn_gate).to(stream)

    def self_attention(self, name: str, x_bld: Tensor, turns: Tensor, sizes: list[int]) -> Tensor:
        """Identity with memory, memory with target; memory gets half of either."""
        q, k = (
            turn(self.heads(self.normed(name, part, x_bld)), turns, "rotary" in self.choices) for part in "qk"
        )
        v = self.heads(self.linear(f"{name}to_v", x_bld))
        q, k = q.to(v.dtype), k.to(v.dtype)
        first, middle = sizes[0], sizes[0] + sizes[1]
        before = self.attend(q[:, :middle], k[:, :middle], v[:, :middle])
        after = self.attend(q[:, first:], k[:, first:], v[:, first:])
        memory = 0.5 * before[:, first:] + 0.5 * after[:, : sizes[1]]
        whole = torch.cat((before[:, :first], memory, after[:, sizes[1] :]), dim=1)
        return self.linear(f"{name}to_out.0", whole.flatten(2))

    def cross_attention(self, name: str, x_bld: Tensor, text_btd: Tensor) -> Tensor:
        """Rows read one caption."""
        q = self.heads(self.normed(name, "q", x_bld))
        k = self.heads(self.normed(name, "k", text_btd))
        v = self.heads(self.linear(f"{name}to_v", text_btd))
        return self.linear(f"{name}to_out.0", self.attend(q.to(v.dtype), k.to(v.dtype), v).flatten(2))

    def attend(self, q_blhe: Tensor, k_bkhe: Tensor, v_bkhe: Tensor) -> Tensor:
        """Softmax attention over all keys."""
        q, k, v = (x.transpose(1, 2) for x in (q_blhe, k_bkhe, v_bkhe))
        if "scores" not in self.choices:
            return F.scaled_dot_product_attention(q, k, v).transpose(1, 2)
        scores_bhlk = q @ k.transpose(2, 3) / math.sqrt(q.shape[-1])
        return (scores_bhlk.softmax(dim=-1) @ v).transpose(1, 2)

    def heads(self, x: Tensor) -> Tensor:
        """[..., d] -> [..., h, e]."""
        return x.unflatten(-1, (self.config.num_heads, -1))

    def normed(self, name: str, part: str, x: Tensor) -> Tensor:
        """Projection and RMSNorm over the whole width."""
        made = self.linear(f"{name}to_{part}", x).float()
        return rms_norm(made, self.weights[f"{name}norm_{part}.weight"], self.config.eps)

    def linear(self, name: str, x: Tensor) -> Tensor:
        """The layer of that name."""
        weight = self.weights[f"{name}.weight"]
        return F.linear(x.to(weight.dtype), weight, self.weights[f"{name}.bias"])


class PlainQuery:
    """Keyframe queries: tokens of full width, keys projected twice, a score for every token and head."""

    def __init__(self, weights: Weights, config: ModelConfig) -> None:
        self.weights, self.config = weights, config

    def __call__(
        self, candidates_bcfhw: Tensor, positions_bf: Tensor, local_btd: Tensor, global_btd: Tensor
    ) -> Tensor:
        """Scores [b, q, f] of `KeyframeQuery`, local queries first."""
        w, patch = self.weights, self.config.patch_size
        x = F.conv3d(candidates_bcfhw, w["memory_patcher.weight"], w["memory_patcher.bias"], stride=patch)
        frames, grid = x.shape[2], (x.shape[3], x.shape[4])
        tokens_bld = x.flatten(2).transpose(1, 2)
        rows = [
            queries + self.attention("query_to_text.", queries.expand(len(text), -1, -1), text, None)
            for queries, text in ((w["queries"], local_btd), (w["queries_global"], global_btd))
        ]
        rows_bqd = torch.cat(rows, dim=1)
        turns = rotary(positions_bf, grid, self.config.head_dim, True)
        rows_bqd = rows_bqd + self.attention("query_to_visual.", rows_bqd, tokens_bld, turns)
        q_bqhe = self.heads(self.linear("query_to_visual.q", rows_bqd))
        k_blhe = turn(self.heads(self.linear("query_to_visual.k", tokens_bld)), turns, True)
        scores_bhql = torch.einsum("bqhe,blhe->bhql", q_bqhe, k_blhe) / math.sqrt(self.config.head_dim)
        return scores_bhql.mean(dim=1).unflatten(2, (frames, -1)).mean(dim=-1)

    def attention(self, name: str, rows_bqd: Tensor, keys_bld: Tensor, turns: Tensor | None) -> Tensor:
        """Multi-head attention with normalised queries and keys."""
        q, k = (
            self.heads(
                rms_norm(
                    self.linear(f"{name}{part}", x),
                    self.weights[f"{name}norm_{part}.weight"],
                    self.config.eps,
                )
            )
            for part, x in (("q", rows_bqd), ("k", keys_bld))
        )
        v = self.heads(self.linear(f"{name}v", keys_bld))
        k = k if turns is None else turn(k, turns, True)
        scores = torch.einsum("bqhe,blhe->bhql", q, k) / math.sqrt(self.config.head_dim)
        out = torch.einsum("bhql,blhe->bqhe", scores.softmax(dim=-1), v)
        return self.linear(f"{name}o", out.flatten(2))

    def heads(self, x: Tensor) -> Tensor:
        """[..., d] -> [..., h, e]."""
        return x.unflatten(-1, (self.config.num_heads, -1))

    def linear(self, name: str, x: Tensor) -> Tensor:
        """The layer of that name."""
        return F.linear(x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return x * torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + eps) * weight.float()


def rotary(positions_bf: Tensor, grid: tuple[int, int], head_dim: int, double: bool) -> Tensor:
    """Complex turns [b, l, 1, head_dim / 2] of every token."""
    device = positions_bf.device
    rows, columns = (torch.arange(count, device=device) for count in grid)
    batch, frames = positions_bf.shape
    places = (
        positions_bf[:, :, None, None].expand(batch, frames, *grid),
        rows[None, None, :, None].expand(batch, frames, *grid),
        columns[None, None, None, :].expand(batch, frames, *grid),
    )
    parts = []
    for place, channels in zip(places, rope_split(head_dim), strict=True):
        steps = torch.arange(0, channels, 2, dtype=torch.float64, device=device) / channels
        angles = place.flatten(1).double()[..., None] * 10000.0**-steps
        parts.append(torch.polar(torch.ones_like(angles), angles))
    turns = torch.cat(parts, dim=-1)[:, :, None]
    return turns if double else turns.to(torch.complex64)


def turn(x_blhe: Tensor, turns: Tensor, double: bool) -> Tensor:
    real: Any = torch.float64 if double else torch.float32
    pairs = torch.view_as_complex(x_blhe.to(real).unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * turns).flatten(-2).float()
