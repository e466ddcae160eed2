"""The Memento transformer: Wan2.2's weights and modules with memory frames, true times and split attention.

Axes: b batch, c channels, f latent frames, h and w latent rows and columns, l tokens (frame, row, column
order), t text rows, d width of the text encoder or of the residual stream, n captions.

Modules and parameter names are diffusers'; the forward pass is ours and runs on one device. Parallelism,
offloading and compilation are applied from outside, block by block.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from diffusers.models.activations import GELU
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel, WanTransformerBlock
from torch import Tensor, nn

from curation.cpu_linear import gelu_linear, speed_up
from memento_model.config import Compat, Layout, ModelConfig, rope_split
from memento_model.nn.attention import (
    AttentionForm,
    MementoCrossAttention,
    MementoSelfAttention,
    SequenceParallel,
    TokenPlan,
    plan_tokens,
)
from memento_model.nn.rope import rotary_table

Text: TypeAlias = Tensor | Sequence[Tensor]
"""Rows of the text encoder: [b, t, d], or one [t, d] per sample, of any lengths up to the model's."""

FP32_MODULES = ("time_embedder", "time_proj", "scale_shift_table", "norm1", "norm2", "norm3")
"""Parts of names: what stays fp32 when the rest becomes bf16 (time path, modulation, layer norms)."""


class MementoBlock(WanTransformerBlock):
    """A Wan block: fp32 norms and modulation, products in the weights' type, the stream in its own type."""

    attn1: Any
    attn2: Any
    scale_shift_table: nn.Parameter

    def forward(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        temb: Tensor,
        rotary_emb: Tensor,
        plan: TokenPlan | None = None,
    ) -> Tensor:
        """Self-attention, cross-attention, feed-forward; arguments named as in diffusers.

        Args:
            hidden_states: residual stream [b, l, d], own rows.
            encoder_hidden_states: embedded captions [b, n, t, d], the shot's first.
            temb: modulation [b, 6, d], fp32, one set per sample: shift, scale, gate of attention, then of the
                feed-forward part.
            rotary_emb: rotation [b, l, 1, c, 2] of the own rows.
            plan: who attends to what; required.

        Returns:
            Tensor [b, l, d] of the stream's type.
        """
        stream_bld, dtype = hidden_states, self.attn1.to_q.weight.dtype
        shift, scale, gate, ffn_shift, ffn_scale, ffn_gate = (
            (self.scale_shift_table.float() + temb).unsqueeze(2).unbind(1)
        )
        x = _modulated(self.norm1, stream_bld, shift, scale).to(dtype)
        stream_bld = _add(stream_bld, self.attn1(x, rotary_emb=rotary_emb, plan=plan), gate)
        x = self.norm2(stream_bld.float()).to(dtype)
        stream_bld = stream_bld + self.attn2(x, encoder_hidden_states, plan=plan).to(stream_bld.dtype)
        x = _modulated(self.norm3, stream_bld, ffn_shift, ffn_scale).to(dtype)
        return _add(stream_bld, self.ffn(x), ffn_gate)


class MementoGELU(GELU):
    """The first half of a feed-forward part; on some processors layer and activation are one call."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        """[b, l, d] -> [b, l, hidden width]."""
        return gelu_linear(self.proj, hidden_states)


class MementoTransformer(WanTransformer3DModel):
    """One expert (high or low noise), in the T2V (16 channels) or the I2V form (36: noisy, mask, condition).

    Attributes:
        compat: choices on which releases differ; `residual` and `no_identity_attention` act here.
        sequence_parallel: spreads tokens over processes; None on one.
    """

    # What is used of the base class; all else of it is its loaders.
    config: Any
    patch_embedding: Any
    condition_embedder: Any
    blocks: Any
    norm_out: Any
    proj_out: Any
    scale_shift_table: nn.Parameter
    gradient_checkpointing: bool
    _gradient_checkpointing_func: Any

    _no_split_modules = ["MementoBlock"]
    _repeated_blocks = ["MementoBlock"]
    _keep_in_fp32_modules = list(FP32_MODULES)
    _cp_plan: Any = None  # its cuts ignore the three token ranges

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.config.added_kv_proj_dim is not None or self.config.image_dim is not None:
            raise ValueError(
                "Wan2.1's image-conditioned weights (image_dim) have no Memento form; use Wan2.2's"
            )
        del self.rope  # positions come with every call
        for block in self.blocks:
            block.__class__ = MementoBlock  # same modules, our forward
            block.attn1.set_processor(MementoSelfAttention())
            block.attn2.set_processor(MementoCrossAttention())
            block.ffn.net[0].__class__ = MementoGELU
        speed_up(self)
        self.compat = Compat()
        self.text_len = 512
        self.sequence_parallel: SequenceParallel | None = None

    @classmethod
    def from_config(cls, config: Any = None, *args: Any, compat: Compat | None = None, **kwargs: Any) -> Any:
        """A transformer with untrained weights.

        Args:
            config: ours, or a diffusers `WanTransformer3DModel` config (whose `text_len` is optional).
            *args: for diffusers' own constructor, with its config only.
            compat: choices on which releases differ.
            **kwargs: like `args`.

        Returns:
            The model; under `torch.device("meta")` without storage.
        """
        if isinstance(config, ModelConfig):
            made: Any = cls(**wan_arguments(config))
            text_len = config.text_len
        else:
            settings = dict(config)
            text_len = settings.pop("text_len", 512)
            made = super().from_config(settings, *args, **kwargs)
        model = made[0] if isinstance(made, tuple) else made  # diffusers adds its leftovers if asked to
        model.text_len = text_len
        model.compat = compat or Compat()
        return made

    @property
    def text_len(self) -> int:
        """Rows to which text is padded with zeros, unmasked; saved with the config."""
        return self.config.text_len

    @text_len.setter
    def text_len(self, rows: int) -> None:
        self.register_to_config(text_len=rows)

    def cast(self, dtype: torch.dtype) -> MementoTransformer:
        """Give the weights `dtype`, except for `FP32_MODULES` and adapters (fp32); in place."""
        for name, parameter in self.named_parameters():
            kept = any(part in name.split(".") for part in FP32_MODULES) or ".lora_" in name
            parameter.data = parameter.data.to(torch.float32 if kept else dtype)
        return self

    def forward(
        self,
        latents_bcfhw: Tensor,
        timestep_b: Tensor,
        text_bld: Text,
        *,
        positions_bf: Tensor,
        layout: Layout,
        identity_text: Tensor | Sequence[Text] | None = None,
        attention: AttentionForm = "split",
    ) -> Tensor:
        """Predict the velocity (noise - clean latent) of every frame.

        Args:
            latents_bcfhw: [identity, memory, target] on the frame axis; 16 noisy channels, in the I2V form
                followed by 4 of mask and 16 of condition.
            timestep_b: one per sample, 0..1000, fractions allowed.
            text_bld: the shot's caption; un-padded rows of the text encoder.
            positions_bf: integer temporal positions in latent frames; 0 is the shot's first.
            layout: frames of each part.
            identity_text: what the identity rows read instead: [b, n, t, d], or n times what `text_bld` may
                be; n is 1 or the number of identity frames.
            attention: `split`, or `joint` (everything attends to everything).

        Returns:
            Tensor [b, 16, f, h, w], fp32.

        Raises:
            ValueError: shapes that do not fit each other or the model.
        """
        self._check(latents_bcfhw, timestep_b, positions_bf, layout)
        patch = self.patch_embedding
        grid_bdfhw = patch(latents_bcfhw.to(patch.weight.dtype))
        frames, rows, columns = grid_bdfhw.shape[2:]
        captions = [text_bld, *_captions(identity_text)]
        plan = plan_tokens(
            layout,
            rows * columns,
            form=attention,
            num_identity_captions=len(captions) - 1,
            compat=self.compat,
        )
        table_bl1c2 = rotary_table(positions_bf, rows, columns, rope_split(self.config.attention_head_dim))
        stream_bld = grid_bdfhw.flatten(2).transpose(1, 2).contiguous()
        if self.sequence_parallel is not None:
            start, stop = self.sequence_parallel.span(plan.num_tokens)
            plan = plan.rows(start, stop, self.sequence_parallel)
            stream_bld, table_bl1c2 = stream_bld[:, start:stop], table_bl1c2[:, start:stop]
        time_bd, modulation_b6d = self.embed_time(timestep_b)
        text_bntd = self._embed(
            torch.stack([pad_text(caption, self.text_len) for caption in captions], dim=1)
        )
        stream_bld = self._run_blocks(
            stream_bld.to(self.residual_dtype), text_bntd, modulation_b6d, table_bl1c2, plan
        )
        out_blc = self._head(stream_bld, time_bd)
        if plan.parallel is not None:
            out_blc = plan.parallel.gather(out_blc, plan.num_tokens)
        return self._unpatchify(out_blc, (frames, rows, columns))

    @property
    def residual_dtype(self) -> torch.dtype:
        """Of the stream between blocks."""
        return torch.float32 if self.compat.residual == "fp32" else torch.bfloat16

    def embed_time(self, timestep_b: Tensor) -> tuple[Tensor, Tensor]:
        """Sinusoid in float64, the rest in fp32 whatever autocast says.

        Returns:
            Tensors [b, d] (for the head) and [b, 6, d] (for the blocks), fp32.
        """
        embedder = self.condition_embedder
        wave_bd = time_wave(timestep_b, self.config.freq_dim)
        with torch.autocast(wave_bd.device.type, enabled=False):
            time_bd = embedder.time_embedder(wave_bd.to(embedder.time_embedder.linear_1.weight.dtype))
            six_bd = embedder.time_proj(embedder.act_fn(time_bd).to(embedder.time_proj.weight.dtype))
        return time_bd.float(), six_bd.float().unflatten(1, (6, -1))

    def embed_text(self, text: Text) -> Tensor:
        """Pad with zero rows and embed; padding becomes constant rows that are read like any other.

        Returns:
            Tensor [b, text_len, d] in the weights' type; also what `KeyframeQuery` reads.

        Raises:
            ValueError: more rows than the model reads.
        """
        return self._embed_text(text)

    def _embed_text(self, text: Text) -> Tensor:
        # Apart from `embed_text`, which sharding wraps as an entrance of its own.
        return self._embed(pad_text(text, self.text_len))

    def _embed(self, padded: Tensor) -> Tensor:
        embedder = self.condition_embedder.text_embedder
        return embedder(padded.to(embedder.linear_1.weight.dtype))

    def _run_blocks(self, stream_bld: Tensor, *shared: Any) -> Tensor:
        checkpointed = torch.is_grad_enabled() and self.gradient_checkpointing
        for block in self.blocks:
            if checkpointed:
                stream_bld = self._gradient_checkpointing_func(block, stream_bld, *shared)
            else:
                stream_bld = block(stream_bld, *shared)
        return stream_bld

    def _head(self, stream_bld: Tensor, time_bd: Tensor) -> Tensor:
        shift, scale = (self.scale_shift_table.float() + time_bd[:, None]).unsqueeze(2).unbind(1)
        x = _modulated(self.norm_out, stream_bld, shift, scale)
        return self.proj_out(x.to(self.proj_out.weight.dtype)).float()

    def _unpatchify(self, out_blc: Tensor, grid: tuple[int, int, int]) -> Tensor:
        patch = tuple(self.config.patch_size)
        out = out_blc.unflatten(1, grid).unflatten(-1, (*patch, -1))  # b F H W pf ph pw c
        return out.permute(0, 7, 1, 4, 2, 5, 3, 6).flatten(6, 7).flatten(4, 5).flatten(2, 3)

    def _check(self, latents: Tensor, timestep: Tensor, positions: Tensor, layout: Layout) -> None:
        patch = self.config.patch_size
        if latents.ndim != 5 or latents.shape[1] != self.config.in_channels:
            raise ValueError(
                f"latents must be [b, {self.config.in_channels}, f, h, w], got {list(latents.shape)}"
            )
        if any(size % step for size, step in zip(latents.shape[2:], patch, strict=True)):
            raise ValueError(
                f"latent size {list(latents.shape[2:])} is no multiple of the patch {list(patch)}"
            )
        if latents.shape[2] != layout.num_frames * patch[0]:
            raise ValueError(f"latents have {latents.shape[2]} frames, the layout {layout.num_frames}")
        if timestep.shape != latents.shape[:1]:
            raise ValueError(
                f"timestep must be [{latents.shape[0]}], one per sample, got {list(timestep.shape)}"
            )
        if positions.shape != (latents.shape[0], layout.num_frames) or positions.is_floating_point():
            raise ValueError(
                f"positions must be integers [{latents.shape[0]}, {layout.num_frames}], "
                f"got {list(positions.shape)} of {positions.dtype}"
            )


# Diffusers' loaders read the signature, which stays the base class's.
functools.update_wrapper(MementoTransformer.__init__, WanTransformer3DModel.__init__)


def wan_arguments(config: ModelConfig) -> dict[str, Any]:
    """The same shape in the words of diffusers' `WanTransformer3DModel`."""
    return {
        "patch_size": config.patch_size,
        "num_attention_heads": config.num_heads,
        "attention_head_dim": config.head_dim,
        "in_channels": config.in_channels,
        "out_channels": config.out_channels,
        "text_dim": config.text_dim,
        "freq_dim": config.freq_dim,
        "ffn_dim": config.ffn_width,
        "num_layers": config.num_layers,
        "eps": config.eps,
    }


def time_wave(timestep_b: Tensor, channels: int) -> Tensor:
    """Cosines, then sines, of the timestep at falling frequencies (base 10000): [b, channels], fp32."""
    half = channels // 2
    exponents = torch.arange(half, dtype=torch.float64, device=timestep_b.device) / half
    angles = timestep_b.to(torch.float64)[:, None] * 10000.0**-exponents
    return torch.cat((angles.cos(), angles.sin()), dim=1).float()


def pad_text(text: Text, text_len: int) -> Tensor:
    """Zero rows up to `text_len`: Tensor [b, text_len, d].

    Raises:
        ValueError: more rows than that.
    """
    if isinstance(text, Tensor):
        if text.ndim != 3 or text.shape[1] > text_len:
            raise ValueError(f"text must be [b, up to {text_len}, d], got {list(text.shape)}")
        return F.pad(text, (0, 0, 0, text_len - text.shape[1]))
    return torch.cat([pad_text(rows[None], text_len) for rows in text])


@torch.no_grad()
def initialise(model: nn.Module, seed: int) -> None:
    """Weights to train from scratch, the same for the same seed on any device (Wan's published scheme).

    Linear layers and patches Xavier uniform, biases zero, text and time embeddings N(0, 0.02), modulation
    N(0, 1 / width), the output layer zero.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        values = torch.zeros(parameter.shape)
        if name.endswith("scale_shift_table"):
            values.normal_(0, parameter.shape[-1] ** -0.5, generator=generator)
        elif "norm" in name:
            values.fill_(float(name.endswith("weight")))
        elif name.startswith(("condition_embedder.text_embedder", "condition_embedder.time_embedder")):
            if name.endswith("weight"):
                values.normal_(0, 0.02, generator=generator)
        elif name.endswith("weight") and not name.startswith("proj_out"):
            nn.init.xavier_uniform_(values.view(parameter.shape[0], -1), generator=generator)
        parameter.copy_(values)


def _captions(identity_text: Tensor | Sequence[Text] | None) -> list[Text]:
    if identity_text is None:
        return []
    if isinstance(identity_text, Tensor):
        if identity_text.ndim != 4:
            raise ValueError(f"identity_text must be [b, n, t, d], got {list(identity_text.shape)}")
        return list(identity_text.unbind(1))
    return list(identity_text)


def _modulated(norm: nn.LayerNorm, stream_bld: Tensor, shift_b1d: Tensor, scale_b1d: Tensor) -> Tensor:
    """The norm of the stream times (1 + scale) plus shift, fp32.

    Both are vectors of a sample, so they are passed as the affine part of its norm: one pass over memory, and
    the norm without them is not kept for the backward pass.
    """
    samples = zip(stream_bld.float(), 1 + scale_b1d[:, 0], shift_b1d[:, 0], strict=True)
    made = [
        F.layer_norm(x_ld, norm.normalized_shape, scale, shift, norm.eps) for x_ld, scale, shift in samples
    ]
    return made[0][None] if len(made) == 1 else torch.stack(made)


def _add(stream_bld: Tensor, update_bld: Tensor, gate_b1d: Tensor) -> Tensor:
    """The gated residual sum; the fp32 gate lifts the arithmetic to fp32 whatever the others are."""
    return torch.addcmul(stream_bld, update_bld, gate_b1d).to(stream_bld.dtype)
