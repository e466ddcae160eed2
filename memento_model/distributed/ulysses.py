"""Ulysses: one sequence spread over several processes, exchanged for heads at every self-attention.

Between attention calls each process holds a run of consecutive tokens; inside one it holds all tokens of its
share of the heads (Jacobs et al. 2023, DeepSpeed-Ulysses). One exchange carries q, k and v together, in the
type they have; another brings the result back. Nothing is padded: where the tokens do not divide evenly, the
first processes hold one more.

Axes: b batch, l own tokens, w tokens of the whole sequence, h heads, s own share of the heads, d channels of
a head, r processes, c channels.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from memento_model.nn.attention import RangeAttention


def token_cuts(num_tokens: int, num_parts: int) -> list[int]:
    """Where a sequence is cut: part i holds the half-open range [cuts[i], cuts[i + 1])."""
    each, more = divmod(num_tokens, num_parts)
    return [i * each + min(i, more) for i in range(num_parts + 1)]


def check_heads(num_heads: int, num_parts: int) -> None:
    """Refuse a number of processes that does not divide the heads.

    Raises:
        ValueError: names the numbers that do.
    """
    if num_heads % num_parts:
        possible = ", ".join(str(n) for n in range(1, num_heads + 1) if num_heads % n == 0)
        raise ValueError(
            f"context_parallel is {num_parts}, but {num_heads} attention heads divide among {possible} only"
        )


class Ulysses:
    """The transformer's `sequence_parallel` over a process group.

    All processes of the group call the model with the same inputs and get the same output. Losses computed
    from it count once per process: a parameter's gradient averaged over the group is the gradient of the
    loss. FSDP over a mesh that includes the group averages so, and so does `average_gradients`.
    """

    def __init__(self, group: dist.ProcessGroup) -> None:
        self._group = group
        self._rank, self._size = dist.get_rank(group), dist.get_world_size(group)

    def span(self, num_tokens: int) -> tuple[int, int]:
        """Half-open range of the sequence that this process holds.

        Raises:
            ValueError: fewer tokens than processes.
        """
        if num_tokens < self._size:
            raise ValueError(f"{num_tokens} tokens cannot be spread over {self._size} processes")
        cuts = token_cuts(num_tokens, self._size)
        return cuts[self._rank], cuts[self._rank + 1]

    @torch.compiler.disable  # collectives of ragged sizes; the rest of the block still compiles
    def attend(
        self, q_blhd: Tensor, k_blhd: Tensor, v_blhd: Tensor, inner: RangeAttention, num_tokens: int
    ) -> Tensor:
        """Own tokens, all heads -> all tokens, own heads -> `inner` -> own tokens, all heads.

        Args:
            q_blhd: queries of own tokens.
            k_blhd: keys, likewise.
            v_blhd: values, likewise.
            inner: attention over the whole sequence for any number of heads.
            num_tokens: of the whole sequence.

        Returns:
            Tensor [b, l, h, d].
        """
        own, all_sizes = self._sizes(num_tokens)
        parts = [x.unflatten(2, (self._size, -1)).permute(2, 1, 0, 3, 4) for x in (q_blhd, k_blhd, v_blhd)]
        packed = torch.stack(parts, dim=3).flatten(0, 1)  # (r l) b 3 s d
        whole = _exchange(packed, [own] * self._size, all_sizes, self._group)  # w b 3 s d
        q_bwsd, k_bwsd, v_bwsd = (x.transpose(0, 1) for x in whole.unbind(2))
        out_bwsd = inner(q_bwsd, k_bwsd, v_bwsd)
        back = _exchange(out_bwsd.transpose(0, 1), all_sizes, [own] * self._size, self._group)
        return back.unflatten(0, (self._size, own)).permute(2, 1, 0, 3, 4).flatten(2, 3)

    def gather(self, own_blc: Tensor, num_tokens: int) -> Tensor:
        """The whole sequence [b, w, c] from every process's own tokens, on every process; differentiable."""
        own, all_sizes = self._sizes(num_tokens)
        copies = own_blc.transpose(0, 1).repeat(self._size, 1, 1)
        return _exchange(copies, [own] * self._size, all_sizes, self._group).transpose(0, 1)

    def _sizes(self, num_tokens: int) -> tuple[int, list[int]]:
        cuts = token_cuts(num_tokens, self._size)
        sizes = [stop - start for start, stop in pairwise(cuts)]
        return sizes[self._rank], sizes


class _Exchange(torch.autograd.Function):
    """Rows to every process; the gradient of a row travels back to where the row came from."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, sent: list[int], received: list[int], group: Any) -> Tensor:
        ctx.way = (received, sent, group)
        return _all_to_all(rows, sent, received, group)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        return _all_to_all(grads[0], *ctx.way), None, None, None


def _exchange(rows: Tensor, sent: list[int], received: list[int], group: dist.ProcessGroup) -> Tensor:
    out = _Exchange.apply(rows, sent, received, group)
    assert isinstance(out, Tensor)
    return out


def _all_to_all(rows: Tensor, sent: list[int], received: list[int], group: dist.ProcessGroup) -> Tensor:
    out = rows.new_empty((sum(received), *rows.shape[1:]))
    dist.all_to_all_single(out, rows.contiguous(), received, sent, group=group)
    return out
