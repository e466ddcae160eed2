"""Products of queries and keys of memory frames, for `KeyframeQuery`; axes as there.

Pairs of axes that are one: z batch and heads, s heads and queries, m heads and pairs of channels.

Two ways to the same numbers: keys of all tokens, or turned queries brought to the patches.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from curation import cpu_linear
from memento_model.config import ModelConfig
from memento_model.nn.rope import MAX_POSITION, MIN_POSITION, axis_turns, rotary_table


class QueryAttention(nn.Module):
    """Weights of one multi-head attention from queries; RMSNorm over all heads of queries and keys."""

    def __init__(self, width: int, num_heads: int, eps: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q, self.k, self.v, self.o = (nn.Linear(width, width) for _ in range(4))
        self.norm_q, self.norm_k = nn.RMSNorm(width, eps=eps), nn.RMSNorm(width, eps=eps)

    def heads(self, x_bld: Tensor) -> Tensor:
        """[b, l, d] -> [z, l, e]; without a copy in a batch of one."""
        batch, length, width = x_bld.shape
        x_blhe = x_bld.view(batch, length, self.num_heads, width // self.num_heads)
        return x_blhe.transpose(1, 2).flatten(0, 1)

    def query(self, rows_bqd: Tensor) -> Tensor:
        """Normalised queries [z, q, e]."""
        return self.heads(normalise(self.norm_q, linear(self.q, rows_bqd)))

    def output(self, pooled_bsd: Tensor) -> Tensor:
        """What heads of queries have pooled, through their values and the output projection: [b, q, d]."""
        batch, _, width = pooled_bsd.shape
        by_head = (self.num_heads, -1, width)
        pooled_hid = pooled_bsd.view(batch, *by_head).transpose(0, 1).reshape(by_head)  # i: b and q
        weight_hed, bias_h1e = (
            self.v.weight.float().view(by_head),
            self.v.bias.float().view(*by_head[:1], 1, -1),
        )
        v_hie = torch.baddbmm(bias_h1e, pooled_hid, weight_hed.mT)
        return linear(self.o, v_hie.transpose(0, 1).flatten(1)).view(batch, -1, width)


class TokenKeys:
    """Keys made for every token: few steps, but tokens x width numbers."""

    def __init__(
        self,
        attn: QueryAttention,
        patches_bpfrk: Tensor,
        key: tuple[Tensor, Tensor],
        positions_bf: Tensor,
        split: tuple[int, int, int],
    ) -> None:
        self.attn = attn
        self.bare_bld = cpu_linear.linear(patches_bpfrk.flatten(2).mT, *key)
        device, rows = positions_bf.device, positions_bf.clamp(MIN_POSITION, MAX_POSITION) - MIN_POSITION
        # Repeated for every head, as one long row, keys turn twice as fast.
        times_n1m = _time_turns(split, attn.num_heads, device)
        places_lm = _place_turns(*patches_bpfrk.shape[3:], split, attn.num_heads, device)
        self.turns_bflm = times_n1m[rows] * places_lm

    def weights(self, q_zqe: Tensor) -> Tensor:
        """Softmax over all tokens of products of normalised queries and keys, by their root: [b, s, l]."""
        attn, bare_bld = self.attn, self.bare_bld
        batch, tokens, _ = bare_bld.shape
        k_zle = attn.heads(self._turned(bare_bld * _weight(attn.norm_k)))
        # What the norm and the root of e divide a key by is one number: it costs less on the products.
        assert attn.norm_k.eps is not None
        squares_b1l = torch.linalg.vector_norm(bare_bld, dim=-1).square().unsqueeze(1) / attn.num_heads
        scale_b1l = (squares_b1l + q_zqe.shape[-1] * attn.norm_k.eps).rsqrt()
        return (torch.bmm(q_zqe, k_zle.mT).view(batch, -1, tokens) * scale_b1l).softmax(dim=-1)

    def mean_products(self, q_bqd: Tensor) -> Tensor:
        """Products with keys that are not normalised, summed over heads, the mean of a frame: [b, q, f]."""
        batch, frames = self.turns_bflm.shape[:2]
        k_bfld = self._turned(self.bare_bld).view(batch, frames, -1, q_bqd.shape[-1])
        return torch.bmm(q_bqd, k_bfld.mean(dim=2).mT)

    def _turned(self, k_bld: Tensor) -> Tensor:
        """Keys turned by their places."""
        pairs_bflm = torch.view_as_complex(k_bld.view(*self.turns_bflm.shape, 2))
        return torch.view_as_real(pairs_bflm * self.turns_bflm).view(k_bld.shape)


class PatchKeys:
    """The same products without keys: the queries come to the patches."""

    def __init__(
        self,
        attn: QueryAttention,
        patches_bpfrk: Tensor,
        key: tuple[Tensor, Tensor],
        positions_bf: Tensor,
        split: tuple[int, int, int],
    ) -> None:
        self.attn = attn
        # A one in every patch meets the bias.
        self.patches_bfrkp = F.pad(patches_bpfrk.movedim(1, -1), (0, 1), value=1.0)
        weight_dp, bias_d = key
        self.key_dp = torch.cat((weight_dp, bias_d[:, None]), dim=1)
        frames, rows, columns = patches_bpfrk.shape[2:]
        turns = axis_turns(positions_bf, rows, columns, split)
        self.back_bxc = _back_turns(turns, (frames, rows, columns))

    def weights(self, q_zqe: Tensor) -> Tensor:
        """As of `TokenKeys`."""
        norm, patches_bfrkp = self.attn.norm_k, self.patches_bfrkp
        normed_hep = (self.key_dp * _weight(norm)[:, None]).unflatten(0, (self.attn.num_heads, -1))
        turned_hbxqe = self._turned(q_zqe)
        along_hip = torch.bmm(turned_hbxqe.flatten(1, 3), normed_hep)  # i: b, x and q
        along_bxhqp = along_hip.unflatten(1, turned_hbxqe.shape[1:4]).permute(1, 2, 0, 3, 4)
        logits_bfrks = _meet(patches_bfrkp, along_bxhqp.flatten(2, 3))
        assert norm.eps is not None
        scale_bfrk = _inverse_rms(patches_bfrkp, self.key_dp, norm.eps) * q_zqe.shape[-1] ** -0.5
        return (logits_bfrks * scale_bfrk[..., None]).flatten(1, 3).softmax(dim=1).mT

    def mean_products(self, q_bqd: Tensor) -> Tensor:
        """As of `TokenKeys`."""
        turned_bxqhe = self._turned(self.attn.heads(q_bqd)).permute(1, 2, 3, 0, 4)
        along_bxqp = turned_bxqhe.flatten(3) @ self.key_dp
        return _meet_on_average(self.patches_bfrkp, along_bxqp).mT

    def _turned(self, q_zqe: Tensor) -> Tensor:
        """Every query turned in every way: [h, b, x, q, e]."""
        q_hbqe = q_zqe.unflatten(0, (-1, self.attn.num_heads)).transpose(0, 1)
        pairs_hbqc = torch.view_as_complex(q_hbqe.unflatten(-1, (-1, 2)).contiguous())
        turned_hbxqc = pairs_hbqc[:, :, None] * self.back_bxc[:, :, None]
        return torch.view_as_real(turned_hbxqc).flatten(-2)


def few_tokens(config: ModelConfig, sizes: Sequence[int]) -> bool:
    """Whether `TokenKeys` multiplies less than `PatchKeys`, for patches of [p, f, r, k]."""
    patch, tokens, ways = sizes[0], sizes[1] * sizes[2] * sizes[3], sum(sizes[1:])
    queries, width = config.num_local_queries + config.num_global_queries, config.width
    by_tokens = tokens * width * (patch + queries)
    turned = 2 * ways * queries * width * patch
    return by_tokens <= turned + tokens * patch * (3 * queries * config.num_heads + patch)


def patch_keys(layer: nn.Linear, patcher_dp: Tensor, patcher_d: Tensor) -> tuple[Tensor, Tensor]:
    """Weight [d, p] and bias [d] of keys straight from patches: the patcher, then the layer."""
    weight_dd = layer.weight.float()
    return cpu_linear.linear(weight_dd, patcher_dp.mT), torch.addmv(layer.bias.float(), weight_dd, patcher_d)


def to_patches(latents_bcfhw: Tensor, patch: tuple[int, int, int]) -> Tensor:
    """Numbers of every patch in the order of a Conv3d kernel: [b, p, f, r, k].

    In memory tokens run last: the copy is twice as fast as one that ends with the patches.
    """
    batch, channels, frames, height, width = latents_bcfhw.shape
    grid = (frames // patch[0], height // patch[1], width // patch[2])
    parts = latents_bcfhw.reshape(batch, channels, grid[0], patch[0], grid[1], patch[1], grid[2], patch[2])
    return parts.permute(0, 1, 3, 5, 7, 2, 4, 6).reshape(batch, -1, *grid)


@lru_cache(maxsize=4)
def _time_turns(split: tuple[int, int, int], heads: int, device: torch.device) -> Tensor:
    """Turns of all times, complex, for every head: [n, 1, m]."""
    # A cached tensor made in inference mode could not be used in a later training step.
    with torch.inference_mode(False), torch.no_grad():
        times_1n = torch.arange(MIN_POSITION, MAX_POSITION + 1, device=device)[None]
        return torch.view_as_complex(rotary_table(times_1n, 1, 1, split)[0]).repeat(1, 1, heads)


@lru_cache(maxsize=4)
def _place_turns(
    rows: int, columns: int, split: tuple[int, int, int], heads: int, device: torch.device
) -> Tensor:
    """Turns of a frame's places, likewise: [l, m]; those of a token are time's times its place's."""
    with torch.inference_mode(False), torch.no_grad():
        start_11 = torch.zeros(1, 1, dtype=torch.long, device=device)
        places_l1c = torch.view_as_complex(rotary_table(start_11, rows, columns, split)[0])
        return places_l1c[:, 0].repeat(1, heads)


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
