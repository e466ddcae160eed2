"""A training step of the full-size transformer on a GPU: time, share of its peak, memory as estimated.

The block stack at 46,800 tokens (1 identity, 8 memory, 21 target frames of 480x832): frozen bf16 weights,
LoRA of rank 128 in fp32, blocks compiled and computed again in the backward pass, AdamW. Weights and latents
are random. With fewer blocks than 40 the step is shorter; nothing is extrapolated.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

from memento_model.config import Layout, ModelConfig
from memento_model.distributed.launch import World
from memento_model.distributed.parallel import parallelise
from memento_model.nn.lora import inject_lora
from memento_model.nn.transformer import MementoTransformer
from memento_model.training.budget import budget, step_flops
from memento_model.training.config import TrainConfig
from memento_model.training.optim import Optimiser
from memento_model.training.recipes import low_noise_480p
from memento_model.training.trainer import trainable
from memento_model.training.watch import PEAK_TFLOPS

GOAL_MFU = 0.5


@dataclass(frozen=True)
class Measured:
    """Of a step: seconds, operations without what is computed twice, peak bytes, bytes as estimated."""

    seconds: float
    flops: float
    peak: int
    estimated: float


def settings(blocks: int, model: ModelConfig | None = None) -> TrainConfig:
    """The recipe of one expert without queries, on one device."""
    config = low_noise_480p()
    shape = replace(model or config.model, num_layers=blocks)
    return replace(
        config,
        model=shape,
        objective=replace(config.objective, learnable_query=False, bank_frames=shape.bank_size),
        scale=replace(config.scale, shard=False),
    )


def make_transformer(config: TrainConfig, world: World) -> MementoTransformer:
    """Random weights, made on the device in the types they have in training."""
    with torch.device("meta"):
        transformer = MementoTransformer.from_config(config.model, compat=config.compat)
    transformer.requires_grad_(False).cast(torch.bfloat16)
    transformer.to_empty(device=world.device)
    torch.manual_seed(0)
    for parameter in transformer.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    inject_lora(transformer, config.model, config.compat)
    transformer.to(world.device)
    parallelise(transformer, scale=config.scale, world=world)
    return transformer.train()


def make_step(
    transformer: MementoTransformer, config: TrainConfig, layout: Layout, grid: tuple[int, int]
) -> Callable[[], None]:
    """Forward, backward and update on one random sample."""
    device = next(transformer.parameters()).device
    optimiser = Optimiser(trainable(transformer, None), config.optim, config.steps)
    shape, frames = config.model, layout.num_frames
    latents = torch.randn(1, shape.in_channels, frames, *grid, device=device)
    text = torch.randn(shape.text_len // 2, shape.text_dim, device=device)
    given: dict[str, Any] = {
        "positions_bf": torch.arange(-9, frames - 9, device=device)[None],
        "layout": layout,
        "identity_text": [[text]] if layout.identity_frames else None,
    }
    timestep = torch.tensor([500.0], device=device)

    def step() -> None:
        with torch.autocast(device.type, dtype=torch.bfloat16):
            prediction = transformer(latents, timestep, [text], **given)
        prediction.square().mean().backward()
        optimiser.step(0)

    return step


def measure(config: TrainConfig, device: str, repeat: int) -> Measured:
    """Median step after two that compile and warm up; peak of all that is allocated, weights included."""
    world = World(device=torch.device(device))
    cuda = world.device.type == "cuda"
    transformer = make_transformer(config, world)
    _, frames, rows, columns = config.grid.latent_shape
    identities = config.objective.num_identities
    layout = Layout(identity_frames=identities, memory_frames=config.model.bank_size, target_frames=frames)
    step, times = make_step(transformer, config, layout, (rows, columns)), []
    for number in range(2 + repeat):
        if cuda and number == 2:
            torch.cuda.reset_peak_memory_stats()
        start = time.perf_counter()
        step()
        if cuda:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    needs = budget(config, 1)
    return Measured(
        seconds=statistics.median(times[2:]),
        flops=step_flops(config),
        peak=torch.cuda.max_memory_allocated() if cuda else 0,
        estimated=(needs.total - needs.reserve) * 2**30,
    )


def full_report(blocks: int, repeat: int) -> str:
    """Markdown of a run on this machine's GPU."""
    if not torch.cuda.is_available():
        raise SystemExit("no GPU here: a training step at full size was not measured")
    config = settings(blocks)
    found = measure(config, "cuda", repeat)
    name = torch.cuda.get_device_name()
    peak = next((tflops for kind, tflops in PEAK_TFLOPS.items() if kind in name), None)
    mfu = None if peak is None else found.flops / found.seconds / (peak * 1e12)
    told = "unknown peak" if mfu is None else f"{mfu:.0%} ({'met' if mfu >= GOAL_MFU else 'missed'})"
    return "\n".join(
        [
            f"### a training step at full size: {blocks} of 40 blocks, 46,800 tokens, bf16, on {name}",
            "",
            "| s a step | TFLOP | MFU (goal >= 50 %) | peak GiB | estimated GiB |",
            "|---|---|---|---|---|",
            f"| {found.seconds:.2f} | {found.flops / 1e12:,.0f} | {told} | {found.peak / 2**30:.1f} "
            f"| {found.estimated / 2**30:.1f} |",
        ]
    )
