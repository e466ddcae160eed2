"""KeyframeQuery: which remembered frames the coming shot needs (Memento paper, section 3.2).

Axes: b batch, c latent channels, f candidate frames, h and w latent rows and columns, q queries, g their two
groups, k picked frames, t text rows, d width; inside attention h is heads, e channels of a head, r and k rows
and columns of tokens, l all of them, p numbers of a patch, z batch and heads as one axis, s heads and
queries.

Local queries read the coming shot's caption, global ones the story's; both look at all candidates, then score
whole frames. Six frames are picked by the local group's mean score, two more by the global group's.

Everything after the patches is linear or attention from a dozen queries, so tokens of width d are never made:
a token stays the few dozen numbers of its patch, and values are pooled as patches and projected afterwards.
Keys are met in one of two ways, whichever multiplies less. Where tokens are few, keys are made (`TokenKeys`).
Where they are many, the queries are turned back and brought to the patches (frames, rows and columns each
have a section of the channels, so there are f + r + k turned queries, not f x r x k), and a key's norm is a
quadratic form of its patch (`PatchKeys`). All exact up to rounding.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from memento_model.config import ModelConfig, QueryGradient
from memento_model.nn.keyframe_keys import (
    PatchKeys,
    QueryAttention,
    TokenKeys,
    few_tokens,
    linear,
    normalise,
    patch_keys,
    to_patches,
)


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Picked candidates; with few candidates fewer are picked, global ones last to get any.

    Attributes:
        picked_bk: indices of candidates, local picks by descending score, then global ones.
        num_local: how many of them the local group picked; the same in every sample.
        weights_bkf: one-hot rows; in training their gradient is that of a softmax over the scores.
        scores_bqf: of every query, local rows first.
        local_scores_bf, global_scores_bf: means over either group's queries.
        margin_b: smallest score gap between the last frame picked and the first one not picked, over both
            groups; infinite where nothing was left out. A gap near rounding error means that the pick may
            differ elsewhere.
    """

    picked_bk: Tensor
    num_local: int
    weights_bkf: Tensor
    scores_bqf: Tensor
    local_scores_bf: Tensor
    global_scores_bf: Tensor
    margin_b: Tensor

    def take(self, candidates_bcfhw: Tensor) -> Tensor:
        """The picked frames, [b, c, k, h, w]: the exact values, with the scores' gradient in training."""
        return torch.einsum("bkf,bcfhw->bckhw", self.weights_bkf.to(candidates_bcfhw.dtype), candidates_bcfhw)


class KeyframeQuery(nn.Module):
    """Picks memory frames for one expert; its context comes from the same expert's `embed_text`.

    Works in fp32 whatever the type of its weights. It stands outside the transformer: once per shot, never
    sharded or compiled with it. Parameter names are the official ones below `keyframe_query.`.

    Args:
        config: shape, numbers of queries and picks.
        gradient: see `select`; matters in training alone.
    """

    def __init__(self, config: ModelConfig, gradient: QueryGradient = "picked") -> None:
        super().__init__()
        self.config, self.gradient = config, gradient
        width = config.width
        self.queries = nn.Parameter(torch.empty(config.num_local_queries, width))
        self.queries_global = nn.Parameter(torch.empty(config.num_global_queries, width))
        patch = config.patch_size
        self.memory_patcher = nn.Conv3d(config.out_channels, width, kernel_size=patch, stride=patch)
        self.query_to_text = QueryAttention(width, config.num_heads, config.eps)
        self.query_to_visual = QueryAttention(width, config.num_heads, config.eps)
        self._reset_queries()

    def reset_parameters(self) -> None:
        """Draw all weights anew: PyTorch's defaults, queries N(0, 1 / width), norms one.

        The norms matter: at zero, as the reference trainer leaves them when it starts from weights without
        queries, eight tensors never get a gradient.
        """
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv3d | nn.RMSNorm):
                module.reset_parameters()
        self._reset_queries()

    def forward(
        self,
        candidates_bcfhw: Tensor,
        positions_bf: Tensor,
        local_context_btd: Tensor,
        global_context_btd: Tensor,
        *,
        straight_through: bool | None = None,
        noise_bgf: Tensor | None = None,
    ) -> Selection:
        """Score the candidates and pick.

        Args:
            candidates_bcfhw: clean latents, one or more frames.
            positions_bf: integer temporal positions relative to the coming shot, true ones: no lowering of
                memory below the shot.
            local_context_btd: the coming shot's caption after the expert's `embed_text`.
            global_context_btd: likewise, of its global part.
            straight_through: let the weights carry a gradient; None is `self.training`.
            noise_bgf: what picks are drawn with (see `select`); None picks the best.

        Returns:
            The selection: min(f, 8) frames. With f <= 6 all are local picks, by score.

        Raises:
            ValueError: shapes that do not fit each other or the model.
        """
        scores_bqf = self.scores(candidates_bcfhw, positions_bf, local_context_btd, global_context_btd)
        soft = self.training if straight_through is None else straight_through
        gradient = self.gradient if soft else None
        return select(scores_bqf, self.config, gradient=gradient, noise_bgf=noise_bgf)

    def scores(
        self,
        candidates_bcfhw: Tensor,
        positions_bf: Tensor,
        local_context_btd: Tensor,
        global_context_btd: Tensor,
    ) -> Tensor:
        """Scores [b, q, f] alone, local queries first; arguments and errors as of `forward`."""
        self._check(candidates_bcfhw, positions_bf, local_context_btd, global_context_btd)
        kind = candidates_bcfhw.device.type
        # Switching autocast off costs more than asking whether it is on.
        with torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext():
            rows_bqd = self._read_text(local_context_btd.float(), global_context_btd.float())
            return self._read_frames(rows_bqd, candidates_bcfhw.float(), positions_bf)

    def _read_text(self, local_btd: Tensor, global_btd: Tensor) -> Tensor:
        """Rows [b, q, d] after the local queries read the first context and the global ones the second."""
        attn, context_btd = self.query_to_text, torch.cat((local_btd, global_btd), dim=1)
        rows_bqd = torch.cat((self.queries, self.queries_global)).float().expand(len(context_btd), -1, -1)
        q_zqe = attn.query(rows_bqd) * self.config.head_dim**-0.5
        k_zte = attn.heads(normalise(attn.norm_k, linear(attn.k, context_btd)))
        queries = self.config.num_local_queries, self.config.num_global_queries
        other_tq = _other_context(queries, (local_btd.shape[1], global_btd.shape[1]), context_btd.device)
        # Text before queries: otherwise the gradient of the keys comes transposed, which costs much later.
        logits_ztq = torch.bmm(k_zte, q_zqe.mT).masked_fill(other_tq, -torch.inf)
        weights_bhqt = logits_ztq.softmax(dim=1).mT.unflatten(0, (-1, attn.num_heads))
        # Products with the other context are cheap, but pooling it with weights of zero is not.
        first, split = queries[0], local_btd.shape[1]
        by_local_bsd = torch.bmm(weights_bhqt[:, :, :first, :split].flatten(1, 2), local_btd)
        by_global_bsd = torch.bmm(weights_bhqt[:, :, first:, split:].flatten(1, 2), global_btd)
        pooled = [part_bsd.unflatten(1, (attn.num_heads, -1)) for part_bsd in (by_local_bsd, by_global_bsd)]
        return rows_bqd + attn.output(torch.cat(pooled, dim=2).flatten(1, 2))

    def _read_frames(self, rows_bqd: Tensor, candidates_bcfhw: Tensor, positions_bf: Tensor) -> Tensor:
        """The visual stage, then scores [b, q, f]: means over heads and over a frame's tokens."""
        attn, patcher = self.query_to_visual, self.memory_patcher
        patches_bpfrk = to_patches(candidates_bcfhw, self.config.patch_size)
        assert patcher.bias is not None
        patcher_dp, patcher_d = patcher.weight.float().flatten(1), patcher.bias.float()
        key = patch_keys(attn.k, patcher_dp, patcher_d)
        make = TokenKeys if few_tokens(self.config, patches_bpfrk.shape[1:]) else PatchKeys
        keys = make(attn, patches_bpfrk, key, positions_bf, self.config.rope_split)

        # The query stands at position 0, so it is not rotated; it is normalised like the keys.
        pooled_bsp = torch.bmm(keys.weights(attn.query(rows_bqd)), patches_bpfrk.flatten(2).mT)
        rows_bqd = rows_bqd + attn.output(F.linear(pooled_bsp, patcher_dp, patcher_d))

        # Scores use the bare projections, without norms.
        scores_bqf = keys.mean_products(linear(attn.q, rows_bqd))
        return scores_bqf / (attn.num_heads * self.config.head_dim**0.5)

    def _reset_queries(self) -> None:
        for queries in (self.queries, self.queries_global):
            nn.init.normal_(queries, std=self.config.width**-0.5)

    def _check(self, candidates: Tensor, positions: Tensor, *contexts: Tensor) -> None:
        config = self.config
        if candidates.ndim != 5 or candidates.shape[1] != config.out_channels or not candidates.shape[2]:
            raise ValueError(
                f"candidates must be [b, {config.out_channels}, 1 or more, h, w], "
                f"got {list(candidates.shape)}"
            )
        if any(size % step for size, step in zip(candidates.shape[2:], config.patch_size, strict=True)):
            raise ValueError(
                f"candidate size {list(candidates.shape[2:])} is no multiple of the patch "
                f"{list(config.patch_size)}"
            )
        expected = (candidates.shape[0], candidates.shape[2])
        if positions.shape != expected or positions.is_floating_point():
            raise ValueError(
                f"positions must be integers {list(expected)}, "
                f"got {list(positions.shape)} of {positions.dtype}"
            )
        for context in contexts:
            if context.ndim != 3 or context.shape[::2] != (expected[0], config.width) or not context.shape[1]:
                raise ValueError(
                    f"contexts must be embedded text [{expected[0]}, 1 or more, {config.width}], "
                    f"got {list(context.shape)}"
                )


@lru_cache(maxsize=64)
def _other_context(queries: tuple[int, int], texts: tuple[int, int], device: torch.device) -> Tensor:
    """Whether a text row is of the context that a query does not read: [t, q]."""
    # A cached tensor made in inference mode could not be used in a later training step.
    with torch.inference_mode(False), torch.no_grad():
        rows_t = torch.arange(sum(texts), device=device) < texts[0]
        queries_q = torch.arange(sum(queries), device=device) < queries[0]
        return rows_t[:, None] != queries_q


def select(
    scores_bqf: Tensor,
    config: ModelConfig,
    *,
    gradient: QueryGradient | None,
    noise_bgf: Tensor | None = None,
) -> Selection:
    """Pick whole frames from scores; equal scores go to the earlier candidate.

    Args:
        scores_bqf: fp32, local queries first.
        config: group sizes, numbers to pick, temperature.
        gradient: what the one-hot weights carry back, of softmax(score / temperature) over all candidates for
            local picks and over those left by the local group for global ones. `picked`: the entry of the
            frame picked (official trainer): a frame is told only whether more of itself would have helped.
            `all`: the whole row, the straight-through estimator of Bengio et al. (arXiv 1308.3432): frames
            that were not picked are told whether they would have been better. None: nothing.
        noise_bgf: of the local and the global group, in units of the temperature. With Gumbel noise frames
            are drawn without replacement in proportion to that softmax (Kool et al., arXiv 1903.06059).
            It decides the picks alone; scores and gradients are without it.
    """
    frames = scores_bqf.shape[2]
    local_bf = scores_bqf[:, : config.num_local_queries].mean(dim=1)
    global_bf = scores_bqf[:, config.num_local_queries :].mean(dim=1)
    num_local = min(frames, config.selected_local)
    num_global = min(frames - num_local, config.selected_global)
    shown_bgf = torch.stack((local_bf, global_bf), dim=1).detach()
    if noise_bgf is not None:
        shown_bgf = shown_bgf + config.keyframe_temperature * noise_bgf
    picked_local, margin_local = _top(shown_bgf[:, 0], num_local)
    taken_bf = torch.zeros_like(local_bf, dtype=torch.bool).scatter(1, picked_local, True)
    rest_bf = global_bf.masked_fill(taken_bf, -torch.inf)
    picked_global, margin_global = _top(shown_bgf[:, 1].masked_fill(taken_bf, -torch.inf), num_global)
    picked_bk = torch.cat((picked_local, picked_global), dim=1)
    weights_bkf = F.one_hot(picked_bk, frames).to(scores_bqf.dtype)
    if gradient:
        groups = [(local_bf, num_local)]
        if num_global:  # otherwise the softmax would be over nothing
            groups.append((rest_bf, num_global))
        soft_bkf = torch.cat(
            [
                (scores_bf / config.keyframe_temperature).softmax(dim=1)[:, None].expand(-1, count, -1)
                for scores_bf, count in groups
            ],
            dim=1,
        )
        # Zero, so the values stay exactly one and zero.
        slope_bkf = soft_bkf - soft_bkf.detach()
        weights_bkf = weights_bkf + (slope_bkf if gradient == "all" else weights_bkf * slope_bkf)
    return Selection(
        picked_bk=picked_bk,
        num_local=num_local,
        weights_bkf=weights_bkf,
        scores_bqf=scores_bqf,
        local_scores_bf=local_bf,
        global_scores_bf=global_bf,
        margin_b=torch.minimum(margin_local, margin_global),
    )


def _top(scores_bf: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Indices [b, count] by descending score, and how far the next one is behind [b]."""
    ordered_bf, order_bf = scores_bf.sort(dim=1, descending=True, stable=True)
    if not count or count == scores_bf.shape[1]:
        return order_bf[:, :count], torch.full_like(ordered_bf[:, 0], torch.inf)
    return order_bf[:, :count], ordered_bf[:, count - 1] - ordered_bf[:, count]
