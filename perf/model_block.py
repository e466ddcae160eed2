"""One block of the transformer at full size: time, share of the device's peak, and a shot extrapolated.

46,800 tokens (1 identity, 8 memory, 21 target frames of 480x832) of width 5120, bf16 weights and products,
split attention; against the plain block of `perf.model_plain`, whose scores go through the same fused kernel
here because a full matrix (175 GB) fits nowhere. Only a GPU runs this in sensible time.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from memento_model.config import Compat, Layout, ModelConfig
from memento_model.nn.attention import plan_tokens
from memento_model.nn.lora import inject_lora
from memento_model.nn.rope import rotary_table
from memento_model.nn.transformer import MementoTransformer, initialise
from perf.model_plain import CHOICES, PlainTransformer, rotary

FULL = ModelConfig(num_layers=1)
LAYOUT = Layout(identity_frames=1, memory_frames=8, target_frames=21)
GRID = (30, 52)
"""Rows and columns of tokens."""
BLOCKS, STEPS, PASSES = 40, 40, 2
"""Of a shot: blocks of a model, solver steps, forward passes of a step (with and without the prompt)."""


@dataclass(frozen=True)
class Measured:
    """Of one call: seconds, floating-point operations of the model, peak bytes above the weights."""

    seconds: float
    flops: float
    peak: int


def block_flops(config: ModelConfig, layout: Layout, tokens_per_frame: int) -> tuple[float, float]:
    """Operations of one block's linear layers and of its attentions, split form; adapters aside."""
    frames = layout.identity_frames + layout.memory_frames, layout.memory_frames + layout.target_frames
    groups = [count * tokens_per_frame for count in frames]
    tokens, width = layout.num_frames * tokens_per_frame, config.width
    texts = config.text_len * (2 if layout.identity_frames else 1)
    linear = 2 * tokens * (6 * width**2 + 2 * width * config.ffn_width) + 4 * texts * width**2
    attention = 4 * width * (sum(group**2 for group in groups) + tokens * config.text_len)
    return float(linear), float(attention)


def make_block(config: ModelConfig, device: str, residual: Any) -> tuple[Any, MementoTransformer]:
    """A block in bf16 with trainable adapters, and the model it is of."""
    with torch.device(device):
        model = MementoTransformer.from_config(config, compat=Compat(residual=residual))
    if device == "cpu":
        initialise(model, 0)
    else:
        torch.manual_seed(0)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.02)
    model.cast(torch.bfloat16).requires_grad_(False)
    return model.blocks[0], model


def make_inputs(
    model: MementoTransformer, layout: Layout, grid: tuple[int, int], device: str
) -> tuple[Any, ...]:
    """Arguments of a block: stream, captions, modulation, rotation, plan."""
    config, tokens = model.config, grid[0] * grid[1]
    width = config.num_attention_heads * config.attention_head_dim
    torch.manual_seed(1)
    positions = torch.arange(-9, layout.num_frames - 9, device=device)[None]
    return (
        torch.randn(1, layout.num_frames * tokens, width, device=device).to(model.residual_dtype),
        torch.randn(1, 2, model.text_len, width, device=device, dtype=torch.bfloat16),
        torch.randn(1, 6, width, device=device) * 0.1,
        rotary_table(positions, *grid, _split(config)),
        plan_tokens(layout, tokens, form="split", num_identity_captions=1, compat=model.compat),
    )


def _split(config: Any) -> tuple[int, int, int]:
    side = 2 * (config.attention_head_dim // 6)
    return config.attention_head_dim - 2 * side, side, side


def measure(call: Callable[[], Any], flops: float, device: str, repeat: int) -> Measured:
    """Median seconds and, on a GPU, the peak of allocated bytes above what was there."""
    cuda, times = device.startswith("cuda"), []
    call()
    if cuda:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated() if cuda else 0
    for _ in range(repeat):
        start = time.perf_counter()
        call()
        if cuda:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    peak = torch.cuda.max_memory_allocated() - before if cuda else 0
    return Measured(statistics.median(times), flops, peak)


def measurements(
    config: ModelConfig, layout: Layout, grid: tuple[int, int], device: str, *, repeat: int, compiled: bool
) -> dict[str, Measured]:
    """Everything that the report shows, by name."""
    linear, attention = block_flops(config, layout, grid[0] * grid[1])
    found = {}
    for residual in ("fp32", "bf16"):
        block, model = make_block(config, device, residual)
        inputs = make_inputs(model, layout, grid, device)
        with torch.no_grad():
            if residual == "fp32":
                plain = plain_block(model, config, inputs, layout, grid)
                near = ((block(*inputs) - plain()).norm() / plain().norm()).item()
                assert near < 0.02, f"ours and the plain block differ by {near:.1%}"
                found["plain forward"] = measure(plain, linear + attention, device, repeat)
            calls = {f"forward, residual {residual}": block}
            if compiled:
                calls[f"forward, residual {residual}, compiled"] = torch.compile(block, fullgraph=True)
            for name, call in calls.items():
                found[name] = measure(partial(call, *inputs), linear + attention, device, repeat)
        if residual == "bf16":
            # Frozen weights: gradients of the inputs alone, one product per linear layer, two per attention.
            found["training, residual bf16"] = measure(
                trainer(block, model, replace(config, lora_rank=config.lora_rank or 8), inputs),
                2 * linear + 3 * attention, device, repeat,
            )  # fmt: skip
    return found


def plain_block(
    model: MementoTransformer,
    config: ModelConfig,
    inputs: tuple[Any, ...],
    layout: Layout,
    grid: tuple[int, int],
) -> Callable[[], Tensor]:
    """The plain block on the same weights and inputs, its modulation spread over the tokens."""
    stream, texts, six, _, _ = inputs
    peer = PlainTransformer(dict(model.named_parameters()), config, CHOICES - {"scores"})
    tokens = grid[0] * grid[1]
    sizes = [n * tokens for n in (layout.identity_frames, layout.memory_frames, layout.target_frames)]
    positions = torch.arange(-9, layout.num_frames - 9, device=stream.device)[None]
    turns = rotary(positions, grid, config.head_dim, double=True)
    spread = six[:, None].expand(-1, stream.shape[1], -1, -1).contiguous()
    return lambda: peer.block("blocks.0.", stream, list(texts.unbind(1)), spread, turns, sizes)


def trainer(
    block: Any, model: MementoTransformer, config: ModelConfig, inputs: tuple[Any, ...]
) -> Callable[[], None]:
    """Forward and backward through a frozen block with adapters."""
    inject_lora(model, config, model.compat)
    stream = inputs[0].requires_grad_()

    def step() -> None:
        with torch.autocast(stream.device.type, dtype=torch.bfloat16):
            out = block(stream, *inputs[1:])
        out.float().square().mean().backward()
        stream.grad = None
        model.zero_grad(set_to_none=True)

    return step


def block_report(peak_tflops: float, repeat: int = 10) -> str:
    """Markdown of a run on this machine's GPU."""
    if not torch.cuda.is_available():
        raise SystemExit("no GPU here: one block at full size was not measured")
    found = measurements(FULL, LAYOUT, GRID, "cuda", repeat=repeat, compiled=True)
    tokens = LAYOUT.num_frames * GRID[0] * GRID[1]
    lines = [
        f"### one block at full size: width {FULL.width}, {tokens} tokens, bf16 on "
        f"{torch.cuda.get_device_name()} (peak {peak_tflops:.0f} TFLOP/s)",
        "",
        "| what | ms | TFLOP | share of peak | GiB above weights | a shot, extrapolated |",
        "|---|---|---|---|---|---|",
    ]
    for what, one in found.items():
        share = one.flops / one.seconds / (peak_tflops * 1e12)
        shot = "" if what.startswith("training") else f"{one.seconds * BLOCKS * STEPS * PASSES / 60:.1f} min"
        lines.append(
            f"| {what} | {one.seconds * 1e3:.1f} | {one.flops / 1e12:.1f} | {share:.0%} "
            f"| {one.peak / 2**30:.2f} | {shot} |"
        )
    return "\n".join(lines)
