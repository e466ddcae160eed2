"""Ulysses: one sequence spread over several processes, exchanged for heads at every self-attention.

Between attention calls each process holds a run of consecutive tokens; inside one it holds all tokens of its
share of the heads (Jacobs et al. 2023, DeepSpeed-Ulysses). One exchange carries q, k and v together, in the
type they have; another brings the result back. Nothing is padded: where tokens or heads do not divide evenly,
the first processes hold one more.

Axes: b batch, l own tokens, w tokens of the whole sequence, h heads, s own share of the heads, d channels of
a head, c channels.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from memento_model.nn.attention import RangeAttention


def cuts(number: int, num_parts: int) -> list[int]:
    """Where a row of tokens or heads is cut: part i holds the half-open range [cuts[i], cuts[i + 1])."""
    each, more = divmod(number, num_parts)
    return [i * each + min(i, more) for i in range(num_parts + 1)]


def _sizes(number: int, num_parts: int) -> list[int]:
    return [stop - start for start, stop in pairwise(cuts(number, num_parts))]


def check_heads(num_heads: int, num_parts: int) -> None:
    """Refuse more processes than there are heads.

    Raises:
        ValueError: names the largest number.
    """
    if num_parts > num_heads:
        raise ValueError(
            f"{num_parts} processes cannot share {num_heads} attention heads; start at most {num_heads}"
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
        start, stop = cuts(num_tokens, self._size)[self._rank : self._rank + 2]
        return start, stop

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
        batch, _, num_heads, channels = q_blhd.shape
        tokens, heads = (_sizes(number, self._size) for number in (num_tokens, num_heads))
        own, share = tokens[self._rank], heads[self._rank]
        row = batch * channels  # numbers of a token in one head
        packed_lb3hd = torch.stack((q_blhd, k_blhd, v_blhd), dim=2).transpose(0, 1)
        sent = torch.cat([part.flatten() for part in packed_lb3hd.split(heads, dim=3)])
        whole = self._exchange(
            sent, [own * s * 3 * row for s in heads], [w * share * 3 * row for w in tokens]
        )
        q_bwsd, k_bwsd, v_bwsd = whole.view(num_tokens, batch, 3, share, channels).transpose(0, 1).unbind(2)
        out_bwsd = inner(q_bwsd, k_bwsd, v_bwsd)
        sent = out_bwsd.transpose(0, 1).flatten()
        back = self._exchange(sent, [w * share * row for w in tokens], [own * s * row for s in heads])
        parts_lbsd = [
            part.view(own, batch, -1, channels) for part in back.split([own * s * row for s in heads])
        ]
        return torch.cat(parts_lbsd, dim=2).transpose(0, 1)

    def gather(self, own_blc: Tensor, num_tokens: int) -> Tensor:
        """The whole sequence [b, w, c] from every process's own tokens, on every process; differentiable."""
        tokens = _sizes(num_tokens, self._size)
        copies = own_blc.transpose(0, 1).repeat(self._size, 1, 1)
        return self._exchange(copies, [tokens[self._rank]] * self._size, tokens).transpose(0, 1)

    def _exchange(self, rows: Tensor, sent: list[int], received: list[int]) -> Tensor:
        out = _Exchange.apply(rows, sent, received, self._group)
        assert isinstance(out, Tensor)
        return out


class _Exchange(torch.autograd.Function):
    """Rows to every process; the gradient of a row travels back to where the row came from."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, sent: list[int], received: list[int], group: Any) -> Tensor:
        ctx.way = (received, sent, group)
        return _all_to_all(rows, sent, received, group)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        return _all_to_all(grads[0], *ctx.way), None, None, None


def _all_to_all(rows: Tensor, sent: list[int], received: list[int], group: dist.ProcessGroup) -> Tensor:
    out = rows.new_empty((sum(received), *rows.shape[1:]))
    dist.all_to_all_single(out, rows.contiguous(), received, sent, group=group)
    return out
