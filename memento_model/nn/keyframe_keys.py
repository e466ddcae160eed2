"""Products of queries and keys of memory frames, for `KeyframeQuery`; axes as there.

Two ways to the same numbers: keys of all tokens, or turned queries brought to the patches.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from curation import cpu_linear
from memento_model.config import ModelConfig
from memento_model.nn.rope import axis_turns, rotary_table, rotate


class QueryAttention(nn.Module):
    """Weights of one multi-head attention from queries; RMSNorm over all heads of queries and keys."""

    def __init__(self, width: int, num_heads: int, eps: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q, self.k, self.v, self.o = (nn.Linear(width, width) for _ in range(4))
        self.norm_q, self.norm_k = nn.RMSNorm(width, eps=eps), nn.RMSNorm(width, eps=eps)

    def heads(self, x: Tensor) -> Tensor:
        """[..., d] -> [..., heads, d / heads]."""
        return x.unflatten(-1, (self.num_heads, -1))

    def query(self, rows_bqd: Tensor) -> Tensor:
        """Normalised queries, divided by the root of their channels: [..., heads, e]."""
        q_bqhe = self.heads(normalise(self.norm_q, linear(self.q, rows_bqd)))
        return q_bqhe * q_bqhe.shape[-1] ** -0.5

    def output(self, pooled_bqhd: Tensor) -> Tensor:
        """What every head of every query has pooled, through its value and the output projection."""
        weight_hed = self.v.weight.float().unflatten(0, (self.num_heads, -1))
        v_bqhe = torch.einsum("bqhd,hed->bqhe", pooled_bqhd, weight_hed)
        return linear(self.o, v_bqhe.flatten(2) + self.v.bias.float())


class TokenKeys:
    """Keys made for every token: few steps, but tokens x width numbers."""

    def __init__(
        self,
        attn: QueryAttention,
        patches_bfrkp: Tensor,
        key_dp: Tensor,
        positions_bf: Tensor,
        split: tuple[int, int, int],
    ) -> None:
        self.attn, self.frames = attn, patches_bfrkp.shape[1]
        self.bare_bld = patches_bfrkp.flatten(1, 3) @ key_dp.T
        rows, columns = patches_bfrkp.shape[2:4]
        self.table_bl1c2 = rotary_table(positions_bf, rows, columns, split)

    def weights(self, q_bqhe: Tensor) -> Tensor:
        """Softmax over all tokens of products of normalised queries and keys: [b, s, l]."""
        k_blhe = rotate(self.attn.heads(normalise(self.attn.norm_k, self.bare_bld)), self.table_bl1c2)
        return torch.einsum("bqhe,blhe->bqhl", q_bqhe, k_blhe).softmax(dim=-1).flatten(1, 2)

    def mean_products(self, q_bqhe: Tensor) -> Tensor:
        """Products with keys that are not normalised, summed over heads, the mean of a frame: [b, q, f]."""
        k_blhe = rotate(self.attn.heads(self.bare_bld), self.table_bl1c2)
        return q_bqhe.flatten(2) @ k_blhe.flatten(2).unflatten(1, (self.frames, -1)).mean(dim=2).mT


class PatchKeys:
    """The same products without keys: the queries come to the patches."""

    def __init__(
        self,
        attn: QueryAttention,
        patches_bfrkp: Tensor,
        key_dp: Tensor,
        positions_bf: Tensor,
        split: tuple[int, int, int],
    ) -> None:
        self.attn, self.patches_bfrkp, self.key_dp = attn, patches_bfrkp, key_dp
        frames, rows, columns = patches_bfrkp.shape[1:4]
        turns = axis_turns(positions_bf, rows, columns, split)
        self.back_bxc = _back_turns(turns, (frames, rows, columns))

    def weights(self, q_bqhe: Tensor) -> Tensor:
        """As of `TokenKeys`."""
        norm, patches_bfrkp = self.attn.norm_k, self.patches_bfrkp
        normed_hep = (self.key_dp * _weight(norm)[:, None]).unflatten(0, (self.attn.num_heads, -1))
        along_bxqhp = torch.einsum("bxqhe,hep->bxqhp", _turned(q_bqhe, self.back_bxc), normed_hep)
        logits_bfrks = _meet(patches_bfrkp, along_bxqhp.flatten(2, 3))
        assert norm.eps is not None
        scale_bfrk = _inverse_rms(patches_bfrkp, self.key_dp, norm.eps)
        return (logits_bfrks * scale_bfrk[..., None]).flatten(1, 3).softmax(dim=1).mT

    def mean_products(self, q_bqhe: Tensor) -> Tensor:
        """As of `TokenKeys`; the mean over tokens is one over patches."""
        along_bxqp = _turned(q_bqhe, self.back_bxc).flatten(3) @ self.key_dp
        return _meet_on_average(self.patches_bfrkp, along_bxqp).mT


def few_tokens(config: ModelConfig, sizes: Sequence[int]) -> bool:
    """Whether `TokenKeys` multiplies less than `PatchKeys`, for patches of [f, r, k, p]."""
    tokens, ways, patch = sizes[0] * sizes[1] * sizes[2], sum(sizes[:3]), sizes[3]
    queries, width = config.num_local_queries + config.num_global_queries, config.width
    by_tokens = tokens * width * (patch + queries)
    turned = 2 * ways * queries * width * patch
    return by_tokens <= turned + tokens * patch * (3 * queries * config.num_heads + patch)


def to_patches(latents_bcfhw: Tensor, patch: tuple[int, int, int]) -> Tensor:
    """Numbers of every patch, channels last, and a one for the bias: [b, f, r, k, p].

    Channels last, unlike a Conv3d kernel: the copy is four times as fast as one in runs of a patch's columns.
    """
    batch, channels, frames, height, width = latents_bcfhw.shape
    grid = (frames // patch[0], height // patch[1], width // patch[2])
    parts = latents_bcfhw.reshape(batch, channels, grid[0], patch[0], grid[1], patch[1], grid[2], patch[2])
    return F.pad(parts.permute(0, 2, 4, 6, 3, 5, 7, 1).flatten(4), (0, 1), value=1.0)


def patcher_weight(patcher: nn.Conv3d) -> Tensor:
    """The product with `to_patches` that makes tokens: [d, p]."""
    assert patcher.bias is not None
    return torch.cat((patcher.weight.float().movedim(1, -1).flatten(1), patcher.bias.float()[:, None]), 1)


def _back_turns(turns: tuple[Tensor, Tensor, Tensor], sizes: Sequence[int]) -> Tensor:
    """Turns against those of frames, rows and columns, one after the other: [b, x, c], complex.

    Each turns its own section of the channels; the others are zero.
    """
    time_bfc = torch.view_as_complex(turns[0])
    whole_bxc = time_bfc.new_zeros(len(time_bfc), sum(sizes), sum(turn.shape[-2] for turn in turns))
    x = c = 0
    for turn in turns:
        part = torch.view_as_complex(turn)
        whole_bxc[:, x : x + part.shape[-2], c : c + part.shape[-1]] = part.conj()
        x, c = x + part.shape[-2], c + part.shape[-1]
    return whole_bxc


def _turned(q_bqhe: Tensor, turns_bxc: Tensor) -> Tensor:
    """Every query turned in every way: [b, x, q, h, e]."""
    pairs_bqhc = torch.view_as_complex(q_bqhe.unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(pairs_bqhc[:, None] * turns_bxc[:, :, None, None]).flatten(-2)


def _meet(patches_bfrkp: Tensor, along_bxsp: Tensor) -> Tensor:
    """Products of each patch with those of its frame, its row and its column, added: [b, f, r, k, s]."""
    frames, rows, columns = patches_bfrkp.shape[1:4]
    time_bfps, row_brps, column_bkps = along_bxsp.mT.split((frames, rows, columns), dim=1)
    by_frame = patches_bfrkp.flatten(2, 3) @ time_bfps
    by_row = patches_bfrkp.transpose(1, 2).flatten(2, 3) @ row_brps
    by_column = patches_bfrkp.permute(0, 3, 1, 2, 4).flatten(2, 3) @ column_bkps
    return (
        by_frame.unflatten(2, (rows, columns))
        + by_row.unflatten(2, (frames, columns)).transpose(1, 2)
        + by_column.unflatten(2, (frames, rows)).permute(0, 2, 3, 1, 4)
    )


def _meet_on_average(patches_bfrkp: Tensor, along_bxsp: Tensor) -> Tensor:
    """The mean of `_meet` over rows and columns, from means of patches: [b, f, s]."""
    frames, rows, columns = patches_bfrkp.shape[1:4]
    time_bfps, row_brps, column_bkps = along_bxsp.mT.split((frames, rows, columns), dim=1)
    by_row_bfrp, by_column_bfkp = patches_bfrkp.mean(3), patches_bfrkp.mean(2)
    return (
        (by_row_bfrp.mean(2)[:, :, None] @ time_bfps)[:, :, 0]
        + by_row_bfrp.flatten(2) @ row_brps.flatten(1, 2) / rows
        + by_column_bfkp.flatten(2) @ column_bkps.flatten(1, 2) / columns
    )


def _inverse_rms(patches_bfrkp: Tensor, key_dp: Tensor, eps: float) -> Tensor:
    """One over the root mean square of every token's key [b, f, r, k], without making the key."""
    squares = ((patches_bfrkp @ (key_dp.T @ key_dp)) * patches_bfrkp).sum(dim=-1) / len(key_dp)
    return (squares.clamp_min(0) + eps).rsqrt()


def linear(layer: nn.Linear, x: Tensor) -> Tensor:
    """`layer` in fp32 whatever the type of its weights."""
    return cpu_linear.linear(x, layer.weight.float(), layer.bias.float())


def normalise(norm: nn.RMSNorm, x: Tensor) -> Tensor:
    """`norm`, likewise."""
    return F.rms_norm(x, norm.normalized_shape, _weight(norm), norm.eps)


def _weight(norm: nn.RMSNorm) -> Tensor:
    assert norm.weight is not None
    return norm.weight.float()
