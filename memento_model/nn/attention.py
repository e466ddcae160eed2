"""Who attends to what: split self-attention over [identity | memory | target], captions per slot.

Axes: b batch, l tokens, h heads, d channels of a head, n captions, t text rows.

The arithmetic over token ranges is `attend_ranges`, one pure function over whole sequences. With sequence
parallelism the processor hands it to `SequenceParallel.attend`, which calls it with all tokens and a share of
the heads.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, Protocol

import torch
from diffusers.models.attention_dispatch import AttentionBackendName, dispatch_attention_fn
from torch import Tensor

from memento_model.config import Compat, Layout
from memento_model.nn.rope import rotate

AttentionForm = Literal["split", "joint"]
RangeAttention = Callable[[Tensor, Tensor, Tensor], Tensor]
PYTORCH = AttentionBackendName.NATIVE
"""Kernel where none is chosen. Without it diffusers takes a default of the whole process, which any other
model or `DIFFUSERS_ATTN_BACKEND` may have changed: the same story would have other bytes."""


class SequenceParallel(Protocol):
    """Tokens spread over processes: what the transformer and its processors ask for."""

    def span(self, num_tokens: int) -> tuple[int, int]:
        """Half-open range of the sequence that this process holds between attention calls."""

    def attend(
        self, q_blhd: Tensor, k_blhd: Tensor, v_blhd: Tensor, inner: RangeAttention, num_tokens: int
    ) -> Tensor:
        """Own tokens, all heads -> all `num_tokens`, own heads -> `inner` -> own tokens, all heads."""

    def gather(self, own_blc: Tensor, num_tokens: int) -> Tensor:
        """The whole sequence from every process's own tokens, on every process; differentiable."""


@dataclass(frozen=True, kw_only=True)
class TokenPlan:
    """What the attention of one forward needs to know about its sequence, in tokens.

    Attributes:
        identity, memory, target: tokens of each part of the whole sequence, in this order.
        form: `split` (identity with memory, memory with target) or `joint` (everything with everything).
        captions: (start, stop, caption) of the rows held here, half-open, in order; caption 0 is the shot's.
        parallel: spreads the sequence over processes; None on one.
    """

    identity: int
    memory: int
    target: int
    form: AttentionForm
    captions: tuple[tuple[int, int, int], ...]
    parallel: SequenceParallel | None = None

    @property
    def num_tokens(self) -> int:
        """Of the whole sequence."""
        return self.identity + self.memory + self.target

    def rows(self, start: int, stop: int, parallel: SequenceParallel) -> TokenPlan:
        """The same plan seen by a process that holds the rows [start, stop)."""
        clipped = tuple(
            (max(first, start) - start, min(last, stop) - start, caption)
            for first, last, caption in self.captions
            if max(first, start) < min(last, stop)
        )
        return replace(self, captions=clipped, parallel=parallel)


def plan_tokens(
    layout: Layout, tokens_per_frame: int, *, form: AttentionForm, num_identity_captions: int, compat: Compat
) -> TokenPlan:
    """Resolve the asked-for attention to token ranges.

    Args:
        layout: latent frames of each part.
        tokens_per_frame: rows x columns of patches.
        form: split attention, or joint.
        num_identity_captions: 0: identity rows read the shot's caption; 1: one for all identity frames;
            otherwise one per identity frame.
        compat: `no_identity_attention` decides what split means where there is no identity.

    Raises:
        ValueError: the number of captions does not fit the identity frames.
    """
    frames = layout.identity_frames
    if num_identity_captions not in (0, 1, frames) or num_identity_captions > frames:
        raise ValueError(
            f"{num_identity_captions} identity captions for {frames} identity frames: "
            "give none, one, or one for each"
        )
    if not frames and (compat.no_identity_attention == "joint" or not layout.memory_frames):
        form = "joint"
    identity, whole = frames * tokens_per_frame, layout.num_frames * tokens_per_frame
    spans: list[tuple[int, int, int]] = []
    if num_identity_captions:
        step = identity // num_identity_captions
        spans = [(i * step, (i + 1) * step, i + 1) for i in range(num_identity_captions)]
    spans.append((identity if num_identity_captions else 0, whole, 0))
    return TokenPlan(
        identity=identity,
        memory=layout.memory_frames * tokens_per_frame,
        target=layout.target_frames * tokens_per_frame,
        form=form,
        captions=tuple(span for span in spans if span[0] < span[1]),
    )


def attend_ranges(
    q_blhd: Tensor, k_blhd: Tensor, v_blhd: Tensor, plan: TokenPlan, backend: Any = None
) -> Tensor:
    """Self-attention of the whole sequence [identity | memory | target].

    Split: one group is identity and memory, the other memory and target; memory rows get half of either
    group's result, before the output projection as in the reference code. Identity and target never see each
    other.

    Args:
        q_blhd: queries of all tokens; any number of heads.
        k_blhd: keys, likewise.
        v_blhd: values, likewise.
        plan: of the whole sequence.
        backend: of diffusers' attention dispatcher; None is PyTorch's own choice of kernel.

    Returns:
        Tensor [b, l, h, d].
    """
    attend = partial(dispatch_attention_fn, backend=backend or PYTORCH)
    if plan.form == "joint":
        return attend(q_blhd, k_blhd, v_blhd)
    first, middle = plan.identity, plan.identity + plan.memory
    before = attend(q_blhd[:, :middle], k_blhd[:, :middle], v_blhd[:, :middle])
    after = attend(q_blhd[:, first:], k_blhd[:, first:], v_blhd[:, first:])
    if not plan.memory:
        return torch.cat((before, after), dim=1)
    memory = 0.5 * before[:, first:] + 0.5 * after[:, : plan.memory]
    return torch.cat((before[:, :first], memory, after[:, plan.memory :]), dim=1)


class MementoSelfAttention:
    """Self-attention processor: project, normalise, rotate, attend over the plan's ranges."""

    _attention_backend = None  # set by diffusers' `set_attention_backend`
    _parallel_config = None  # diffusers' own context parallelism is not used: its cuts ignore the ranges

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        rotary_emb: Tensor | None = None,
        *,
        plan: TokenPlan,
    ) -> Tensor:
        """Attend over own rows; arguments as diffusers passes them.

        Args:
            attn: a `WanAttention`, whose weights are used.
            hidden_states: [b, l, width], own rows.
            encoder_hidden_states: not used in self-attention.
            attention_mask: not used.
            rotary_emb: [b, l, 1, c, 2] of the own rows.
            plan: of the sequence.

        Returns:
            Tensor [b, l, width].
        """
        assert encoder_hidden_states is None, "self-attention has no second input"
        assert attention_mask is None, "self-attention has no mask"
        assert rotary_emb is not None, "self-attention needs positions"
        v_blhd = _heads(attn, attn.to_v(hidden_states))
        q_blhd = rotate(_heads(attn, _normed(attn.norm_q, attn.to_q(hidden_states))), rotary_emb)
        k_blhd = rotate(_heads(attn, _normed(attn.norm_k, attn.to_k(hidden_states))), rotary_emb)
        q_blhd, k_blhd = q_blhd.to(v_blhd.dtype), k_blhd.to(v_blhd.dtype)
        inner = partial(attend_ranges, plan=plan, backend=self._attention_backend)
        if plan.parallel is None:
            out_blhd = inner(q_blhd, k_blhd, v_blhd)
        else:
            out_blhd = plan.parallel.attend(q_blhd, k_blhd, v_blhd, inner, plan.num_tokens)
        return attn.to_out[0](out_blhd.flatten(2))


class MementoCrossAttention:
    """Cross-attention processor: each span of rows reads its own caption, padding rows included."""

    _attention_backend = None
    _parallel_config = None

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        rotary_emb: Tensor | None = None,
        *,
        plan: TokenPlan,
    ) -> Tensor:
        """Read the captions; arguments as diffusers passes them.

        Args:
            attn: a `WanAttention`, whose weights are used.
            hidden_states: [b, l, width], own rows.
            encoder_hidden_states: [b, n, t, width], the shot's caption first, then the identities'.
            attention_mask: not used: padding is read like any other row.
            rotary_emb: not used: text has no positions here.
            plan: whose `captions` say which rows read what.

        Returns:
            Tensor [b, l, width].
        """
        assert encoder_hidden_states is not None, "cross-attention needs captions"
        assert attention_mask is None, "padding rows are read too"
        assert rotary_emb is None, "text has no positions"
        q_blhd = _heads(attn, _normed(attn.norm_q, attn.to_q(hidden_states)))
        text_bntw = encoder_hidden_states
        k_bnthd = _heads(attn, _normed(attn.norm_k, attn.to_k(text_bntw)))
        v_bnthd = _heads(attn, attn.to_v(text_bntw))
        q_blhd, k_bnthd = q_blhd.to(v_bnthd.dtype), k_bnthd.to(v_bnthd.dtype)
        parts = [
            dispatch_attention_fn(
                q_blhd[:, start:stop],
                k_bnthd[:, caption],
                v_bnthd[:, caption],
                backend=self._attention_backend or PYTORCH,
            )
            for start, stop, caption in plan.captions
        ]
        out_blhd = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
        return attn.to_out[0](out_blhd.flatten(2))


def _heads(attn: Any, x: Tensor) -> Tensor:
    return x.unflatten(-1, (attn.heads, -1))


def _normed(norm: Any, x: Tensor) -> Tensor:
    # A norm kept in fp32 is meant to work in fp32; PyTorch warns of mixed types.
    return norm(x.to(norm.weight.dtype))
