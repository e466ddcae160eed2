"""What is put around a model from outside, in one order: it makes the same numbers faster, larger or spread.

    1. attention backend       which kernel computes attention
    2. activation checkpoints  blocks are computed again in the backward pass
    3. regional compilation    one block's code is compiled and serves all blocks
    4. FSDP2                   weights are shared out, gathered block by block
    5. sequence parallelism    tokens are shared out within a context group

Compilation comes before sharding so that a block is compiled without the gathering of its weights, sharding
before the spreading of tokens because weights are shared over all processes and tokens over some.
"""

from __future__ import annotations

from typing import Literal

import torch
from diffusers.models.attention_dispatch import (
    AttentionBackendName,
    attention_backend,
    dispatch_attention_fn,
)
from torch import nn
from torch.distributed.device_mesh import init_device_mesh

from memento_model.distributed.launch import World
from memento_model.distributed.sharding import shard_query, shard_transformer
from memento_model.distributed.ulysses import Ulysses, check_heads
from memento_model.nn.transformer import MementoTransformer
from memento_model.training.config import ScaleConfig

AttentionBackend = Literal["auto", "sdpa", "cudnn", "flash", "flash3", "sage", "math"]

_BACKENDS = {
    "sdpa": ("native", "comes with PyTorch"),
    "cudnn": ("_native_cudnn", "comes with PyTorch for CUDA"),
    "flash": ("flash", "pip install flash-attn"),
    "flash3": ("_flash_3", "build FlashAttention 3 (flash_attn_interface) for Hopper GPUs"),
    "sage": ("sage", "pip install sageattention"),
    "math": ("_native_math", "comes with PyTorch"),
}


def parallelise(
    transformer: MementoTransformer,
    keyframe_query: nn.Module | None = None,
    *,
    scale: ScaleConfig,
    world: World,
    attention: AttentionBackend = "auto",
) -> None:
    """Apply what `scale` asks for, in place and in the order above.

    Before it: weights loaded, cast, adapters injected or merged, everything on `world.device`. After it: the
    optimiser, for sharding replaces the parameters.

    Args:
        transformer: one expert.
        keyframe_query: its queries; sharded as a unit of their own.
        scale: which of the steps.
        world: of this process.
        attention: kernel of both attentions.

    Raises:
        ValueError: the heads cannot be shared out so, or the kernel is not there.
    """
    check_heads(transformer.config.num_attention_heads, world.context_size)
    choose_attention(transformer, attention, world.device)
    if scale.checkpoint_activations:
        transformer.enable_gradient_checkpointing()
    if scale.compile:
        # Ulysses' exchange is not traced; without it a block must be one graph.
        transformer.compile_repeated_blocks(fullgraph=world.context_size == 1 and not scale.shard)
    if scale.shard and world.size > 1:
        mesh = init_device_mesh(world.device.type, (world.size,))
        shard_transformer(transformer, mesh)
        if keyframe_query is not None:
            shard_query(keyframe_query, mesh)
    if world.context_size > 1:
        transformer.sequence_parallel = Ulysses(world.context_group)


def choose_attention(
    transformer: MementoTransformer, backend: AttentionBackend, device: torch.device | str = "cpu"
) -> None:
    """Select the attention kernel through diffusers' dispatcher, after trying it on a few numbers.

    Args:
        transformer: whose attentions shall use it.
        backend: `auto` leaves PyTorch's choice among its own kernels.
        device: that it must run on.

    Raises:
        ValueError: not installed, or it does not run on this device; names those that do.
    """
    if backend != "auto" and backend not in _BACKENDS:
        raise ValueError(f"no attention backend {backend!r}: choose one of auto, {', '.join(_BACKENDS)}")
    if backend != "auto" and (reason := _why_not(transformer, backend, device)):
        there = ", ".join(name for name in _BACKENDS if not _why_not(transformer, name, device))
        raise ValueError(
            f"attention backend {backend!r} does not run on {torch.device(device).type} here "
            f"({_BACKENDS[backend][1]}; {reason}); these do: auto, {there}"
        )
    # Not by `set_attention_backend`, which changes the default of every other model as well.
    kernel = None if backend == "auto" else AttentionBackendName(_BACKENDS[backend][0])
    for block in transformer.blocks:
        block.attn1.processor._attention_backend = kernel
        block.attn2.processor._attention_backend = kernel


def _why_not(transformer: MementoTransformer, backend: str, device: torch.device | str) -> str | None:
    """What keeps a backend from running, in a line; None if it runs."""
    config = transformer.config
    shape = (1, 128, config.num_attention_heads, config.attention_head_dim)
    try:
        numbers = torch.zeros(shape, dtype=torch.bfloat16, device=device)
        with attention_backend(_BACKENDS[backend][0]):
            dispatch_attention_fn(numbers, numbers, numbers)
    except (RuntimeError, ValueError, ImportError, NotImplementedError) as error:
        return str(error).strip().split("\n", 1)[0].rstrip(".") or type(error).__name__
    return None
